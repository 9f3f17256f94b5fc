-- Who's the spy: three civilians share a word, one undercover player has a similar word, nobody is told
-- their side. Two rounds of descriptions, then one vote.
--
-- A tie for the most votes sends nobody out, and then the undercover player has survived and wins.
--
-- Options (`games.spy.<key>`):
--   describe  "free" (default): a description is any text of 1 to 200 characters;
--             "attributes": a description is one word of a numbered list, for models that have no language.
--   decoys    attribute mode: how many words of each list do not fit the player's own word (0 to 4, default 2).

---@type gift.Game
local game = { name = "spy", seats = 4, max_turns = 6 } -- three turns each, and room for three refused answers

local SEATS = 4
local ROUNDS = 2
local MAX_CHARACTERS = 200
local FORM = "<think>...</think><answer>...</answer>"
local SEAT_LETTERS = "abcd" -- seats in a brief that are not the most suspicious
local BROAD_WEIGHT = 4 -- how much a bot prefers broad attributes, see `bot_description`

local words = require("words")
local word_pairs = gift.dataset("data/spy_words.jsonl")

-- The four rule prompts differ in form and in voice, so that a model learns the game and not one text.
local RULES = {
  [[We are playing "Who's the Spy" with four players, numbered 1 to 4. Three of them are civilians and hold the same word. The fourth is the undercover player and holds a different but related word. Nobody is told which side they are on: you see only your own word.
The game has two rounds of descriptions, in which each player in turn describes their word without saying it, and then one vote. The player with the most votes is out. If that is the undercover player, the civilians win; if it is anybody else, or if the vote is tied, the undercover player wins.
You are player {seat}. Your word is "{word}".]],
  [[Game: Who's the Spy
- Players: 4 (you are number {seat})
- Secret words: three players share one word, one player (the undercover) has a word close to it
- Your word: {word}
- You do not know whether you are a civilian or the undercover. Work it out from what the others say.
- Course: description round 1, description round 2, vote
- Never say your word itself
- Civilians win when the vote sends the undercover out. A tie sends nobody out. In every other case the undercover wins.]],
  [[Four friends sit around a table. Each has drawn a card with a secret word: three cards are equal, and one shows something similar. Whoever holds the odd card is the undercover player, and not even that player knows it yet.
Twice around the table everyone gives a hint about their card. Hints that are too clear help the undercover player to hide; hints that are too odd draw suspicion. Then all vote. The three win together if the most votes fall on the odd card, otherwise (also when the votes are level) the odd card wins alone.
You sit at place {seat} and your card says "{word}".]],
  [[You are player {seat} of 4 in a game of hidden words. Your word is "{word}".
Question: who is my opponent? Answer: you are not told. Three players have one word, the undercover player has another one that resembles it. Compare the hints of the others with your word to find out where you belong.
Question: what do I do? Answer: you describe your word two times without using it, and at the end you vote for the player you take for the undercover one.
Question: who wins? Answer: the three civilians, if the undercover player alone gets the most votes; the undercover player, if not.]],
}

-- Each phrase has one gap for an attribute. None of its other words may be a word or an attribute of the data.
local PHRASES = {
  "I would say: {attribute}.",
  "My hint is {attribute}.",
  "It goes well with {attribute}.",
}

