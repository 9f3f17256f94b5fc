-- Tic-tac-toe for two seats: seat 1 plays X, seat 2 plays O.
--
-- After GIFT (arXiv:2601.05633): no or one random opening round (one random move of each side), a random side to
-- start, one of four wordings of the rules, and the win condition spelt out in half of the episodes. A win scores 1, a
-- draw 0.5, a loss 0; only a win is a success.
--
-- Options: opening = 0 lets every episode begin on an empty board.
--
-- tests/games/tictactoe.rhai is the same game in Rhai and must give the same episodes for the same seed: it asks the
-- rng the same questions in the same order. Change both together.

-- A side that starts on an empty board places five marks; nobody ever places more.
---@type gift.Game
local game = { name = "tictactoe", seats = 2, max_turns = 5 }

local MARKS = { "X", "O" }

local LABELS = { "1", "2", "3", "4", "5", "6", "7", "8", "9" }

-- A cell is a bit of a number: cell 1 is 1, cell 2 is 2, cell 3 is 4, up to 256. The cells of a seat are the sum of theirs, and
-- what follows from such a sum is looked up.
local BITS = { 1, 2, 4, 8, 16, 32, 64, 128, 256 }
local ALL = 511

-- The cell of each label, and the label of each bit.
local CELL_OF, LABEL_OF = {}, {}
for cell, label in LABELS do
  CELL_OF[label] = cell
  LABEL_OF[BITS[cell]] = label
end

-- The three rows, the three columns, the two diagonals.
local LINES = { 7, 56, 448, 73, 146, 292, 273, 84 }

local CORNERS = { 1, 4, 64, 256 }
local SIDES = { 2, 8, 32, 128 }

-- The labels of these cells: the legal answers where these are free. A list that never changes is read by the host once.
local ANSWERS = {}
-- Whether these cells have a line among them.
local HAS_LINE = {}
for cells = 0, ALL do
  local answers = {}
  for cell, bit in BITS do
    if bit32.btest(cells, bit) then table.insert(answers, LABELS[cell]) end
  end
  ANSWERS[cells] = answers
  HAS_LINE[cells] = false
  for _, line in LINES do
    if bit32.band(cells, line) == line then HAS_LINE[cells] = true end
  end
end

local RULES = {
  "You are playing tic-tac-toe against one opponent on a 3x3 board. The cells carry the numbers 1 to 9, from the top "
    .. "left to the bottom right. The players take turns; a turn puts one mark into a free cell. Your mark is {mark}, "
    .. "your opponent's is {other}.",
  "This is noughts and crosses. Look at a grid of nine cells, numbered row by row: 1, 2, 3 at the top, 4, 5, 6 in the "
    .. "middle, 7, 8, 9 at the bottom. One after the other, the two sides write their sign into an empty cell, and a "
    .. "sign stays where it was written. You write {mark}; the other side writes {other}.",
  "Two players share a square of three by three cells. When it is your turn you claim one unclaimed cell with {mark}; "
    .. "your rival claims cells with {other}. A cell goes by its number, counted from left to right and from top to "
    .. "bottom, 1 to 9.",
  "Game: tic-tac-toe, 3 rows by 3 columns\nYou: {mark}\nOpponent: {other}\n"
    .. "Move: mark one empty cell, named by its number\nNumbers: 1 to 9, left to right, then top to bottom",
}

local WIN_CONDITION = "Whoever first has three marks of their own in one row, column or diagonal wins. If the board "
  .. "fills up before that, the game is a draw."

local OPENING = "Each side has begun with one random move."

local QUESTION = "Which free cell do you mark? Answer with its number, in the form "
  .. "<think>...</think><answer>...</answer>"

-- What a seat reads on its first turn, by wording, seat, win condition (or not) and opening rounds. Prompts are made on
-- every turn of every episode, so what never changes is put together once.
local INTRODUCTIONS = {}
for wording, rules in RULES do
  INTRODUCTIONS[wording] = {}
  for seat, mark in MARKS do
    local text = gift.template(rules, { mark = mark, other = MARKS[3 - seat] }) .. "\n\n"
    local opening = OPENING .. "\n\n"
    INTRODUCTIONS[wording][seat] = {
      [false] = { [0] = text, text .. opening },
      [true] = { [0] = text .. WIN_CONDITION .. "\n\n", text .. WIN_CONDITION .. "\n\n" .. opening },
    }
  end
end

-- The rows of the board as `gift.grid` draws it, by the marks in them: 1 for each bit of X, 8 for each of O, and 1, as lists
-- begin there. Three pieces make a board, where its cells would be 25.
local TOP, MIDDLE, BOTTOM = {}, {}, {}
for row, drawings in { TOP, MIDDLE, BOTTOM } do
  for o = 0, 7 do
    for x = 0, 7 do
      local cells = {}
      for column = 1, 3 do
        local bit = BITS[column]
        cells[column] = if bit32.btest(x, bit) then "X"
          elseif bit32.btest(o, bit) then "O"
          else LABELS[3 * row - 3 + column]
      end
      drawings[1 + x + 8 * o] = " " .. table.concat(cells, " | ")
        .. if row < 3 then "\n---+---+---\n" else "\n\n" .. QUESTION
    end
  end
end

-- What stands before the board, by the cell marked last (0: none).
local LATEST = { [0] = "The board is empty and you move first:\n\n" }
for cell, label in LABELS do
  LATEST[cell] = "Your opponent's latest move was cell " .. label .. ". The board is now:\n\n"
end

-- The cells that nobody has marked.
local function free_cells(state)
  return ALL - state.cells[1] - state.cells[2]
end

