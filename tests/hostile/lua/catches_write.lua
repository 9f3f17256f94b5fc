-- expect: played
-- Writes to what it keeps and hides the error.
local game = { name = "hostile", seats = 1, max_turns = 2 }
local calls = { n = 0 }
local function count()
  pcall(function() calls.n += 1 end)
  if calls.n ~= 1 then error("something was kept, or not written") end
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
