-- expect: played
-- Keeps a list of its calls: every call finds it empty.
local game = { name = "hostile", seats = 1, max_turns = 2 }
local calls = {}
local function count()
  calls[#calls + 1] = true
  if #calls > 1 then error("something was kept") end
end
function game.init(rng, options)
  count()
  return { n = 0 }
end
function game.to_act(state)
  if state.n > 0 then return nil end
  return 1
end
function game.observe(state, seat)
  count()
  return "n is " .. tostring(state.n)
end
function game.actions(state, seat)
  return { "a", "b" }
end
function game.apply(state, seat, action)
  count()
  state.n = 1
  return state
end
function game.outcome(state)
  return { scores = { 1 }, success = { true } }
end
return game
