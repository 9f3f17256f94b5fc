-- Nested, with an order that follows the learner: the sub-task it succeeds at most often comes first, the hardest last.
--
-- A trajectory then starts on familiar ground, and when the context limit cuts it short, it is the least promising part
-- that is lost. Games without figures yet count as unsolved; equal figures keep the order of GAMES, so the first
-- iterations run as f_i3_nested.lua does. In the paper the order hardly matters; this file is here to test that.

local GAMES = { "math", "matrix", "tictactoe", "spy" }

-- The success rate, from 0 to 1, with the reward as a small tie-break: it moves before the first success does.
local function progress(stats, name)
  local entry = stats[name]
  if not entry then return 0 end
  return (entry.success or 0) + 0.01 * (entry.reward or 0)
end

return {
  mode = "nested",
  stages = function(rng, stats)
    local place = {}
    for index, name in ipairs(GAMES) do
      place[name] = index
    end
    local order = table.clone(GAMES)
    table.sort(order, function(a, b)
      local progress_a, progress_b = progress(stats, a), progress(stats, b)
      if progress_a ~= progress_b then return progress_a > progress_b end
      return place[a] < place[b] -- table.sort is not stable
    end)
    return order
  end,
  reward = function(results) return gift.mean(results) end,
}
