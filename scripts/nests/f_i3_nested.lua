-- F+I3 nested: every trajectory plays four sub-tasks one after the other.
--
-- GIFT (arXiv:2601.05633) writes F for the formal task, math, and I for informal games. In its tables I1 is the
-- matrix games, I2 tic-tac-toe, and I3 all three games, who's the spy included.
--
-- The trajectory's reward is the mean of the sub-tasks' rewards, and it succeeds only if all of them do. For a strict
-- joint reward, which pays only when every sub-task does, return `gift.all(results)` instead.

return {
  mode = "nested",
  stages = { "math", "matrix", "tictactoe", "spy" },
  reward = function(results) return gift.mean(results) end,
}
