-- What the CommonGen games in games/bench share: sets of concepts as the data set holds them, and whether a sentence uses them.
local bench = require("bench")
local concepts = {}

local MAX_WORDS = 60

local IRREGULAR = {
  be = "is are was were been being am", begin = "began begun", bend = "bent", bind = "bound", bite = "bit bitten",
  blow = "blew blown", ["break"] = "broke broken", bring = "brought", build = "built", buy = "bought", catch = "caught",
  child = "children", choose = "chose chosen", come = "came", cut = "cut", dig = "dug", ["do"] = "did done does",
  draw = "drew drawn", drink = "drank drunk", drive = "drove driven", eat = "ate eaten", fall = "fell fallen", feed = "fed",
  feel = "felt", fight = "fought", find = "found", fly = "flew flown", foot = "feet", freeze = "froze frozen",
  get = "got gotten", give = "gave given", go = "went gone goes", goose = "geese", grind = "ground", grow = "grew grown",
  hang = "hung", have = "has had", hear = "heard", hide = "hid hidden", hit = "hit", hold = "held", keep = "kept",
  kneel = "knelt", knife = "knives", know = "knew known", lay = "laid", lead = "led", leaf = "leaves", lean = "leant",
  leap = "leapt", leave = "left", let = "let", lie = "lay lain lying", life = "lives", light = "lit", lose = "lost",
  make = "made", man = "men", meet = "met", mouse = "mice", pay = "paid", person = "people", put = "put", read = "read",
  ride = "rode ridden", ring = "rang rung", rise = "rose risen", run = "ran", say = "said", see = "saw seen", sell = "sold",
  send = "sent", set = "set", shake = "shook shaken", shine = "shone", shoot = "shot", shelf = "shelves", show = "shown",
  sing = "sang sung", sink = "sank sunk", sit = "sat", sleep = "slept", slide = "slid", speak = "spoke spoken",
  spend = "spent", spin = "spun", spread = "spread", stand = "stood", stick = "stuck", strike = "struck", sweep = "swept",
  swim = "swam swum", swing = "swung", take = "took taken", teach = "taught", tear = "tore torn", tell = "told",
  think = "thought", throw = "threw thrown", tie = "tying", tooth = "teeth", wear = "wore worn", wife = "wives",
  win = "won", wind = "wound", wolf = "wolves", woman = "women", write = "wrote written",
}

-- Every inflection of a concept that counts, as keys.
local function forms(concept)
  local set = { [concept] = true, [concept .. "s"] = true, [concept .. "ed"] = true, [concept .. "ing"] = true }
  set[concept .. "es"], set[concept .. "er"] = true, true
  local last = concept:sub(-1)
  if last == "e" then
    local stem = concept:sub(1, -2)
    set[concept .. "d"], set[concept .. "r"], set[stem .. "ing"] = true, true, true
  elseif last == "y" and not concept:sub(-2, -2):find("[aeiou]") then
    local stem = concept:sub(1, -2)
    set[stem .. "ies"], set[stem .. "ied"], set[stem .. "ier"] = true, true, true
  elseif concept:find("[aeiou][bdgklmnprtv]$") then
    -- stop, stopped, stopping
    set[concept .. last .. "ed"], set[concept .. last .. "ing"], set[concept .. last .. "er"] = true, true, true
  end
  for form in (IRREGULAR[concept] or ""):gmatch("%S+") do set[form] = true end
  return set
end

-- The concepts of a row.
local function concepts_of(row, data)
  local list = {}
  if row.concepts ~= nil then
    for _, concept in ipairs(row.concepts) do list[#list + 1] = tostring(concept):lower() end
  else
    for concept in bench.text(row, "concept_set", data):gmatch("[^#]+") do list[#list + 1] = concept:lower() end
  end
  if #list == 0 then error("a row of `" .. data .. "` has no concepts") end
  return list
end

-- The number of sets, and the row of a set.
local function count(rows)
  local first = rows[1].concept_set_idx
  if first == nil then return #rows end
  return rows[#rows].concept_set_idx - first + 1
end

local function row_of(rows, number)
  local first = rows[1].concept_set_idx
  if first == nil then return rows[number] end
  -- Rows are in the order of their sets: the first row of the one wanted, or of the next if it is left out.
  local low, high = 1, #rows
  while low < high do
    local middle = (low + high) // 2
    if rows[middle].concept_set_idx < first + number - 1 then low = middle + 1 else high = middle end
  end
  return rows[low]
end

-- How many sets of concepts the file has.
function concepts.count(options, name)
  return count(bench.rows(options, name))
end

-- The concepts of this episode.
function concepts.draw(rng, options, name)
  local rows = bench.rows(options, name)
  return concepts_of(row_of(rows, bench.number(rng, options, count(rows))), options.data)
end

-- What the model is asked for.
function concepts.question(list)
  return "Write one natural sentence that uses all of these concepts, in any form: " .. table.concat(list, ", ")
    .. ".\n\nThink inside <think>...</think>, then give only the sentence inside <answer>...</answer>."
end

-- The share of the concepts that occur in the sentence. What is no sentence is refused.
function concepts.coverage(list, sentence)
  local words, number = {}, 0
  for word in sentence:lower():gmatch("[%a']+") do
    number += 1
    words[word] = true
    words[(word:gsub("'s?$", ""))] = true
  end
  if number == 0 then gift.illegal("the answer is no sentence") end
  -- A list of every word would cover everything.
  if number > MAX_WORDS then gift.illegal("the answer is longer than " .. MAX_WORDS .. " words") end
  local covered = 0
  for _, concept in ipairs(list) do
    local found = 0
    for form in pairs(forms(concept)) do
      if words[form] then found = 1 end
    end
    covered += found
  end
  return covered / #list
end

return concepts
