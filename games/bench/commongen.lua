-- CommonGen (Lin et al., arXiv:1911.03705): a sentence that uses all given concepts. One set of concepts an episode.
--
-- The score is the coverage: the share of the concepts that occur in the sentence, in any inflection. Success is full
-- coverage. Whether the sentence makes sense is not judged here; `commongen_judged.lua` asks a language model. The paper's coverage
-- lemmatizes with spaCy; here a word counts as a concept if it is one of its regular English inflections, or in the list of
-- irregular ones below.
--
-- Reads the files of `allenai/common_gen` as published (Parquet or JSONL): `concept_set_idx`, `concepts` (a list), `target`.
-- That file has a row for each reference sentence, the rows of a set one after the other; every set is asked once. Files with a
-- row for each set (`concepts`, or `concept_set` with `#` between the concepts) serve as well.
--
-- Options: `games.commongen.data` is the file.

local bench = require("bench")
local concepts = require("concepts")

---@type gift.Game
local game = { name = "commongen", seats = 1, max_turns = 1, illegal = "end" }

function game.episodes(options)
  return concepts.count(options, game.name)
end

function game.init(rng, options)
  return { concepts = concepts.draw(rng, options, game.name), coverage = 0, done = false }
end

function game.to_act(state)
  if state.done then return nil end
  return 1
end

function game.observe(state, _seat)
  return concepts.question(state.concepts)
end

function game.brief(state, _seat)
  return bench.head(table.concat(state.concepts, " "))
end

function game.apply(state, _seat, action)
  state.coverage = concepts.coverage(state.concepts, action)
  state.done = true
  return state
end

function game.outcome(state)
  return { scores = { state.coverage }, success = { state.coverage == 1 } }
end

function game.bot(state, _seat, _rng)
  return "There is " .. table.concat(state.concepts, " and ") .. "."
end

return game
