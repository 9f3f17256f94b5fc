-- Math: one seat, one turn, a problem with one answer. The formal task of nested training.
--
-- Problems are generated (the families are in scripts/lib/problems_*.lua) or read from a dataset.
--
-- Options (`games.math.<key>`):
--   level     1, 2 or 3; without it any level. With a dataset: the value wanted in its column `level`.
--   families  a family name or a list of them to draw from; without it all.
--   choices   n of at least 2: the answer is chosen from n candidates, for models that have no language.
--   data      path of a dataset with columns `question` or `problem`, and `answer` or `solution`. The reference may be
--             plain, the last \boxed{...} of a solution, or follow "####".

---@type gift.Game
local game = { name = "math", seats = 1, max_turns = 1, illegal = "end" }

local MAX_LEVEL = 3
local MAX_ANSWER_BYTES = 400
local DRAWS = 100
local BRIEF_BYTES = 200 -- a question from a dataset has no short notation, so its text is cut

local integers = require("integers")
local families, by_name = {}, {}
for _, library in ipairs({ require("problems_number"), require("problems_algebra"), require("problems_applied") }) do
  for _, family in ipairs(library) do
    families[#families + 1] = family
    by_name[family.name] = family
  end
end

-- The content of the last \boxed{...}, with its braces matched, or nil.
local function last_boxed(text)
  local start, from = nil, 1
  while true do
    local _, finish = string.find(text, "\\boxed{", from, true)
    if not finish then break end
    start, from = finish + 1, finish + 1
  end
  if not start then return nil end
  local depth = 1
  for position = start, #text do
    local byte = string.byte(text, position)
    if byte == 123 then -- {
      depth = depth + 1
    elseif byte == 125 then -- }
      depth = depth - 1
      if depth == 0 then return string.sub(text, start, position - 1) end
    end
  end
  return nil
end

local function trim(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

local function reference_of(row)
  local text = row.answer
  if text == nil or text == "" then text = row.solution end
  if text == nil then error("a row of the dataset has neither `answer` nor `solution`") end
  text = type(text) == "number" and string.format("%.15g", text) or tostring(text)
  local boxed = last_boxed(text)
  if boxed then return trim(boxed) end
  local final = text:match(".*####%s*(.-)%s*$")
  return trim(final or text)
end

-- Whether the column reads as the level wanted: 3, "3" or "Level 3".
local function is_level(row, level)
  return level == nil or tonumber(tostring(row.level):match("%d+")) == level
end

-- Numerator and denominator of an answer such as "12", "-3" or "5/8", else nil.
local function parse_number(text)
  local top, bottom = text:match("^(-?%d+)/(%d+)$")
  if top and tonumber(bottom) > 0 then return tonumber(top), tonumber(bottom) end
  top = text:match("^-?%d+$")
  if top and #top <= 15 then return tonumber(top), 1 end
  return nil
end

-- The start of a text, never cut inside a character.
local function head(text, bytes)
  if #text <= bytes then return text end
  while bytes > 0 and string.byte(text, bytes + 1) >= 128 and string.byte(text, bytes + 1) < 192 do bytes = bytes - 1 end
  return string.sub(text, 1, bytes)
end

-- The problem of a row, or nil if the options rule it out.
local function problem_of(row, options)
  if not is_level(row, options.level) then return nil end
  local reference = reference_of(row)
  if options.choices and not parse_number(reference) then return nil end
  local question = tostring(row.question or row.problem or "")
  if question == "" then error("a row of the dataset has neither `question` nor `problem`") end
  local level = tonumber(tostring(row.level):match("%d+")) or 0
  return { family = "dataset", level = level, question = question, brief = head(question, BRIEF_BYTES), answer = reference }
end

local function read_problem(rng, options)
  local rows = gift.dataset(options.data)
  if #rows == 0 then error("the dataset `" .. options.data .. "` has no rows") end
  -- Drawing again keeps the choice uniform among the rows that fit, also in a file sorted by level.
  for _ = 1, DRAWS do
    local problem = problem_of(rows[rng:int(1, #rows)], options)
    if problem then return problem end
  end
  -- They are rare or absent: the next one from a random place, so that the search ends.
  local start = rng:int(0, #rows - 1)
  for step = 0, #rows - 1 do
    local problem = problem_of(rows[(start + step) % #rows + 1], options)
    if problem then return problem end
  end
  error("no row of the dataset `" .. options.data .. "` fits the options")
end

local function make_problem(rng, options)
  local level = options.level or rng:int(1, MAX_LEVEL)
  if level < 1 or level > MAX_LEVEL or level ~= math.floor(level) then
    error("option `level` must be 1, 2 or 3, found " .. tostring(level))
  end
  local family
  local names = options.families
  if type(names) == "string" then names = { names } end
  if names and #names > 0 then
    local name = rng:pick(names)
    family = by_name[name]
    if not family then error("option `families` names `" .. tostring(name) .. "`, which does not exist") end
  else
    family = rng:pick(families)
  end
  local question, brief, answer = family.make(rng, level)
  return { family = family.name, level = level, question = question, brief = brief, answer = answer }
end

-- `count` candidates with the right one among them, sorted. A small answer gets 0, 1, 2, …, so that the list is the same
-- for most problems of level 1 and says nothing; any other gets near misses and random neighbours.
local function candidates(rng, answer, count)
  local top, bottom = parse_number(answer)
  if not top then error("option `choices` needs answers that are numbers, found `" .. answer .. "`") end
  local list, seen = {}, {}
  local function add(numerator, denominator)
    if denominator < 1 or (numerator < 0 and top >= 0) then return end
    local text = integers.fraction(numerator, denominator)
    if not seen[text] then
      seen[text] = true
      list[#list + 1] = text
    end
  end
  if bottom == 1 and top >= 0 and top < count then
    for number = 0, count - 1 do add(number, 1) end
  else
    seen[answer] = true -- kept as it is written, since it need not be in lowest terms
    list[1] = answer
    local spread = bottom == 1 and math.max(count, math.floor(math.abs(top) / 4)) or math.max(5, count)
    while #list < count do
      if bottom > 1 then
        add(top + rng:int(-spread, spread), bottom + rng:int(-2, 2))
      else
        local kind = rng:int(1, 3)
        if kind == 1 then
          add(top + rng:pick({ -2, -1, 1, 2 }), 1)
        elseif kind == 2 then
          add(top + rng:pick({ -20, -10, 10, 20 }), 1)
        else
          add(top + rng:int(-spread, spread), 1)
        end
      end
    end
  end
  table.sort(list)
  return list
end

function game.init(rng, options)
  local state = options.data and read_problem(rng, options) or make_problem(rng, options)
  state.choices = {}
  if options.choices then
    if options.choices < 2 then error("option `choices` must be at least 2, found " .. tostring(options.choices)) end
    state.choices = candidates(rng, state.answer, options.choices)
  end
  state.done = false
  state.correct = false
  return state
end

function game.to_act(state)
  if state.done then return nil end
  return 1
end

function game.observe(state, _seat)
  local parts = { "Solve this problem.", state.question }
  if #state.choices > 0 then
    parts[#parts + 1] = "The answer is one of: " .. table.concat(state.choices, ", ") .. "."
  end
  parts[#parts + 1] = "Think step by step, then give only the result as answer, in the form "
    .. "<think>...</think><answer>...</answer>"
  return table.concat(parts, "\n\n")
end

function game.brief(state, _seat)
  return state.brief
end

function game.actions(state, _seat)
  if #state.choices > 0 then return state.choices end
  return nil
end

function game.apply(state, _seat, action)
  if action == "" then gift.illegal("the answer is empty") end
  if #action > MAX_ANSWER_BYTES then gift.illegal("the answer is longer than " .. MAX_ANSWER_BYTES .. " bytes") end
  local answer = trim(last_boxed(action) or action)
  if #state.choices > 0 and not table.find(state.choices, answer) then
    gift.illegal("the answer must be one of: " .. table.concat(state.choices, ", "))
  end
  state.correct = gift.math_equal(answer, state.answer)
  state.done = true
  return state
end

function game.outcome(state)
  return { scores = { state.correct and 1 or 0 }, success = { state.correct } }
end

function game.bot(state, _seat, _rng)
  return state.answer
end

return game
