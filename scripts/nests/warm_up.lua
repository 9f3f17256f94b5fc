-- Matrix games alone until the model knows how to answer, then every group plays them or tic-tac-toe.
--
-- A language model that does not know the answer format yet is refused at every turn, and a game of several turns then costs
-- many tokens and teaches little. One turn of a matrix game teaches the format cheaply.

local KNOWS_THE_FORMAT = 0.4 -- of the matrix games succeed

return {
  mode = "nested",
  stages = function(rng, stats)
    local matrix = stats.matrix
    if not matrix or matrix.success < KNOWS_THE_FORMAT or rng:int(1, 2) == 1 then return { "matrix" } end
    return { "tictactoe" }
  end,
  reward = function(results) return gift.mean(results) end,
}
