-- expect: script::value in init
local long = string.rep("x", 1000000)
return {
  name = "hostile",
  seats = 1,
  max_turns = 4,
  init = function()
    local list = {}
    for index = 1, 90000 do list[index] = long end
    return { list = list }
  end,
  to_act = function() return nil end,
  observe = function() return "" end,
  apply = function(state) return state end,
  outcome = function() return { scores = { 1 }, success = { true } } end,
}
