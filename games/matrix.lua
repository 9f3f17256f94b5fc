-- Matrix games: one simultaneous choice in one of nine two-player games, described in one of twelve ways.
--
-- After GIFT (arXiv:2601.05633): the payoffs of the first seven games change sign in half of the episodes (never so
-- that no equilibrium is found), 0, 100 or -100 is added to all of them, and the learner is P1 (rows) or P2 (columns)
-- at random. The other side never acts, so it is no seat; the role stands in the state.
--
-- Success: the action has positive probability in some Nash equilibrium. With the setting `games.matrix.success =
-- "paper"` it has to be the most probable action of the equilibrium listed last, as in the paper's public code.

---@type gift.Game
local game = { name = "matrix", seats = 1, max_turns = 1, illegal = "end" }

-- A: payoffs of P1, who picks the row. B: payoffs of P2, who picks the column.
local GAMES = {
  { name = "prisoner's dilemma", A = { { 3, 0 }, { 5, 1 } }, B = { { 3, 5 }, { 0, 1 } } },
  { name = "battle of the sexes", A = { { 2, 0 }, { 0, 1 } }, B = { { 1, 0 }, { 0, 2 } } },
  { name = "chicken", A = { { -10, 1 }, { -1, 0 } }, B = { { -10, -1 }, { 1, 0 } } },
  { name = "stag hunt", A = { { 3, 0 }, { 1, 1 } }, B = { { 3, 1 }, { 0, 1 } } },
  {
    name = "radio station",
    A = { { 25, 50, 50 }, { 30, 15, 30 }, { 20, 20, 10 } },
    B = { { 25, 30, 20 }, { 50, 15, 20 }, { 50, 30, 10 } },
  },
  {
    name = "iterated elimination",
    A = { { 13, 1, 7 }, { 4, 3, 6 }, { -1, 2, 8 } },
    B = { { 3, 4, 3 }, { 1, 3, 2 }, { 2, 3, -1 } },
  },
  {
    name = "duopoly",
    A = {
      { 0, 0, 0, 0, 0, 0 },
      { 9, 7, 5, 3, 1, -1 },
      { 14, 10, 6, 2, -2, -2 },
      { 15, 9, 3, -3, -3, -3 },
      { 12, 4, -4, -4, -4, -4 },
      { 5, -5, -5, -5, -5, -5 },
    },
    B = {
      { 0, 9, 14, 15, 12, 5 },
      { 0, 7, 10, 9, 4, -5 },
      { 0, 5, 6, 3, -4, -5 },
      { 0, 3, 2, -3, -4, -5 },
      { 0, 1, -2, -3, -4, -5 },
      { 0, -1, -2, -3, -4, -5 },
    },
  },
  {
    name = "game",
    A = { { 1, -1, 5, 1 }, { 2, 1, 3, 5 }, { 1, 0, 1, 0 } },
    B = { { 1, 2, 0, 1 }, { 3, 2, 0, 1 }, { 1, 5, 7, 1 } },
  },
  { name = "weakly dominated", A = { { 5, 4 }, { 6, 3 }, { 6, 4 } }, B = { { 1, 0 }, { 0, 1 }, { 4, 1 } } },
}

local SIGN_CHANGE_COUNT = 7
local OFFSETS = { 0, 100, -100 }
local TOLERANCE = 1e-6 -- below this a probability is rounding, not support
local DIGITS = { "1", "2", "3", "4", "5", "6" }
local LETTERS = { "A", "B", "C", "D", "E", "F" }

-- Adding the offset last turns -0, which a sign change makes of 0 and which would print as "-0", back into 0.
local function transformed(matrix, sign, offset)
  local rows = {}
  for r, row in ipairs(matrix) do
    rows[r] = {}
    for c, payoff in ipairs(row) do
      rows[r][c] = sign * payoff + offset
    end
  end
  return rows
end

local function transposed(matrix)
  local rows = {}
  for c = 1, #matrix[1] do
    rows[c] = {}
    for r = 1, #matrix do
      rows[c][r] = matrix[r][c]
    end
  end
  return rows
end

