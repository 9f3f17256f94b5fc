local game = { name = "echo", seats = 1, max_turns = 1 }
function game.init(rng, options) return { digit = rng:int(1, 4), done = false, right = false } end
function game.to_act(state) if state.done then return nil end return 1 end
function game.observe(state, seat) return "Name this digit: " .. state.digit end
function game.brief(state, seat) return "e" .. state.digit end
function game.actions(state, seat) return { "1", "2", "3", "4" } end
function game.apply(state, seat, action)
  if not table.find({ "1", "2", "3", "4" }, action) then gift.illegal("answer with a digit from 1 to 4") end
  state.done, state.right = true, action == tostring(state.digit)
  return state
end
function game.outcome(state) return { scores = { state.right and 1 or 0 }, success = { state.right } } end
function game.bot(state, seat, rng) return tostring(state.digit) end
return game
