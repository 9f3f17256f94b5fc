-- expect: script::runtime in init
-- Draws a board with one cell so wide that no memory holds the drawing.
local game = { name = "hostile", seats = 1, max_turns = 2 }
function game.init(rng, options)
  local cells = table.create(50000, "")
  cells[1] = string.rep("x", 1000000)
  gift.grid(cells, 3)
  return { n = 0 }
end
function game.to_act(state)
  if state.n > 0 then return nil end
  return 1
end
function game.observe(state, seat)
  return "n is " .. tostring(state.n)
end
function game.actions(state, seat)
  return { "a", "b" }
end
function game.apply(state, seat, action)
  state.n = 1
  return state
end
function game.outcome(state)
  return { scores = { 1 }, success = { true } }
end
return game
