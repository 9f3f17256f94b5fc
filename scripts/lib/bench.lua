-- What the benchmark games in games/bench share: which row an episode asks, and multiple choice from any table of columns.
local bench = {}

local BRIEF_BYTES = 200
local GOLDEN = 0.6180339887498949 -- (sqrt(5) - 1) / 2

local function divisor(a, b)
  while b > 0 do a, b = b, a % b end
  return a
end

-- The number, from 1 to `count`, of what this episode asks. An evaluation numbers its episodes: they walk through all in
-- steps of the golden section, so that every one comes once and the first hundred lie all over a file sorted by subject.
-- Training draws at random.
function bench.number(rng, options, count)
  if options.episode == nil then return rng:int(1, count) end
  local step = math.max(1, math.floor(count * GOLDEN))
  while divisor(step, count) > 1 do step += 1 end
  return (options.episode - 1) % count * step % count + 1
end

-- The data set that the settings name.
function bench.rows(options, name)
  if type(options.data) ~= "string" then
    error("set `games." .. name .. ".data` to the data set's file, as published (Parquet or JSONL)")
  end
  local rows = gift.dataset(options.data)
  if #rows == 0 then error("the data set `" .. options.data .. "` has no rows") end
  return rows
end

-- A cell that must be there.
function bench.text(row, column, data)
  local value = row[column]
  if value == nil or value == "" then error("a row of `" .. data .. "` has no `" .. column .. "`") end
  return tostring(value)
end

-- The start of a text, never cut inside a character.
function bench.head(text)
  if #text <= BRIEF_BYTES then return text end
  local bytes = BRIEF_BYTES
  while bytes > 0 and text:byte(bytes + 1) >= 128 and text:byte(bytes + 1) < 192 do bytes -= 1 end
  return text:sub(1, bytes)
end

function bench.trim(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

local function letter(index)
  return string.char(64 + index)
end

-- The index of an option from an answer such as `B`, `b`, `(B)`, `B.`, `B) the text`, or the text itself; nil if none.
local function read_choice(answer, options)
  local name, rest = answer:match("^%(?([A-Za-z])([%).:]?.*)$")
  if name then
    local index = name:upper():byte() - 64
    rest = bench.trim((rest:gsub("^[%).:]+", "")))
    if index <= #options and (rest == "" or rest == options[index]) then return index end
  end
  for index, option in ipairs(options) do
    if answer == option then return index end
  end
  return nil
end

-- A game of one question with options. `read(row, data)` gives `question`, `options` (a list) and `answer` (an index), and
-- may give `subject`.
function bench.multiple_choice(name, read)
  local game = { name = name, seats = 1, max_turns = 1, illegal = "end" }

  function game.episodes(options)
    return #bench.rows(options, name)
  end

  function game.init(rng, options)
    local rows = bench.rows(options, name)
    local state = read(rows[bench.number(rng, options, #rows)], options.data)
    if #state.options < 2 or not state.options[state.answer] then
      error("a row of `" .. options.data .. "` has no options, or an answer that is none of them")
    end
    state.chosen = 0
    return state
  end

  function game.to_act(state)
    if state.chosen > 0 then return nil end
    return 1
  end

  function game.observe(state, _seat)
    local parts = { "Answer this multiple-choice question.", "", state.question, "" }
    for index, option in ipairs(state.options) do parts[#parts + 1] = letter(index) .. ". " .. option end
    parts[#parts + 1] = ""
    parts[#parts + 1] = "Think step by step inside <think>...</think>, then give only the letter of the right option "
      .. "inside <answer>...</answer>."
    return table.concat(parts, "\n")
  end

  function game.brief(state, _seat)
    return bench.head(state.question)
  end

  function game.actions(state, _seat)
    local list = {}
    for index = 1, #state.options do list[index] = letter(index) end
    return list
  end

  function game.apply(state, _seat, action)
    local chosen = read_choice(action, state.options)
    if not chosen then gift.illegal("give one of the letters A to " .. letter(#state.options)) end
    state.chosen = chosen
    return state
  end

  function game.outcome(state)
    local right = state.chosen == state.answer
    return { scores = { right and 1 or 0 }, success = { right } }
  end

  function game.bot(state, _seat, _rng)
    return letter(state.answer)
  end

  return game
end

return bench
