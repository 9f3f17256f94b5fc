-- expect: script::timeout|script::memory in init
-- Sorts a large list again and again.
local game = { name = "hostile", seats = 1, max_turns = 2 }
function game.init(rng, options)
  local list = table.create(2000000, 0)
  while true do
    for i = 1, #list do list[i] = (i * 7919) % 1000003 end
    table.sort(list)
  end
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