-- The first cell that completes a line of a seat that has the cells `own`, or nil. Lines are tried in the order of LINES.
local function completing_cell(own, free)
  for _, line in LINES do
    local rest = line - bit32.band(line, own)
    if LABEL_OF[rest] and bit32.btest(rest, free) then return LABEL_OF[rest] end
  end
  return nil
end

local function place(state, seat, cell)
  state.cells[seat] += BITS[cell]
  state.last = cell
  state.turn = 3 - seat
end

function game.init(rng, options)
  local state = {
    cells = { 0, 0 }, -- of X and of O
    turn = 0, -- the seat to move; 0 once the game is over
    last = 0, -- the cell marked last, 1 to 9; 0 on an empty board
    winner = 0, -- the seat with a line; 0 while there is none
    opening = rng:int(0, if options.opening == 0 then 0 else 1), -- random rounds played before the first turn
    rules = 0, -- which of the four wordings
    win_text = false, -- whether the prompt states the win condition
  }
  state.turn = rng:int(1, 2)
  for _ = 1, 2 * state.opening do
    place(state, state.turn, CELL_OF[rng:pick(ANSWERS[free_cells(state)])])
  end
  state.rules = rng:int(1, #RULES)
  state.win_text = rng:int(0, 1) == 1
  return state
end

function game.to_act(state)
  if state.turn == 0 then return nil end
  return state.turn
end

function game.observe(state, seat)
  local x, o = state.cells[1], state.cells[2]
  local introduction = ""
  if 9 - #ANSWERS[ALL - x - o] <= 2 * state.opening + 1 then -- random marks, and the opponent's first at most: the seat's first turn
    introduction = INTRODUCTIONS[state.rules][seat][state.win_text][state.opening]
  end
  return introduction .. LATEST[state.last]
    .. TOP[1 + bit32.extract(x, 0, 3) + 8 * bit32.extract(o, 0, 3)]
    .. MIDDLE[1 + bit32.extract(x, 3, 3) + 8 * bit32.extract(o, 3, 3)]
    .. BOTTOM[1 + bit32.extract(x, 6, 3) + 8 * bit32.extract(o, 6, 3)]
end

function game.actions(state, seat)
  return ANSWERS[free_cells(state)]
end

-- For `decode.format = "script"`: a text with a single number, of a cell, means that cell.
function game.parse(state, seat, text)
  local found = nil
  for number in text:gmatch("%d+") do
    if found and found ~= number then return nil end
    found = number
  end
  return CELL_OF[found or ""] and found
end

-- "5", "[5]", "(5).", "Cell 5" and "cell: 5" all mean cell 5.
local function parse(action)
  local label = action:lower():gsub("[ \t\r\n%[%]().:#]", ""):gsub("^cell", "")
  return CELL_OF[label]
end

function game.apply(state, seat, action)
  local cell, cells = CELL_OF[action] or parse(action), state.cells
  if not cell then gift.illegal("the answer has to be the number of a free cell, 1 to 9, and nothing else") end
  if bit32.btest(cells[1] + cells[2], BITS[cell]) then
    gift.illegal("cell " .. cell .. " is taken; free cells are " .. table.concat(ANSWERS[free_cells(state)], ", "))
  end
  place(state, seat, cell)
  if HAS_LINE[cells[seat]] then
    state.winner = seat
    state.turn = 0
  elseif cells[1] + cells[2] == ALL then
    state.turn = 0
  end
  return state
end

-- By the winner.
local OUTCOMES = {
  [0] = { scores = { 0.5, 0.5 }, success = { false, false } },
  { scores = { 1, 0 }, success = { true, false } },
  { scores = { 0, 1 }, success = { false, true } },
}

function game.outcome(state)
  return OUTCOMES[state.winner]
end

-- Nine bytes after the tag, one a cell: the seat's own marks are `A` to `I`, the opponent's `a` to `i`, so one policy serves
-- both seats, and a free cell shows its number, which is the answer that takes it. Every byte tells its cell, so a small
-- model need not learn to count positions first.
function game.brief(state, seat)
  local own, theirs = state.cells[seat], state.cells[3 - seat]
  local text = "t"
  for cell, bit in BITS do
    text ..= if bit32.btest(own, bit) then ("ABCDEFGHI"):sub(cell, cell)
      elseif bit32.btest(theirs, bit) then ("abcdefghi"):sub(cell, cell)
      else LABELS[cell]
  end
  return text
end

-- Wins if it can, else blocks, else takes the centre, a corner, a side. It misses forks, so it can be beaten.
function game.bot(state, seat, rng)
  local free = free_cells(state)
  local answer = completing_cell(state.cells[seat], free) or completing_cell(state.cells[3 - seat], free)
  if answer then return answer end
  if bit32.btest(free, BITS[5]) then return "5" end
  for _, group in { CORNERS, SIDES } do
    local answers = {}
    for _, bit in group do
      if bit32.btest(free, bit) then table.insert(answers, LABEL_OF[bit]) end
    end
    if #answers > 0 then return rng:pick(answers) end
  end
  error("the board is full")
end

-- Cells and turn: wording, opening and the latest move change what a seat reads, not how the game goes on.
function game.key(state)
  return state.turn .. ":" .. table.concat(state.cells, ",")
end

-- Lines still open to the seat against lines still open to the opponent, on the scale of the scores: 0.5 is even.
function game.score(state, seat)
  if state.winner ~= 0 then return if state.winner == seat then 1 else 0 end
  local balance = 0
  for _, line in LINES do
    local own = #ANSWERS[bit32.band(line, state.cells[seat])]
    local theirs = #ANSWERS[bit32.band(line, state.cells[3 - seat])]
    if theirs == 0 then balance += own end
    if own == 0 then balance -= theirs end
  end
  -- At most eight lines with two marks each.
  return 0.5 + balance / 32
end

return game
