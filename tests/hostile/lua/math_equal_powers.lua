-- expect: script::timeout|played|script::runtime in init
-- A tower of powers.
local game = { name = "hostile", seats = 1, max_turns = 2 }
function game.init(rng, options)
  for _ = 1, 1000 do gift.math_equal("9^9^9^9^9", "2^(3^(4^(5^6)))") end
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
