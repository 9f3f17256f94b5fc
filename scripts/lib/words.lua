-- Words within free text: splitting, comparing but for a plural ending, and telling a repetition from something new.
-- English only, and no grammar: enough for games that look for known words in what a player wrote.

local words = {}

-- The words of a text in lower case, without punctuation.
function words.split(text)
  local tokens = {}
  for token in text:lower():gmatch("%w+") do tokens[#tokens + 1] = token end
  return tokens
end

-- Equal but for a plural ending.
function words.same(left, right)
  local more = #right - #left
  if more == 0 then return left == right end
  if more < 0 then
    left, right, more = right, left, -more
  end
  -- Endings first: words are compared by the thousand, and few get as far as a new string.
  if more > 2 or right:byte(-1) ~= 115 then return false end -- "s"
  if more == 2 and (#left < 3 or right:byte(-2) ~= 101) then return false end -- "e"
  return right:sub(1, #left) == left
end

-- Whether a list has the word, in singular or plural.
function words.contains(list, word)
  for _, entry in list do
    if entry == word or words.same(entry, word) then return true end
  end
  return false
end

-- What repetition is judged by: case, spaces and punctuation do not make a new text.
function words.fingerprint(text)
  local tokens = words.split(text)
  if #tokens == 0 then return text end
  return table.concat(tokens, " ")
end

-- Whether a text uses the word, also when it is written in two parts ("ice cream" for "icecream").
function words.mentions(text, word)
  local tokens = words.split(text)
  for index, token in ipairs(tokens) do
    if words.same(token, word) or words.same(token .. (tokens[index + 1] or ""), word) then return true end
  end
  return false
end

-- Length in characters; a text that is not valid UTF-8 is measured in bytes.
function words.length(text)
  return utf8.len(text) or #text
end

return words
