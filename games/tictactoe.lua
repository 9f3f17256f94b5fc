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

-- The cell of each label.
local CELLS = {}
for cell, label in LABELS do CELLS[label] = cell end

local LINES = {
  { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 },
  { 1, 4, 7 }, { 2, 5, 8 }, { 3, 6, 9 },
  { 1, 5, 9 }, { 3, 5, 7 },
}

-- The other two cells of each line through a cell.
local OTHERS = {}
for cell = 1, 9 do
  OTHERS[cell] = {}
  for _, line in LINES do
    local at = table.find(line, cell)
    if at then table.insert(OTHERS[cell], { line[at % 3 + 1], line[(at + 1) % 3 + 1] }) end
  end
end

local CORNERS = { 1, 3, 7, 9 }
local SIDES = { 2, 4, 6, 8 }

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

-- The rows of the board as `gift.grid(board, 3)` draws them, by their marks as digits to the base of 3: 81 drawings, of which
-- three make a board, where its cells would be 25 pieces.
local TOP, MIDDLE, BOTTOM = {}, {}, {}
for row, drawings in { TOP, MIDDLE, BOTTOM } do
  for number = 0, 26 do
    local cells = {}
    for column = 1, 3 do
      local digit = number // 3 ^ (3 - column) % 3
      cells[column] = if digit == 0 then LABELS[3 * row - 3 + column] else MARKS[digit]
    end
    drawings[number] = " " .. table.concat(cells, " | ") .. if row < 3 then "\n---+---+---\n" else "\n\n" .. QUESTION
  end
end

-- The number of a row with these marks.
local function row(a, b, c)
  return (if a == "" then 0 elseif a == "X" then 9 else 18)
    + (if b == "" then 0 elseif b == "X" then 3 else 6)
    + (if c == "" then 0 elseif c == "X" then 1 else 2)
end

