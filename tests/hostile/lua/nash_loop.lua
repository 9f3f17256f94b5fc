-- expect: script::timeout in init
-- Solves the largest matrix games for ever.
local game = { name = "hostile", seats = 1, max_turns = 2 }
function game.init(rng, options)
  local a, b = {}, {}
  for i = 1, 8 do
    a[i], b[i] = {}, {}
    for j = 1, 8 do a[i][j], b[i][j] = (i * j * 7919) % 101, (i * 31 + j * 17) % 97 end
  end
  while true do gift.nash(a, b) end
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
