-- Pays for success alone: a draw is worth no more than a loss. The penalty stays, because without it nothing teaches
-- the answer format while successes are still rare.

return function(episode)
  local reward = episode.outcome.success[episode.seat] and 1 or 0
  return reward + episode.penalty
end
