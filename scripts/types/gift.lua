---@meta

-- Types of everything gift-host gives to a script, and of what it expects back, for lua-language-server. Add this
-- folder to `Lua.workspace.library`; a script then gets completion with `---@type gift.Game` above its table.
-- scripts/types/gift.d.luau says the same for luau-lsp; change both together. Nothing reads either at run time.

---Plain data: nil, booleans, numbers, strings, lists (keys 1..n) and maps with string keys, nested at will. A game's
---state is made of it and of nothing else, so that the host can copy, store, hash and search it.
---@alias gift.Data any

---The only source of randomness. The same seed gives the same numbers.
---@class gift.Rng
local Rng = {}

---A whole number, both ends included.
---@param low integer
---@param high integer
---@return integer
function Rng:int(low, high) end

---At least 0, below 1.
---@return number
function Rng:float() end

---An element of a list that is not empty.
---@generic T
---@param list T[]
---@return T
function Rng:pick(list) end

---Puts the list itself in random order and returns it.
---@generic T
---@param list T[]
---@return T[]
function Rng:shuffle(list) end

---What an episode came to: an entry for each seat.
---@class gift.Outcome
---@field scores number[] 1 for the best result, 0 for the worst
---@field success boolean[]

---What a game script returns. The functions up to `outcome` are required, though marked optional here so that a script
---may start from a table with the three values and add them one by one; `gift-host check` reports a missing one.
---@class gift.Game
---@field name? string letters, digits, `_`, `-`; without it, the file's name without its ending
---@field seats integer 1 to 64; a role that never acts is no seat
---@field max_turns integer of one seat, refused answers included; past it the episode is truncated
---@field illegal? "retry"|"end" after a refused answer: ask again (the default), or end the episode as lost
---@field init? fun(rng: gift.Rng, options: table<string, gift.Data>): gift.Data a new state; options: `games.<name>.*`
---@field to_act? fun(state: gift.Data): integer? the seat to move, from 1; nil when the episode is over
---@field observe? fun(state: gift.Data, seat: integer): string the whole prompt of this turn
---@field actions? fun(state: gift.Data, seat: integer): string[]? the legal answers, all different; nil for free text
---@field apply? fun(state: gift.Data, seat: integer, action: string): gift.Data the next state, or gift.illegal("why")
---@field outcome? fun(state: gift.Data): gift.Outcome asked only when to_act gives nil
---@field brief? fun(state: gift.Data, seat: integer): string the position in a few bytes, for small models
---@field parse? fun(state: gift.Data, seat: integer, text: string): string? for `decode.format = "script"`: the action meant
---@field bot? fun(state: gift.Data, seat: integer, rng: gift.Rng): string a scripted player: a legal answer
---@field score? fun(state: gift.Data, seat: integer): number for search: how good the state is, on the scores' scale
---@field key? fun(state: gift.Data): string for search: what the rest of the play depends on
---@field hide? fun(state: gift.Data, seat: integer, rng: gift.Rng): gift.Data for search: a state the seat may be in
---@field episodes? fun(options: table<string, gift.Data>): integer how many different episodes there are, for evaluations

---A game's recent figures: running means, in which the latest iteration has a weight of 0.2. A game that has not been
---played yet has no entry.
---@class gift.Stats
---@field success number success rate, 0 to 1
---@field reward number mean reward, penalties included

---What the learner's play of one stage came to. The aggregates `gift.mean` and so on take lists of these as they are.
---@class gift.StageResult
---@field game string
---@field reward number
---@field success boolean

---What a nesting script returns.
---@class gift.Nest
---@field mode? "nested"|"mixed"|"cst" without it, nested
---@field stages string[]|fun(rng: gift.Rng, stats: table<string, gift.Stats>): string[] names of games, in order
---@field reward? fun(results: gift.StageResult[]): number nested: the trajectory's reward; without it, the stages' mean
---@field k? integer[] cst: local updates of each stage, 1 to 100; without it, 1 each
---@field weights? number[] mixed: each stage's share of the groups; without it, equal shares

---@class gift.Turn
---@field seat integer
---@field observation string what the seat was shown; "" for opponents that are no language models
---@field answer string all that it wrote
---@field action string what was read out of the answer; "" if nothing could be
---@field legal boolean
---@field well_formed boolean whether the answer kept to the requested form

---@class gift.Tokens
---@field prompt integer
---@field response integer

