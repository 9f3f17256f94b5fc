-- expect: script::runtime in init
-- Fills a template with far more text than the machine holds.
local game = { name = "hostile", seats = 1, max_turns = 2 }
function game.init(rng, options)
  gift.template(string.rep("{a}", 300000), { a = string.rep("x", 1000000) })
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
