-- Tic-tac-toe as one writes it down first, for `scripts/bench/env.py`: a list of cells, and the library's functions for all that
-- is asked of them. games/tictactoe.lua puts together beforehand what it can.

---@type gift.Game
local game = { name = "tictactoe_plain", seats = 2, max_turns = 5 }

local MARKS = { "X", "O" }

local TEXT = "You are playing tic-tac-toe. Your mark is {mark}. Your opponent's latest move was cell {last}. The board is now:\n\n{board}"
  .. "\n\nWhich free cell do you mark? Answer with its number, in the form <think>...</think><answer>...</answer>"

function game.init(rng, options)
  return { board = { "", "", "", "", "", "", "", "", "" }, turn = rng:int(1, 2), last = 0, winner = 0 }
end

function game.to_act(state)
  if state.turn == 0 then return nil end
  return state.turn
end

function game.observe(state, seat)
  return gift.template(TEXT, { mark = MARKS[seat], last = state.last, board = gift.grid(state.board, 3) })
end

function game.brief(state, seat)
  return "b" .. seat .. table.concat(gift.free(state.board))
end

function game.actions(state, seat)
  return gift.free(state.board)
end

function game.apply(state, seat, action)
  local cell = tonumber(action)
  if state.board[cell] ~= "" then gift.illegal("name a free cell") end
  state.board[cell] = MARKS[seat]
  state.last = cell
  state.turn = 3 - seat
  if gift.line(state.board, 3, 3, cell) then
    state.winner = seat
    state.turn = 0
  elseif #gift.free(state.board) == 0 then
    state.turn = 0
  end
  return state
end

function game.outcome(state)
  if state.winner == 0 then return { scores = { 0.5, 0.5 }, success = { false, false } } end
  local first = state.winner == 1
  return { scores = { first and 1 or 0, first and 0 or 1 }, success = { first, not first } }
end

return game
