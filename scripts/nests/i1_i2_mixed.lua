-- I1+I2 mixed: every trajectory plays one game, matrix games or tic-tac-toe, and the groups of an iteration are shared out
-- evenly. Ours, for small language models: GIFT (arXiv:2601.05633) always has math beside the games.

return {
  mode = "mixed",
  stages = { "matrix", "tictactoe" },
}