-- The pairs of the data, by number, each in both directions: which word the civilians hold, which the undercover player,
-- with the attributes of each. A state has the number and the direction only, so that it is small.
local DEALS = {}
for number, row in word_pairs do
  local function deal(civilian, undercover)
    local function side(name)
      -- A seat that knows its word knows these, sorted.
      local own = table.clone(row.attributes.shared)
      for _, attribute in row.attributes[name] do own[#own + 1] = attribute end
      table.sort(own)
      return { word = row[name], attributes = row.attributes[name], own = own }
    end
    return { shared = row.attributes.shared, civilian = side(civilian), undercover = side(undercover) }
  end
  DEALS[number] = { deal("civilian", "undercover"), deal("undercover", "civilian") }
end

local function deal_of(state)
  return DEALS[state.pair][state.direction]
end

-- What the seat holds.
local function side_of(state, seat)
  local deal = deal_of(state)
  return seat == state.undercover and deal.undercover or deal.civilian
end

local function word_of(state, seat)
  return side_of(state, seat).word
end

-- Round of the turn under way: 1 or 2 for descriptions, 3 for the vote.
local function round_of(state)
  return math.floor((state.turn - 1) / SEATS) + 1
end

local function is_vote(state)
  return round_of(state) > ROUNDS
end

-- Who gave the description of this number: they come in the speaking order.
local function speaker(state, number)
  return state.order[(number - 1) % SEATS + 1]
end

local function descriptions_of(state, seat)
  local list = {}
  for number, text in state.said do
    if speaker(state, number) == seat then list[#list + 1] = text end
  end
  return list
end

-- The numbers of the words that a seat may still choose from in attribute mode.
local function choices_of(state, seat)
  local used, choices = descriptions_of(state, seat), {}
  for number, attribute in state.hands[seat] do
    if not words.contains(used, attribute) then choices[#choices + 1] = tostring(number) end
  end
  return choices
end

-- The number of a word in the seat's hand as text, or nil.
local function number_of(state, seat, attribute)
  local number = table.find(state.hands[seat], attribute)
  return number and tostring(number)
end

-- The attributes of the own word that the seat has not named yet and may name, sorted.
local function unused_attributes(state, seat)
  local used, list = words.split(table.concat(descriptions_of(state, seat), " ")), {}
  for _, attribute in side_of(state, seat).own do
    local allowed = state.describe == "free" or table.find(state.hands[seat], attribute)
    if allowed and not words.contains(used, attribute) then list[#list + 1] = attribute end
  end
  return list
end

-- What the data says about a word in all pairs that have it: its own attributes, and those of the words it is paired
-- with. Built while the script loads: what a call builds is gone after the call.
local known = {}
for _, row in word_pairs do
  for _, word in { row.civilian, row.undercover } do
    known[word] = known[word] or { own = {}, related = {} }
    for side, list in pairs(row.attributes) do
      local target = (side == "shared" or row[side] == word) and known[word].own or known[word].related
      for _, attribute in ipairs(list) do target[#target + 1] = attribute end
    end
  end
end

-- How a description fits the seat's own word: "+" it names an attribute of it, "-" it names attributes of something
-- else, "?" it names none that the data knows. Uses nothing but the seat's word, the data and the public text.
local function fit(state, seat, text)
  if state.describe == "attributes" then
    return words.contains(side_of(state, seat).own, text) and "+" or "-"
  end
  local knowledge = known[word_of(state, seat)]
  local fitting, foreign = 0, 0
  for _, token in ipairs(words.split(text)) do
    if words.contains(knowledge.own, token) then
      fitting = fitting + 1
    elseif words.contains(knowledge.related, token) then
      foreign = foreign + 1
    end
  end
  -- As many foreign words as fitting ones are tolerated; more of them is fishing for a match.
  if fitting > 0 and foreign <= fitting then return "+" end
  return foreign > 0 and "-" or "?"
end

local function pick_attributes(rng, list, count, into)
  local pool = {}
  for _, attribute in ipairs(list) do pool[#pool + 1] = attribute end
  for _ = 1, math.min(count, #pool) do
    into[#into + 1] = table.remove(pool, rng:int(1, #pool))
  end
end

-- A hand for attribute mode: two attributes both words have, two that only the own word has, and decoys from
-- unrelated pairs. Which is which is not shown.
local function deal_hand(state, seat, rng, decoys)
  local hand, deal = {}, deal_of(state)
  pick_attributes(rng, deal.shared, 2, hand)
  pick_attributes(rng, side_of(state, seat).attributes, 2, hand)
  local size = #hand + decoys
  while #hand < size do
    local other = word_pairs[rng:int(1, #word_pairs)].attributes
    local candidate = rng:pick(other[rng:pick({ "shared", "civilian", "undercover" })])
    local taken = words.contains(hand, candidate)
      or words.contains(deal.civilian.own, candidate)
      or words.contains(deal.undercover.own, candidate)
      or words.same(candidate, deal.civilian.word)
      or words.same(candidate, deal.undercover.word)
    if not taken then hand[#hand + 1] = candidate end
  end
  table.sort(hand)
  return hand
end

function game.init(rng, options)
  local pair = rng:int(1, #DEALS)
  -- Which word of a pair is the odd one is drawn too, so that a word does not give its side away.
  local direction = rng:int(0, 1) + 1
  local order = { 1, 2, 3, 4 }
  for last = SEATS, 2, -1 do
    local chosen = rng:int(1, last)
    order[last], order[chosen] = order[chosen], order[last]
  end
  local state = {
    pair = pair,
    direction = direction,
    undercover = rng:int(1, SEATS),
    order = order,
    template = rng:int(1, #RULES),
    describe = options.describe or "free",
    turn = 1,
    hands = {},
    said = {}, -- descriptions in the order in which they were given
    votes = { 0, 0, 0, 0 },
    out = 0, -- the seat that was voted out; 0 for nobody
  }
  if state.describe ~= "free" and state.describe ~= "attributes" then
    error('option `describe` must be "free" or "attributes", found `' .. tostring(state.describe) .. "`")
  end
  if state.describe == "attributes" then
    local decoys = math.max(0, math.min(4, options.decoys or 2))
    for seat = 1, SEATS do state.hands[seat] = deal_hand(state, seat, rng, decoys) end
  end
  return state
end

function game.to_act(state)
  if state.turn > SEATS * (ROUNDS + 1) then return nil end
  return state.order[(state.turn - 1) % SEATS + 1]
end

-- What was said since the seat's own last description, one line each.
local function news_for(state, seat)
  local lines = {}
  for number, text in state.said do
    local by = speaker(state, number)
    if by == seat then
      lines = {}
    else
      lines[#lines + 1] = "Player " .. by .. " (round " .. math.ceil(number / SEATS) .. "): " .. text
    end
  end
  return lines
end

function game.observe(state, seat)
  local round = round_of(state)
  local parts = {}
  if round == 1 then
    parts[1] = gift.template(RULES[state.template], { seat = tostring(seat), word = word_of(state, seat) })
    parts[2] = "The speaking order is " .. table.concat(state.order, ", ") .. "."
  end
  local news = news_for(state, seat)
  if #news > 0 then
    parts[#parts + 1] = (round == 1 and "Said so far:\n" or "Said since your last turn:\n") .. table.concat(news, "\n")
  elseif round == 1 then
    parts[#parts + 1] = "You speak first."
  end
  if is_vote(state) then
    parts[#parts + 1] = "Now vote: which player do you think is the undercover one? You cannot vote for yourself (player "
      .. seat .. "), and nobody sees the votes of the others. Give only the number as answer, one of "
      .. table.concat(game.actions(state, seat) or {}, ", ") .. ", in the form " .. FORM
  else
    local ask = "Description round " .. round .. " of " .. ROUNDS .. ": describe your word without saying it."
    if round > 1 then
      ask = ask .. " Take a new angle, different from what you said before."
    end
    if state.describe == "attributes" then
      local choices = {}
      for _, number in ipairs(choices_of(state, seat)) do
        choices[#choices + 1] = number .. ") " .. state.hands[seat][tonumber(number)]
      end
      ask = ask .. " Your description is one of these words (not all of them fit your word): "
        .. table.concat(choices, ", ") .. ". Give only its number as answer, in the form " .. FORM
    else
      ask = ask .. " Give only the description as answer, at most " .. MAX_CHARACTERS .. " characters, in the form " .. FORM
    end
    parts[#parts + 1] = ask
  end
  return table.concat(parts, "\n\n")
end

function game.actions(state, seat)
  if is_vote(state) then
    local list = {}
    for other = 1, SEATS do
      if other ~= seat then list[#list + 1] = tostring(other) end
    end
    return list
  end
  if state.describe == "attributes" then return choices_of(state, seat) end
  return nil
end

-- How little a player's descriptions fit the own word, from 0 (well, or nothing was said) to 3 (not at all). One text
-- that cannot be judged is forgiven, two are a little suspicious, so that a model gains by being understood.
local function suspicion(state, seat, other)
  local unknown, foreign = 0, 0
  for _, text in ipairs(descriptions_of(state, other)) do
    local mark = fit(state, seat, text)
    if mark == "?" then unknown = unknown + 1 end
    if mark == "-" then foreign = foreign + 1 end
  end
  if foreign > 0 then return foreign == 1 and 2 or 3 end
  return unknown > 1 and 1 or 0
end

-- The other seats that are the most suspicious, as texts; all of them if none is.
local function suspects(state, seat)
  local worst, list = -1, {}
  for other = 1, SEATS do
    if other ~= seat then
      local level = suspicion(state, seat, other)
      if level > worst then
        worst, list = level, {}
      end
      if level == worst then list[#list + 1] = tostring(other) end
    end
  end
  return list
end

-- What a small model can learn: digits are the answers that make sense. Vote: `V|a3d`, the other seats, those by number
-- whose descriptions fit the own word least. Description in attribute mode: `D2|3/16`, the numbers of the words that fit
-- the own word, those that somebody else has named before the slash; decoys are absent, as leaving them out is to know
-- the word. Description in free text: `D2|said/rest`, the fitting words themselves.
function game.brief(state, seat)
  if is_vote(state) then
    local worst, parts = suspects(state, seat), {}
    for other = 1, SEATS do
      if table.find(worst, tostring(other)) then
        parts[#parts + 1] = tostring(other)
      elseif other ~= seat then
        parts[#parts + 1] = SEAT_LETTERS:sub(other, other)
      end
    end
    return "V|" .. table.concat(parts)
  end
  local others = {}
  for number, text in state.said do
    if speaker(state, number) ~= seat then
      for _, token in words.split(text) do others[#others + 1] = token end
    end
  end
  local in_attributes = state.describe == "attributes"
  local named, rest = {}, {}
  for _, attribute in unused_attributes(state, seat) do
    local list = words.contains(others, attribute) and named or rest
    list[#list + 1] = in_attributes and number_of(state, seat, attribute) or attribute
  end
  local gap = in_attributes and "" or " "
  return "D" .. round_of(state) .. "|" .. table.concat(named, gap) .. "/" .. table.concat(rest, gap)
end

local function apply_vote(state, seat, action)
  -- "3", "player 3" and "[3]" are fine; a text with two numbers is not a clear vote.
  local digits = {}
  for run in action:gmatch("%d+") do digits[#digits + 1] = run end
  local target = #digits == 1 and tonumber(digits[1]) or nil
  if not target or target < 1 or target > SEATS then
    gift.illegal("a vote is one player number from 1 to " .. SEATS)
  end
  if target == seat then gift.illegal("you cannot vote for yourself") end
  state.votes[seat] = target
end

local function apply_description(state, seat, action)
  local text = action:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", "")
  if state.describe == "attributes" then
    -- The word itself is as good as its number.
    local number = number_of(state, seat, words.fingerprint(text)) or text
    local choices = choices_of(state, seat)
    if not table.find(choices, number) then
      gift.illegal("the description must be one of the numbers " .. table.concat(choices, ", "))
    end
    text = state.hands[seat][tonumber(number)]
  else
    if text == "" then gift.illegal("the description is empty") end
    if words.length(text) > MAX_CHARACTERS then
      gift.illegal("the description is longer than " .. MAX_CHARACTERS .. " characters")
    end
    if words.mentions(text, word_of(state, seat)) then
      gift.illegal("the description must not contain your own word")
    end
    for _, earlier in ipairs(descriptions_of(state, seat)) do
      if words.fingerprint(earlier) == words.fingerprint(text) then
        gift.illegal("you gave this description before; take a new angle")
      end
    end
  end
  state.said[#state.said + 1] = text
end

-- The seat with strictly the most votes, or 0 after a tie.
local function voted_out(votes)
  local counts = { 0, 0, 0, 0 }
  for _, target in ipairs(votes) do counts[target] = counts[target] + 1 end
  local best, out = 0, 0
  for seat = 1, SEATS do
    if counts[seat] > best then
      best, out = counts[seat], seat
    elseif counts[seat] == best then
      out = 0
    end
  end
  return out
end

function game.apply(state, seat, action)
  if is_vote(state) then
    apply_vote(state, seat, action)
  else
    apply_description(state, seat, action)
  end
  state.turn = state.turn + 1
  if state.turn > SEATS * (ROUNDS + 1) then state.out = voted_out(state.votes) end
  return state
end

function game.outcome(state)
  local caught = state.out == state.undercover
  local scores, success = {}, {}
  for seat = 1, SEATS do
    local won = caught ~= (seat == state.undercover)
    scores[seat] = won and 1 or 0
    success[seat] = won
  end
  return { scores = scores, success = success }
end

-- An attribute of the own word that the bot has not used. Broad attributes ("fruit") are preferred to telling ones
-- ("cider"), because a telling one exposes an undercover player. A bot does not know the other word; that it mostly
-- picks what the two share stands for the human sense of which attributes are broad, and it errs often enough.
local function bot_description(state, seat, rng)
  local candidates = {}
  local shared = deal_of(state).shared
  for _, attribute in unused_attributes(state, seat) do
    local weight = words.contains(shared, attribute) and BROAD_WEIGHT or 1
    for _ = 1, weight do candidates[#candidates + 1] = attribute end
  end
  return rng:pick(candidates)
end

function game.bot(state, seat, rng)
  if not is_vote(state) then
    local attribute = bot_description(state, seat, rng)
    if state.describe == "attributes" then return number_of(state, seat, attribute) end
    return gift.template(rng:pick(PHRASES), { attribute = attribute })
  end
  return rng:pick(suspects(state, seat)) -- the vote falls on a player whose descriptions fit the own word least
end

return game
