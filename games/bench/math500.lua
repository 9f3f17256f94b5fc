-- MATH500 (Lightman et al., arXiv:2305.20050): 500 problems of MATH (Hendrycks et al., arXiv:2103.03874). One problem an
-- episode; an answer is right if it is mathematically the same as the reference.
--
-- Reads `test.jsonl` of `HuggingFaceH4/MATH-500` as published: `problem`, `answer`, `subject`, `level`.
--
-- Options: `games.math500.data` is the file.

local bench = require("bench")

---@type gift.Game
local game = { name = "math500", seats = 1, max_turns = 1, illegal = "end" }

local MAX_ANSWER_BYTES = 400

function game.episodes(options)
  return #bench.rows(options, game.name)
end

function game.init(rng, options)
  local rows = bench.rows(options, game.name)
  local row = rows[bench.number(rng, options, #rows)]
  return {
    question = bench.text(row, "problem", options.data),
    answer = bench.text(row, "answer", options.data),
    subject = tostring(row.subject or ""),
    done = false,
    correct = false,
  }
end

function game.to_act(state)
  if state.done then return nil end
  return 1
end

function game.observe(state, _seat)
  return "Solve this problem.\n\n" .. state.question .. "\n\nThink step by step inside <think>...</think>, then give only the "
    .. "result inside <answer>...</answer>."
end

function game.brief(state, _seat)
  return bench.head(state.question)
end

function game.apply(state, _seat, action)
  if action == "" then gift.illegal("the answer is empty") end
  if #action > MAX_ANSWER_BYTES then gift.illegal("the answer is longer than " .. MAX_ANSWER_BYTES .. " bytes") end
  state.correct = gift.math_equal(action, state.answer)
  state.done = true
  return state
end

function game.outcome(state)
  return { scores = { state.correct and 1 or 0 }, success = { state.correct } }
end

function game.bot(state, _seat, _rng)
  return state.answer
end

return game