-- The numbers of the actions that count as a success for the role.
local function correct_actions(equilibria, role, rule)
  local list = {}
  if rule == "paper" then
    local last = equilibria[#equilibria]
    local strategy = role == 1 and last.x or last.y
    local best = 1
    for action, probability in ipairs(strategy) do
      if probability > strategy[best] + TOLERANCE then best = action end
    end
    list[1] = best
    return list
  end
  local first = role == 1 and equilibria[1].x or equilibria[1].y
  for action = 1, #first do
    for _, equilibrium in ipairs(equilibria) do
      local strategy = role == 1 and equilibrium.x or equilibrium.y
      if strategy[action] > TOLERANCE then
        list[#list + 1] = action
        break
      end
    end
  end
  return list
end

-- A monospace table with a head and a first column of labels; the columns of payoffs share one width.
local function drawing(row_labels, column_labels, cell)
  local label_width, width = 0, 0
  for r, row_label in ipairs(row_labels) do
    label_width = math.max(label_width, #row_label)
    for c, column_label in ipairs(column_labels) do
      width = math.max(width, #column_label, #cell(r, c))
    end
  end
  local function line(label, text_of)
    local cells = { label .. string.rep(" ", label_width - #label) }
    for c = 1, #column_labels do
      local text = text_of(c)
      cells[c + 1] = string.rep(" ", width - #text) .. text
    end
    return table.concat(cells, " | ")
  end
  local lines = { line("", function(c) return column_labels[c] end) }
  for r, row_label in ipairs(row_labels) do
    lines[r + 1] = line(row_label, function(c) return cell(r, c) end)
  end
  return table.concat(lines, "\n")
end

local function payoff_table(view, matrix)
  return drawing(view.rows, view.columns, function(r, c) return tostring(matrix[r][c]) end)
end

local function pair_table(view)
  return drawing(view.rows, view.columns, function(r, c) return "(" .. view.A[r][c] .. ", " .. view.B[r][c] .. ")" end)
end

-- One line for each cell, from a text with {row}, {column}, {a} and {b}.
local function each_cell(view, text)
  local lines = {}
  for r, row in ipairs(view.rows) do
    for c, column in ipairs(view.columns) do
      local values = { row = row, column = column, a = tostring(view.A[r][c]), b = tostring(view.B[r][c]) }
      lines[#lines + 1] = gift.template(text, values)
    end
  end
  return table.concat(lines, "\n")
end

local function array_text(matrix)
  local rows = {}
  for r, row in ipairs(matrix) do
    rows[r] = "[" .. table.concat(row, ", ") .. "]"
  end
  return "[" .. table.concat(rows, ", ") .. "]"
end

-- Each template: the labels of the actions, the names of the two sides, and the text. Every text may use {me} and
-- {other} (the sides' names), {own} (the learner's actions), {rows} and {columns} (everyone's), and what `blocks` gives.
local TEMPLATES = {
  { -- two tables
    labels = DIGITS,
    names = { "P1", "P2" },
    blocks = function(view) return { a = payoff_table(view, view.A), b = payoff_table(view, view.B) } end,
    text = "P1 and P2 play a game once. P1 chooses a row and P2 chooses a column, at the same moment and without talking.\n\n"
      .. "What P1 gets (rows: P1, columns: P2):\n{a}\n\nWhat P2 gets (rows: P1, columns: P2):\n{b}\n\n"
      .. "You are {me}. {other} reasons as well as you do. Choose the action that you would play in a Nash equilibrium.",
  },
  { -- one table of pairs
    labels = LETTERS,
    names = { "P1", "P2" },
    blocks = function(view) return { pairs = pair_table(view) } end,
    text = "Below is a bimatrix game. In each pair the first number goes to P1, who picks the row, and the second to P2, "
      .. "who picks the column. Both pick at once.\n\n{pairs}\n\n"
      .. "Your role is {me}. Which action is your part of a Nash equilibrium?",
  },
  { -- a sentence for each cell
    labels = DIGITS,
    names = { "P1", "P2" },
    blocks = function(view)
      return { cells = each_cell(view, "If P1 plays {row} and P2 plays {column}, P1 receives {a} and P2 receives {b}.") }
    end,
    text = "Two players, P1 and P2, decide independently of each other. P1 can play {rows}; P2 can play {columns}.\n\n"
      .. "{cells}\n\nYou play as {me}. Assume that both players want as much as possible for themselves and know that of "
      .. "each other. Find your equilibrium action.",
  },
  { -- arrays
    labels = DIGITS,
    names = { "P1", "P2" },
    blocks = function(view) return { a = array_text(view.A), b = array_text(view.B) } end,
    text = "A = {a}\nB = {b}\n\nA[i][j] is the payoff of P1 and B[i][j] the payoff of P2 when P1 selects i and P2 selects j, "
      .. "both counted from 1. The selections are simultaneous. You are {me}: select an action in the support of a Nash "
      .. "equilibrium.",
  },
  { -- dialogue
    labels = LETTERS,
    names = { "the first player", "the second player" },
    blocks = function(view)
      return { cells = each_cell(view, "Host: First {row}, second {column}? Then the first gets {a}, the second {b}.") }
    end,
    text = "Host: Welcome! One round, two players, sealed choices.\nGuest: What may we choose?\n"
      .. "Host: The first player has {rows}. The second player has {columns}.\nGuest: And the prizes?\n{cells}\n"
      .. "Guest: Who am I?\nHost: You are {me}; {other} thinks just as sharply as you. Each wants the largest prize.\n"
      .. "Guest: So I should choose what nobody would regret, given the other's choice.\nHost: Exactly. Your choice?",
  },
  { -- two named people
    labels = LETTERS,
    names = { "Mira", "Tomas" },
    blocks = function(view) return { pairs = pair_table(view) } end,
    text = "Mira and Tomas each write one letter on a card and turn the cards over together. Mira's letter gives the row, "
      .. "Tomas's letter gives the column, and the entry shows the points of Mira, then those of Tomas:\n\n{pairs}\n\n"
      .. "You advise {me}, who expects {other} to be well advised too. Which letter should {me} write, so that neither "
      .. "could gain by changing the own card alone?",
  },
  { -- two companies
    labels = DIGITS,
    names = { "Alder Ltd", "Birch Ltd" },
    blocks = function(view) return { a = payoff_table(view, view.A), b = payoff_table(view, view.B) } end,
    text = "Two rival companies, Alder Ltd and Birch Ltd, fix their plans for the year on the same day. Alder has the plans "
      .. "{rows}, Birch the plans {columns}.\n\nProfit of Alder (a row for each plan of Alder, a column for each of Birch):\n"
      .. "{a}\n\nProfit of Birch (same layout):\n{b}\n\nYou run {me} and {other} is run by someone just as careful. Name "
      .. "the plan that belongs to a Nash equilibrium of this market.",
  },
  { -- two animals
    labels = LETTERS,
    names = { "heron", "otter" },
    blocks = function(view)
      return { cells = each_cell(view, "- heron at {row}, otter at {column}: heron {a}, otter {b}") }
    end,
    text = "A heron and an otter hunt along one river. At dawn the heron goes to one of its spots ({rows}) and the otter to "
      .. "one of its own ({columns}). The day's gain depends on both:\n\n{cells}\n\nYou are the {me}. Evolution has made "
      .. "both animals perfect at looking after themselves. Which spot do you take in a Nash equilibrium?",
  },
  { -- question and answer
    labels = DIGITS,
    names = { "P1", "P2" },
    blocks = function(view) return { pairs = pair_table(view) } end,
    text = "Q: Who plays?\nA: P1 (actions {rows}) and P2 (actions {columns}).\nQ: Do they move in turn?\nA: No, at the same "
      .. "time, once.\nQ: What are the payoffs?\nA: P1's action gives the row, P2's the column; read (P1, P2):\n{pairs}\n"
      .. "Q: What is the aim?\nA: A best response to a best response, that is, a Nash equilibrium.\n"
      .. "Q: You are {me}. What do you play?",
  },
  { -- numbered steps
    labels = DIGITS,
    names = { "P1", "P2" },
    blocks = function(view) return { a = array_text(view.A), b = array_text(view.B) } end,
    text = "1. The players are P1 and P2. You are {me}.\n2. P1 secretly chooses among {rows}, P2 among {columns}.\n"
      .. "3. Both choices are revealed together.\n4. P1 is paid by {a}: P1's choice selects the inner list, P2's choice the "
      .. "number in it, both counted from the left.\n5. P2 is paid by {b}: again P1's choice selects the inner list and "
      .. "P2's the number in it.\n6. Nobody can bargain, and both are fully rational.\n7. Decide on an action that is "
      .. "played in a Nash equilibrium.",
  },
  { -- bare
    labels = LETTERS,
    names = { "row", "column" },
    blocks = function(view) return { pairs = pair_table(view) } end,
    text = "{pairs}\n\n(row payoff, column payoff). You: {me}. Nash equilibrium action?",
  },
  { -- complete information
    labels = LETTERS,
    names = { "P1", "P2" },
    blocks = function(view) return { a = payoff_table(view, view.A), b = payoff_table(view, view.B) } end,
    text = "This is a static game of complete information. The players are P1 and P2; their strategy sets are {rows} and "
      .. "{columns}; the payoff functions u1 and u2 below, the rationality of both players, and this description itself "
      .. "are common knowledge.\n\nu1 (strategies of P1 down, of P2 across):\n{a}\n\nu2 (strategies of P1 down, of P2 "
      .. "across):\n{b}\n\nYou hold the position of {me}, facing {other}. State a pure strategy that lies in the support "
      .. "of your Nash equilibrium strategy.",
  },
}

-- The labels of the role's actions.
local function labels_of(state, role)
  local count = role == 1 and #state.A or #state.A[1]
  return table.move(TEMPLATES[state.template].labels, 1, count, 1, {})
end

function game.init(rng, options)
  local rule = options.success or "any"
  if rule ~= "any" and rule ~= "paper" then
    error('games.matrix.success has to be "any" or "paper", not ' .. tostring(rule))
  end
  local id = rng:int(1, #GAMES)
  local sign = 1
  if id <= SIGN_CHANGE_COUNT and rng:int(0, 1) == 1 then sign = -1 end
  local A, B = GAMES[id].A, GAMES[id].B
  -- The offset moves no equilibrium, so it is added after they are found.
  local equilibria = gift.nash(transformed(A, sign, 0), transformed(B, sign, 0))
  if #equilibria == 0 then
    sign = 1
    equilibria = gift.nash(A, B)
  end
  local offset = rng:pick(OFFSETS)
  local role = rng:int(1, 2)
  return {
    id = id,
    A = transformed(A, sign, offset),
    B = transformed(B, sign, offset),
    role = role,
    template = rng:int(1, #TEMPLATES),
    correct = correct_actions(equilibria, role, rule),
    choice = 0, -- the number of the action taken; 0 until then
  }
end

function game.to_act(state)
  if state.choice ~= 0 then return nil end
  return 1
end

function game.observe(state, seat)
  ---@type { text: string, names: string[], blocks: fun(view: table): table<string, string> }
  local template = TEMPLATES[state.template]
  local view = { A = state.A, B = state.B, rows = labels_of(state, 1), columns = labels_of(state, 2) }
  local own = state.role == 1 and view.rows or view.columns
  local values = template.blocks(view)
  values.me = template.names[state.role]
  values.other = template.names[3 - state.role]
  values.rows = table.concat(view.rows, ", ")
  values.columns = table.concat(view.columns, ", ")
  return gift.template(template.text, values)
    .. "\n\nAnswer with one of "
    .. table.concat(own, ", ")
    .. " and nothing else, in the form <think>...</think><answer>...</answer>"
end

function game.actions(state, seat)
  return labels_of(state, state.role)
end

-- For `decode.format = "script"`: a short text that names one of the own actions, and no other, means that one.
function game.parse(state, seat, text)
  local found = nil
  for word in text:upper():gmatch("%w+") do
    if table.find(labels_of(state, state.role), word) then
      if found and found ~= word then return nil end
      found = word
    end
  end
  return found
end

-- "b", "[B]" and "Action B." mean B. A template with digits takes no letters and the other way round: in a text that
-- numbers its actions, a letter is a sign of not having read it.
function game.apply(state, seat, action)
  local text = action:upper():gsub("[ \t\r\n%[%]().:\"']", ""):gsub("^ACTION", "")
  local own = labels_of(state, state.role)
  for number, label in ipairs(own) do
    if text == label then
      state.choice = number
      return state
    end
  end
  return gift.illegal("the answer has to be one of " .. table.concat(own, ", ") .. " and nothing else")
end

function game.outcome(state)
  for _, action in ipairs(state.correct) do
    if action == state.choice then return { scores = { 1 }, success = { true } } end
  end
  return { scores = { 0 }, success = { false } }
end

-- One byte for a payoff, as its distance from the lowest payoff of the same side: 0-9, a-z, A-Z. That removes the
-- offset, which changes nothing, and makes rows comparable byte by byte.
local CODES = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

local function coded_rows(matrix)
  local lowest = math.huge
  for _, row in ipairs(matrix) do
    lowest = math.min(lowest, table.unpack(row))
  end
  local rows = {}
  for r, row in ipairs(matrix) do
    local codes = {}
    for c, payoff in ipairs(row) do
      local code = math.min(math.floor(payoff - lowest), #CODES - 1) + 1
      codes[c] = CODES:sub(code, code)
    end
    rows[r] = table.concat(codes)
  end
  return rows
end

-- A tag, a letter for the game, then own payoffs, a row for each own action after its label, then the other side's
-- payoffs in the same rows: the learner always sees itself as the row player. The prisoner's dilemma is
-- "ma1=30 2=51|35 01". The labels to copy stand in the text, because half of the templates use letters. All games but
-- the duopoly (97 bytes, for 72 payoffs) stay under 40 bytes.
function game.brief(state, seat)
  local own = coded_rows(state.role == 1 and state.A or transposed(state.B))
  local theirs = coded_rows(state.role == 1 and state.B or transposed(state.A))
  for number, label in ipairs(labels_of(state, state.role)) do
    own[number] = label .. "=" .. own[number]
  end
  return "m" .. string.char(96 + state.id) .. table.concat(own, " ") .. "|" .. table.concat(theirs, " ")
end

-- Plays an equilibrium action.
function game.bot(state, seat, rng)
  return labels_of(state, state.role)[rng:pick(state.correct)]
end

return game