-- The answers that take free cells, by which cells are free, a bit each. A list that never changes is read by the host once.
local ANSWERS = {}
for free = 0, 511 do
  local list = {}
  for cell = 1, 9 do
    if bit32.btest(free, 2 ^ (cell - 1)) then list[#list + 1] = LABELS[cell] end
  end
  ANSWERS[free] = list
end

-- Written out: a loop would take twice as long.
local function free_answers(board)
  return ANSWERS[(if board[1] == "" then 1 else 0) + (if board[2] == "" then 2 else 0) + (if board[3] == "" then 4 else 0)
    + (if board[4] == "" then 8 else 0) + (if board[5] == "" then 16 else 0) + (if board[6] == "" then 32 else 0)
    + (if board[7] == "" then 64 else 0) + (if board[8] == "" then 128 else 0) + (if board[9] == "" then 256 else 0)]
end

-- What stands before the board, by the cell marked last (0: none).
local LATEST = { [0] = "The board is empty and you move first:\n\n" }
for cell, label in LABELS do
  LATEST[cell] = "Your opponent's latest move was cell " .. label .. ". The board is now:\n\n"
end

local function free_cells(board)
  local cells, count = table.create(9), 0
  for cell = 1, 9 do
    if board[cell] == "" then
      count += 1
      cells[count] = cell
    end
  end
  return cells
end

-- The first cell that completes a line of `mark`, or nil. Lines are tried in the order of LINES.
local function completing_cell(board, mark)
  for _, line in ipairs(LINES) do
    local count, gap = 0, nil
    for _, cell in ipairs(line) do
      if board[cell] == mark then
        count = count + 1
      elseif board[cell] == "" then
        gap = cell
      end
    end
    if count == 2 and gap then return gap end
  end
  return nil
end

-- Whether a line of `mark` goes through the cell, which has it.
local function has_line(board, mark, cell)
  for _, others in OTHERS[cell] do
    if board[others[1]] == mark and board[others[2]] == mark then return true end
  end
  return false
end

local function is_full(board)
  for cell = 1, 9 do
    if board[cell] == "" then return false end
  end
  return true
end

local function place(state, seat, cell)
  state.board[cell] = MARKS[seat]
  state.last = cell
  state.turn = 3 - seat
end

function game.init(rng, options)
  local state = {
    board = { "", "", "", "", "", "", "", "", "" },
    turn = 0, -- the seat to move; 0 once the game is over
    last = 0, -- the cell marked last; 0 on an empty board
    winner = 0, -- the seat with a line; 0 while there is none
    opening = rng:int(0, if options.opening == 0 then 0 else 1), -- random rounds played before the first turn
    rules = 0, -- which of the four wordings
    win_text = false, -- whether the prompt states the win condition
  }
  state.turn = rng:int(1, 2)
  for _ = 1, 2 * state.opening do
    place(state, state.turn, rng:pick(free_cells(state.board)))
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
  local board, introduction = state.board, ""
  if 9 - #free_answers(board) <= 2 * state.opening + 1 then -- random marks, and the opponent's first at most: the seat's first turn
    introduction = INTRODUCTIONS[state.rules][seat][state.win_text][state.opening]
  end
  return introduction .. LATEST[state.last]
    .. TOP[row(board[1], board[2], board[3])]
    .. MIDDLE[row(board[4], board[5], board[6])]
    .. BOTTOM[row(board[7], board[8], board[9])]
end

function game.actions(state, seat)
  return free_answers(state.board)
end

-- For `decode.format = "script"`: a text with a single number, of a cell, means that cell.
function game.parse(state, seat, text)
  local found = nil
  for number in text:gmatch("%d+") do
    if found and found ~= number then return nil end
    found = number
  end
  return CELLS[found or ""] and found
end

-- "5", "[5]", "(5).", "Cell 5" and "cell: 5" all mean cell 5.
local function parse(action)
  local text = action:lower():gsub("[ \t\r\n%[%]().:#]", ""):gsub("^cell", "")
  return tonumber(text:match("^[1-9]$"))
end

function game.apply(state, seat, action)
  local cell = CELLS[action] or parse(action)
  if not cell then gift.illegal("the answer has to be the number of a free cell, 1 to 9, and nothing else") end
  if state.board[cell] ~= "" then
    gift.illegal("cell " .. cell .. " is taken; free cells are " .. table.concat(free_cells(state.board), ", "))
  end
  place(state, seat, cell)
  if has_line(state.board, MARKS[seat], cell) then
    state.winner = seat
    state.turn = 0
  elseif is_full(state.board) then
    state.turn = 0
  end
  return state
end

function game.outcome(state)
  if state.winner == 0 then return { scores = { 0.5, 0.5 }, success = { false, false } } end
  local first_won = state.winner == 1
  return { scores = { first_won and 1 or 0, first_won and 0 or 1 }, success = { first_won, not first_won } }
end

-- Nine bytes after the tag, one a cell: the seat's own marks are `A` to `I`, the opponent's `a` to `i`, so one policy serves
-- both seats, and a free cell shows its number, which is the answer that takes it. Every byte tells its cell, so a small
-- model need not learn to count positions first.
function game.brief(state, seat)
  local cells = {}
  for cell = 1, 9 do
    local mark = state.board[cell]
    cells[cell] = mark == "" and tostring(cell) or ("ABCDEFGHI"):sub(cell, cell)
    if mark == MARKS[3 - seat] then cells[cell] = cells[cell]:lower() end
  end
  return "t" .. table.concat(cells)
end

-- Wins if it can, else blocks, else takes the centre, a corner, a side. It misses forks, so it can be beaten.
function game.bot(state, seat, rng)
  local board = state.board
  local cell = completing_cell(board, MARKS[seat]) or completing_cell(board, MARKS[3 - seat])
  if cell then return tostring(cell) end
  if board[5] == "" then return "5" end
  for _, group in ipairs({ CORNERS, SIDES }) do
    local free = {}
    for _, candidate in ipairs(group) do
      if board[candidate] == "" then free[#free + 1] = candidate end
    end
    if #free > 0 then return tostring(rng:pick(free)) end
  end
  error("the board is full")
end

-- Cells and turn: wording, opening and the latest move change what a seat reads, not how the game goes on.
function game.key(state)
  return state.turn .. ":" .. table.concat(state.board, ",")
end

-- Lines still open to the seat against lines still open to the opponent, on the scale of the scores: 0.5 is even.
function game.score(state, seat)
  if state.winner ~= 0 then return state.winner == seat and 1 or 0 end
  local balance = 0
  for _, line in ipairs(LINES) do
    local own, theirs = 0, 0
    for _, cell in ipairs(line) do
      if state.board[cell] == MARKS[seat] then
        own = own + 1
      elseif state.board[cell] ~= "" then
        theirs = theirs + 1
      end
    end
    if theirs == 0 then balance = balance + own end
    if own == 0 then balance = balance - theirs end
  end
  -- At most eight lines with two marks each.
  return 0.5 + balance / 32
end

return game
