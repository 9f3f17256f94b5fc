-- Kuhn poker (Kuhn 1950): three cards, one each; both put in 1, and one bet of 1 may be made. The value of the game for
-- seat 1 is -1/18.
local game = { name = "kuhn", seats = 2, max_turns = 2 }

local RANK = { J = 1, Q = 2, K = 3 }

function game.init(rng, options)
  local deck = if options.deal then string.split(options.deal, "") else rng:shuffle({ "J", "Q", "K" })
  return { cards = { deck[1], deck[2] }, past = "" }
end

function game.to_act(state)
  local past = state.past
  if past == "" or past == "cb" then return 1 end
  if past == "c" or past == "b" then return 2 end
  return nil
end

function game.observe(state, seat)
  return gift.template("Your card is {card}. So far: {past}. Bet, check, call or fold?", {
    card = state.cards[seat],
    past = state.past,
  })
end

function game.actions(state, seat)
  if state.past == "b" or state.past == "cb" then return { "call", "fold" } end
  return { "bet", "check" }
end

function game.apply(state, seat, action)
  if not table.find(game.actions(state, seat), action) then gift.illegal("that cannot be done now") end
  local letter = if action == "call" then "k" else string.sub(action, 1, 1)
  state.past ..= letter
  return state
end

function game.outcome(state)
  local past = state.past
  local won = if RANK[state.cards[1]] > RANK[state.cards[2]] then 1 else -1
  local amount = won
  if past == "bf" then amount = 1 end
  if past == "cbf" then amount = -1 end
  if past == "bk" or past == "cbk" then amount = 2 * won end
  return { scores = { amount, -amount }, success = { amount > 0, amount < 0 } }
end

function game.hide(state, seat, rng)
  local rest = {}
  for _, card in { "J", "Q", "K" } do
    if card ~= state.cards[seat] then rest[#rest + 1] = card end
  end
  state.cards[3 - seat] = rng:pick(rest)
  return state
end

return game