---A finished episode, as a reward script sees it.
---@class gift.Episode
---@field game string
---@field seat integer the learner's
---@field outcome gift.Outcome scores of 0 and no success if a limit or an illegal answer ended it
---@field turns gift.Turn[] of every seat, in order
---@field tokens gift.Tokens the learner's
---@field penalty number for malformed and illegal answers: 0 or below
---@field truncated boolean a limit ended it, not the rules

---What a reward script returns.
---@alias gift.Reward fun(episode: gift.Episode): number

---One equilibrium: the probabilities of the rows and of the columns.
---@class gift.Equilibrium
---@field x number[]
---@field y number[]

gift = {}

---Refuses the action; never returns. The reason is shown to the seat.
---@param why string
function gift.illegal(why) error(why) end

---A deep copy.
---@generic T
---@param value T
---@return T
function gift.clone(value) end

---The Nash equilibria of a bimatrix game, by support enumeration. A holds the payoffs of the row player.
---@param A number[][]
---@param B number[][]
---@return gift.Equilibrium[]
function gift.nash(A, B) end

---Whether two mathematical answers are equivalent.
---@param a string|number
---@param b string|number
---@return boolean
function gift.math_equal(a, b) end

---The rows of a JSONL, CSV or Parquet file below the script's folder, read-only: `#rows`, `rows[i]`,
---`for i, row in rows do` (not `ipairs`: it is an object of the host, not a table).
---@param path string
---@return table<string, gift.Data>[]
function gift.dataset(path) end

---A board drawn row by row; a free cell (`""`) shows its number, from 1.
---@param cells string[]
---@param columns integer
---@return string
function gift.grid(cells, columns) end

---The numbers of the free cells of a board, as texts in order.
---@param cells string[]
---@return string[]
function gift.free(cells) end

---Whether `count` equal marks stand next to each other through the cell, in its row, its column or a diagonal.
---@param cells string[]
---@param columns integer
---@param count integer
---@param cell integer from 1
---@return boolean
function gift.line(cells, columns, count, cell) end

---Fills in `{name}` from `values.name`; `{{name}}` gives a literal `{name}`. A name without a value is an error.
---@param text string
---@param values? table<string, string|number|boolean>
---@return string
function gift.template(text, values) end

gift.json = {}

---@param value gift.Data
---@return string
function gift.json.encode(value) end

---@param text string
---@return gift.Data
function gift.json.decode(text) end

---A line in the host's log.
---@param text string|number
function gift.log(text) end

---What an aggregate takes: numbers, booleans (true is 1) or results of stages. The list must not be empty.
---@alias gift.Amount number|boolean|gift.StageResult

---@param list gift.Amount[]
---@return number
function gift.mean(list) end

---1 if every entry is a full success (true, or at least 1), else 0.
---@param list gift.Amount[]
---@return number
function gift.all(list) end

---@param list gift.Amount[]
---@return number
function gift.min(list) end

---@param list gift.Amount[]
---@return number
function gift.product(list) end

---Loads `scripts/lib/<name>.lua` and nothing else.
---@param name string
---@return any
function require(name) end

-- What Luau's own library has and plain Lua's has not.

---The place of the first such value in a list, from `first` on; nil if there is none.
---@generic T
---@param list T[]
---@param value T
---@param first? integer
---@return integer?
function table.find(list, value, first) end

---A copy whose parts are shared with the original; `gift.clone` copies those too.
---@generic T
---@param original T
---@return T
function table.clone(original) end

---A list of `count` places, each with the value.
---@param count integer
---@param value? any
---@return any[]
function table.create(count, value) end

---Makes a table read-only and returns it.
---@generic T
---@param original T
---@return T
function table.freeze(original) end

---The parts of a text between separators, by default commas.
---@param text string
---@param separator? string
---@return string[]
function string.split(text, separator) end

---@param number number
---@param low number
---@param high number
---@return number
function math.clamp(number, low, high) end

---@param number number
---@return number
function math.round(number) end

---@param number number
---@return number
function math.sign(number) end

bit32 = {}

---@param ... integer
---@return integer
function bit32.band(...) end

---@param ... integer
---@return integer
function bit32.bor(...) end

---@param ... integer
---@return integer
function bit32.bxor(...) end

---@param number integer
---@param places integer
---@return integer
function bit32.lshift(number, places) end

---@param number integer
---@param places integer
---@return integer
function bit32.rshift(number, places) end
