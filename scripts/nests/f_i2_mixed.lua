-- F+I2 mixed: every trajectory plays one sub-task, and the groups of an iteration are shared out among two
-- sub-tasks. The baseline that nested training is compared with.
--
-- GIFT (arXiv:2601.05633) writes F for the formal task, math, and I for informal games. In its tables I1 is the
-- matrix games, I2 tic-tac-toe, and I3 all three games, who's the spy included.

return {
  mode = "mixed",
  stages = { "math", "tictactoe" },
  weights = { 1, 1 }, -- equal shares of the groups
}
