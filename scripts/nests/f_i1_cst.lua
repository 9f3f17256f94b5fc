-- F+I1 with coordinated subtask training: an iteration rolls out and updates on each of the two sub-tasks in
-- turn, so a later sub-task is played by a policy that has just learnt from the earlier ones.
--
-- GIFT (arXiv:2601.05633) writes F for the formal task, math, and I for informal games. In its tables I1 is the
-- matrix games, I2 tic-tac-toe, and I3 all three games, who's the spy included.

return {
  mode = "cst",
  stages = { "math", "matrix" },
  k = { 1, 1 }, -- local updates of each sub-task
}
