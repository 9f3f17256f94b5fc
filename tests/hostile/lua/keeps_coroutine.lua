-- expect: played
-- Keeps a coroutine: every call starts it anew.
local game = { name = "hostile", seats = 1, max_turns = 2 }
local step = coroutine.wrap(function()
  for i = 1, 100 do coroutine.yield(i) end
end)
local function count()
  if step() > 1 then error("something was kept") end
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
