-- The default reward plus a small bonus for succeeding in few turns: 0.1 for one turn, 0.05 for two, and so on.
--
-- The bonus stays below every difference between two outcomes, so a quick draw never beats a slow win, and it is paid
-- for successes only, so losing quickly gains nothing.

local BONUS = 0.1

return function(episode)
  local own_turns = 0
  for _, turn in ipairs(episode.turns) do
    if turn.seat == episode.seat then own_turns = own_turns + 1 end
  end
  local reward = episode.outcome.scores[episode.seat] + episode.penalty
  if episode.outcome.success[episode.seat] then reward = reward + BONUS / math.max(own_turns, 1) end
  return reward
end
