-- Connect three: discs fall into columns; three of one's own in a row, column or diagonal win. `options.columns` and
-- `options.rows` are the size of the board.
local game = { name = "connect", seats = 2, max_turns = 20 }

local STEPS = { { 1, 0 }, { 0, 1 }, { 1, 1 }, { 1, -1 } }

function game.init(rng, options)
  local columns = {}
  for column = 1, options.columns or 4 do columns[column] = "" end
  return { columns = columns, rows = options.rows or 4, turn = 1, winner = 0 }
end

function game.to_act(state)
  if state.winner > 0 then return nil end
  for _, column in state.columns do
    if #column < state.rows then return state.turn end
  end
  return nil
end

function game.observe(state, seat)
  return "Columns from the bottom: " .. table.concat(state.columns, ",") .. ". You are " .. seat .. ". Which column?"
end

function game.actions(state, seat)
  local list = {}
  for column, discs in state.columns do
    if #discs < state.rows then list[#list + 1] = tostring(column) end
  end
  return list
end

local function wins(state, column, seat)
  local mark, row = tostring(seat), #state.columns[column]
  local function at(c, r)
    local discs = state.columns[c]
    return discs ~= nil and string.sub(discs, r, r) == mark
  end
  for _, step in STEPS do
    local count = 1
    for _, sign in { 1, -1 } do
      local c, r = column + sign * step[1], row + sign * step[2]
      while r > 0 and at(c, r) do
        count += 1
        c += sign * step[1]
        r += sign * step[2]
      end
    end
    if count >= 3 then return true end
  end
  return false
end

function game.apply(state, seat, action)
  if not table.find(game.actions(state, seat), action) then gift.illegal("the column is full or not there") end
  local column = tonumber(action)
  state.columns[column] ..= tostring(seat)
  if wins(state, column, seat) then state.winner = seat end
  state.turn = 3 - seat
  return state
end

function game.outcome(state)
  local score = if state.winner == 0 then 0.5 elseif state.winner == 1 then 1 else 0
  return { scores = { score, 1 - score }, success = { score == 1, score == 0 } }
end

return game
