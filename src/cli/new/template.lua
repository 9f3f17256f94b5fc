-- __NAME__: two players take 1 to 3 sticks in turn; who takes the last one wins.
-- Change the rules below, save, and a run that plays this game uses them in its next rollout.
-- Check it with `gift-host check games/__NAME__.lua`, play it with `gift-host play games/__NAME__.lua`.

local game = { name = "__NAME__", seats = 2, max_turns = 10 }

-- A new episode. Everything random comes from `rng`: the same seed must give the same episode.
-- `options` holds the settings `games.__NAME__.…`. The state is plain data: numbers, strings, booleans, tables.
function game.init(rng, options)
    return { sticks = rng:int(options.least or 8, options.most or 16), turn = rng:int(1, 2), winner = 0 }
end

-- The seat that acts next, or nil when the episode is over.
function game.to_act(state)
    if state.winner > 0 then return nil end
    return state.turn
end

-- The prompt that the seat sees on its turn.
function game.observe(state, seat)
    return gift.template([[
There are {sticks} sticks. Two players take 1, 2 or 3 of them in turn; who takes the last one wins.
It is your turn. Think inside <think>...</think>, then give the number inside <answer>...</answer>.]], state)
end

-- A short prompt for small models: all that is needed to act, nothing else.
function game.brief(state, seat)
    return "s" .. state.sticks
end

-- The legal answers, sorted; nil would mean free text.
function game.actions(state, seat)
    local list = {}
    for count = 1, math.min(3, state.sticks) do
        list[count] = tostring(count)
    end
    return list
end

-- The state after an answer. Refuse what the rules do not allow, and say why.
function game.apply(state, seat, action)
    local count = tonumber(action)
    if not count or count % 1 ~= 0 or count < 1 or count > 3 then
        gift.illegal("take 1, 2 or 3 sticks")
    end
    if count > state.sticks then
        gift.illegal("there are only " .. state.sticks .. " sticks")
    end
    state.sticks -= count
    if state.sticks == 0 then state.winner = seat end
    state.turn = 3 - seat
    return state
end

-- Called once, when the episode is over: a score and a success for each seat.
function game.outcome(state)
    local first = state.winner == 1
    return { scores = { first and 1 or 0, first and 0 or 1 }, success = { first, not first } }
end

-- A scripted player, for any seat: leaves a multiple of four where it can.
function game.bot(state, seat, rng)
    local best = state.sticks % 4
    if best == 0 then return rng:pick(game.actions(state, seat)) end
    return tostring(best)
end

return game
