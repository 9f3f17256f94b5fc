-- Problem families about things in the world, for games/math.lua; the form of a family is described in
-- problems_number.lua.

local integers = require("integers")
local format, quotient = string.format, integers.quotient

local families = {}

local function add(name, make)
  families[#families + 1] = { name = name, make = make }
end

local function whole(number)
  return format("%d", number)
end

add("counting", function(rng, level)
  if level == 1 then
    local left, right = rng:int(1, 4), rng:int(1, 3)
    return format("How many outfits can be made from %d shirts and %d hats, one of each?", left, right),
      format("ways %d %d", left, right),
      whole(left * right)
  end
  if level == 2 then
    local total, count = rng:int(4, 10), rng:int(2, 3)
    if rng:int(0, 1) == 0 then
      return format("In how many ways can a team of %d be chosen from %d people?", count, total),
        format("choose %d of %d", count, total),
        whole(integers.choose(total, count))
    end
    local ways = 1
    for step = 0, count - 1 do ways = ways * (total - step) end
    return format("In how many ways can the first %d places of a race with %d runners be taken, in order?", count, total),
      format("places %d of %d", count, total),
      whole(ways)
  end
  local women, men = rng:int(4, 9), rng:int(4, 9)
  local first, second = rng:int(1, 3), rng:int(1, 3)
  return format("A committee of %d women and %d men is chosen from %d women and %d men. In how many ways?", first, second, women, men),
    format("choose %d+%d of %d+%d", first, second, women, men),
    whole(integers.choose(women, first) * integers.choose(men, second))
end)

add("probability", function(rng, level)
  if level == 1 then
    local red, blue = rng:int(1, 4), rng:int(1, 4)
    return format("A bag holds %d red and %d blue balls. What is the probability of drawing a red one? Give a fraction in lowest terms.", red, blue),
      format("p red %d of %d+%d", red, red, blue),
      integers.fraction(red, red + blue)
  end
  if level == 2 then
    local sum = rng:int(2, 12)
    return format("Two fair dice with 6 sides are rolled. What is the probability that the sum is %d? Give a fraction in lowest terms.", sum),
      format("p dice sum %d", sum),
      integers.fraction(6 - math.abs(sum - 7), 36)
  end
  local red, blue = rng:int(2, 9), rng:int(1, 9)
  local total = red + blue
  return format(
    "A bag holds %d red and %d blue balls. Two are drawn without putting any back. What is the probability that both are red? Give a fraction in lowest terms.",
    red, blue
  ), format("p 2 red of %d+%d", red, blue), integers.fraction(red * (red - 1), total * (total - 1))
end)

add("sets", function(rng, level)
  if level == 1 then
    -- Each number up to 5 is in the first set, in the second, in both or in neither.
    local left, right, common = {}, {}, 0
    for number = 1, 5 do
      local place = rng:int(0, 3)
      if place == 1 or place == 3 then left[#left + 1] = number end
      if place == 2 or place == 3 then right[#right + 1] = number end
      if place == 3 then common = common + 1 end
    end
    return format("How many numbers are in both sets {%s} and {%s}?", table.concat(left, ", "), table.concat(right, ", ")),
      "{" .. table.concat(left, " ") .. "}&{" .. table.concat(right, " ") .. "}",
      whole(common)
  end
  if level == 2 then
    local both, tea, coffee, neither = rng:int(1, 15), rng:int(1, 20), rng:int(1, 20), rng:int(0, 10)
    local total = both + tea + coffee + neither
    return format(
      "Of %d people, %d drink tea, %d drink coffee and %d drink neither. How many drink both?",
      total, both + tea, both + coffee, neither
    ), format("n=%d A=%d B=%d none=%d A&B?", total, both + tea, both + coffee, neither), whole(both)
  end
  local last, first, second = rng:int(50, 500), rng:int(2, 9), rng:int(2, 9)
  local count = quotient(last, first) + quotient(last, second) - quotient(last, integers.lcm(first, second))
  return format("How many whole numbers from 1 to %d are divisible by %d or by %d (or by both)?", last, first, second),
    format("1..%d by %d or %d", last, first, second),
    whole(count)
end)

-- Right triangles with whole sides; their multiples follow from these.
local TRIANGLES = { { 3, 4, 5 }, { 5, 12, 13 }, { 8, 15, 17 }, { 7, 24, 25 }, { 20, 21, 29 } }

add("geometry", function(rng, level)
  if level == 1 then
    local width, height = rng:int(1, 4), rng:int(1, 3)
    if rng:int(0, 1) == 0 then
      return format("What is the area of a rectangle with sides %d and %d?", width, height),
        format("area %d %d", width, height),
        whole(width * height)
    end
    return format("What is the perimeter of a rectangle with sides %d and %d?", width, height),
      format("perim %d %d", width, height),
      whole(2 * (width + height))
  end
  if level == 2 then
    local sides, times = rng:pick(TRIANGLES), rng:int(1, 4)
    if rng:int(0, 1) == 0 then
      return format("A right triangle has legs %d and %d. How long is the hypotenuse?", sides[1] * times, sides[2] * times),
        format("legs %d %d hyp?", sides[1] * times, sides[2] * times),
        whole(sides[3] * times)
    end
    return format("A right triangle has legs %d and %d. What is its area?", sides[1] * times, sides[2] * times),
      format("legs %d %d area?", sides[1] * times, sides[2] * times),
      whole(quotient(sides[1] * sides[2] * times * times, 2))
  end
  if rng:int(0, 1) == 0 then
    local a, b, c = rng:int(2, 15), rng:int(2, 15), rng:int(2, 15)
    return format("What is the surface area of a box with edges %d, %d and %d?", a, b, c),
      format("surface %d %d %d", a, b, c),
      whole(2 * (a * b + b * c + a * c))
  end
  local corners = rng:int(5, 30)
  return format("How many diagonals does a convex polygon with %d corners have?", corners),
    format("diagonals %d", corners),
    whole(quotient(corners * (corners - 3), 2))
end)

add("ages", function(rng, level)
  if level == 1 then
    local age, gap = rng:int(3, 9), rng:int(1, 3)
    if rng:int(0, 1) == 0 then
      return format("Ann is %d. Ben is %d years older. How old is Ben?", age, gap), format("%dy older %d", age, gap), whole(age + gap)
    end
    return format("Ann is %d. Ben is %d years younger. How old is Ben?", age, gap), format("%dy younger %d", age, gap), whole(age - gap)
  end
  local child, times = rng:int(4, 15), rng:int(2, 5)
  if level == 2 then
    return format("A mother is %d times as old as her child. Together they are %d. How old is the child?", times, child * (times + 1)),
      format("m=%dc m+c=%d c?", times, child * (times + 1)),
      whole(child)
  end
  -- Now `gap` years apart; the parent is twice as old once the child has reached `gap`.
  local gap = child + rng:int(10, 30)
  return format("A father is %d and his daughter is %d. In how many years will he be exactly twice as old as she is?", child + gap, child),
    format("%d %d twice in?", child + gap, child),
    whole(gap - child)
end)

add("rates", function(rng, level)
  if level == 1 then
    local speed, hours = rng:int(1, 4), rng:int(1, 3)
    return format("Somebody walks %d km an hour for %d hours. How many km is that?", speed, hours),
      format("%dkm/h %dh", speed, hours),
      whole(speed * hours)
  end
  if level == 2 then
    local first, second, hours = rng:int(30, 90), rng:int(30, 90), rng:int(2, 8)
    return format(
      "Two trains start %d km apart and travel towards each other at %d and %d km an hour. After how many hours do they meet?",
      (first + second) * hours, first, second
    ), format("%dkm %d+%dkm/h", (first + second) * hours, first, second), whole(hours)
  end
  local first, second = rng:int(2, 20), rng:int(2, 20)
  return format(
    "One pipe fills a tank in %d hours, another in %d hours. How many hours do both take together? Give a fraction in lowest terms if it is not whole.",
    first, second
  ), format("pipes %dh %dh", first, second), integers.fraction(first * second, first + second)
end)

local UNITS = {
  { many = "millimetres", short = "mm", size = 10, one = "centimetres", shorter = "cm" },
  { many = "days", short = "d", size = 7, one = "weeks", shorter = "w" },
  { many = "minutes", short = "min", size = 60, one = "hours", shorter = "h" },
  { many = "hours", short = "h", size = 24, one = "days", shorter = "d" },
  { many = "months", short = "mon", size = 12, one = "years", shorter = "y" },
  { many = "centimetres", short = "cm", size = 100, one = "metres", shorter = "m" },
}

add("units", function(rng, level)
  if level == 1 then
    local unit, count = rng:pick(UNITS), rng:int(1, 9)
    return format("How many %s are %d %s?", unit.one, count * unit.size, unit.many),
      format("%d%s=?%s", count * unit.size, unit.short, unit.shorter),
      whole(count)
  end
  if level == 2 then
    if rng:int(0, 1) == 0 then
      local hours, minutes, seconds = rng:int(1, 9), rng:int(1, 59), rng:int(1, 59)
      return format("How many seconds are %d hours, %d minutes and %d seconds?", hours, minutes, seconds),
        format("%dh %dmin %ds=?s", hours, minutes, seconds),
        whole(hours * 3600 + minutes * 60 + seconds)
    end
    local fives = rng:int(1, 12)
    return format("How many metres a second are %d kilometres an hour?", fives * 18), format("%dkm/h=?m/s", fives * 18), whole(fives * 5)
  end
  if rng:int(0, 1) == 0 then
    local width, height = rng:int(2, 30), rng:int(2, 30)
    return format("A floor of %d m by %d m is covered with square tiles of 20 cm by 20 cm. How many tiles are needed?", width, height),
      format("tiles %dm %dm", width, height),
      whole(width * height * 25)
  end
  local litres, minutes = rng:int(2, 30), rng:int(2, 50)
  return format("A tap gives %d litres a minute. How many cubic centimetres come out in %d minutes?", litres, minutes),
    format("%dl/min %dmin=?cm3", litres, minutes),
    whole(litres * minutes * 1000)
end)

add("clock", function(rng, level)
  if level == 1 then
    local hour, later = rng:int(1, 12), rng:int(1, 11)
    return format("A clock with 12 hours shows %d o'clock. What hour does it show %d hours later?", hour, later),
      format("%dh+%d", hour, later),
      whole((hour + later - 1) % 12 + 1)
  end
  if level == 2 then
    local start = rng:int(0, 20) * 60 + rng:int(0, 59)
    local finish = start + rng:int(15, 179)
    return format(
      "How many minutes pass from %d:%02d to %d:%02d on the same day?",
      quotient(start, 60), start % 60, quotient(finish, 60), finish % 60
    ), format("%d:%02d to %d:%02d", quotient(start, 60), start % 60, quotient(finish, 60), finish % 60), whole(finish - start)
  end
  -- Half degrees: the hour hand moves one a minute, the minute hand twelve.
  local hour, minute = rng:int(1, 12), rng:int(0, 29) * 2
  local apart = math.abs((hour % 12 * 60 + minute) - 12 * minute)
  apart = math.min(apart, 720 - apart)
  return format("What is the smaller angle, in degrees, between the hands of a clock at %d:%02d?", hour, minute),
    format("angle %d:%02d", hour, minute),
    whole(quotient(apart, 2))
end)

local DAYS = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" }
local MONTHS = {
  "January", "February", "March", "April", "May", "June",
  "July", "August", "September", "October", "November", "December",
}
local MONTH_DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

-- Day number within a year of 365 days, from a uniformly drawn date.
local function draw_date(rng)
  local month = rng:int(1, 12)
  local day = rng:int(1, MONTH_DAYS[month])
  local number = day
  for earlier = 1, month - 1 do number = number + MONTH_DAYS[earlier] end
  return number, day, month
end

add("calendar", function(rng, level)
  if level == 1 then
    local day, later = rng:int(1, 7), rng:int(1, 6)
    return format(
      "The days of the week are numbered from 1 (Monday) to 7 (Sunday). Today is day %d. Which number is the day %d days later?",
      day, later
    ), format("day %d+%d", day, later), whole((day + later - 1) % 7 + 1)
  end
  local first, first_day, first_month, second, second_day, second_month
  repeat
    first, first_day, first_month = draw_date(rng)
    second, second_day, second_month = draw_date(rng)
  until first < second
  local from = format("%d %s", first_day, MONTHS[first_month])
  local to = format("%d %s", second_day, MONTHS[second_month])
  if level == 2 then
    return format("How many days is it from %s to %s in a year that is not a leap year?", from, to),
      format("%d.%d to %d.%d days", first_day, first_month, second_day, second_month),
      whole(second - first)
  end
  local weekday = rng:int(1, 7)
  return format(
    "In a year that is not a leap year, %s is a %s. Which day of the week is %s? Answer with its number, from 1 (Monday) to 7 (Sunday).",
    from, DAYS[weekday], to
  ), format("%d.%d=day%d %d.%d=?", first_day, first_month, weekday, second_day, second_month),
    whole((weekday - 1 + second - first) % 7 + 1)
end)

return families
