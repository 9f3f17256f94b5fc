-- Problem families with unknowns and rules, for games/math.lua; the form of a family is described in problems_number.lua.

local integers = require("integers")
local format, quotient = string.format, integers.quotient

local families = {}

local function add(name, make)
  families[#families + 1] = { name = name, make = make }
end

local function whole(number)
  return format("%d", number)
end

-- A whole number other than 0 from -most to most.
local function nonzero(rng, most)
  local number = rng:int(1, most)
  return rng:int(0, 1) == 0 and number or -number
end

-- "+ 5" or "- 5", with or without the space.
local function signed(number, gap)
  return (number < 0 and "-" or "+") .. (gap or "") .. whole(math.abs(number))
end

-- "1x" reads as "x".
local function tidy(text)
  return (text:gsub("%f[%d]1x", "x"))
end

add("linear", function(rng, level)
  if level == 1 then
    local factor, solution, offset = rng:int(1, 3), rng:int(0, 9), rng:int(0, 5)
    local left = factor == 1 and "x" or whole(factor) .. "x"
    if factor == 1 or rng:int(0, 1) == 0 then
      return format("Solve for x: %s + %d = %d", left, offset, factor * solution + offset),
        format("%s+%d=%d", left, offset, factor * solution + offset),
        whole(solution)
    end
    return format("Solve for x: %s = %d", left, factor * solution), format("%s=%d", left, factor * solution), whole(solution)
  end
  local factor, solution, offset = rng:int(2, 12), nonzero(rng, 12), nonzero(rng, 20)
  if level == 2 then
    local right = factor * solution + offset
    return format("Solve for x: %dx %s = %d", factor, signed(offset, " "), right),
      format("%dx%s=%d", factor, signed(offset), right),
      whole(solution)
  end
  local other
  repeat -- a factor of 0 would leave nothing on the right
    other = factor + nonzero(rng, 5)
  until other ~= 0
  local right = (factor - other) * solution + offset
  return tidy(format("Solve for x: %dx %s = %dx %s", factor, signed(offset, " "), other, signed(right, " "))),
    tidy(format("%dx%s=%dx%s", factor, signed(offset), other, signed(right))),
    whole(solution)
end)

add("systems", function(rng, level)
  if level == 1 then
    local y = rng:int(0, 4)
    local x = y + rng:int(0, 4)
    return format("x + y = %d and x - y = %d. What is x?", x + y, x - y), format("x+y=%d x-y=%d x?", x + y, x - y), whole(x)
  end
  local x, y = nonzero(rng, 9), nonzero(rng, 9)
  local a, b, c, d
  repeat -- a zero determinant would leave the solution open
    a, b, c, d = rng:int(2, 9), rng:int(2, 9), rng:int(2, 9), rng:int(2, 9)
  until a * d ~= b * c
  local first, second = a * x + b * y, c * x + d * y
  if level == 2 then
    return format("%dx + %dy = %d and %dx + %dy = %d. What is x?", a, b, first, c, d, second),
      format("%dx+%dy=%d %dx+%dy=%d x?", a, b, first, c, d, second),
      whole(x)
  end
  return format("%dx + %dy = %d and %dx + %dy = %d. What is the product x * y?", a, b, first, c, d, second),
    format("%dx+%dy=%d %dx+%dy=%d xy?", a, b, first, c, d, second),
    whole(x * y)
end)

add("sequences", function(rng, level)
  if level == 1 then
    local start, step = rng:int(0, 4), rng:int(1, 3)
    local a, b, c = start, start + step, start + 2 * step
    return format("Which number comes next: %d, %d, %d?", a, b, c), format("%d %d %d ?", a, b, c), whole(start + 3 * step)
  end
  if level == 2 then
    -- Terms with a constant second difference.
    local start, step, growth = rng:int(-5, 10), rng:int(1, 8), rng:int(1, 5)
    local terms = { start }
    for index = 2, 5 do terms[index] = terms[index - 1] + step + growth * (index - 2) end
    return format(
      "The differences between neighbours in a sequence grow by a fixed amount: %d, %d, %d, %d. Which number comes next?",
      terms[1], terms[2], terms[3], terms[4]
    ), format("%d %d %d %d ?", terms[1], terms[2], terms[3], terms[4]), whole(terms[5])
  end
  local start, step, count = rng:int(-10, 20), nonzero(rng, 9), rng:int(10, 40)
  local last = start + (count - 1) * step
  return format("An arithmetic sequence starts with %d, %d. What is the sum of its first %d terms?", start, start + step, count),
    format("sum %d %d.. n=%d", start, start + step, count),
    whole(quotient(count * (start + last), 2))
end)

add("polynomials", function(rng, level)
  if level == 1 then
    local x, offset = rng:int(0, 3), rng:int(0, 5)
    return format("What is the value of x^2 + %d at x = %d?", offset, x), format("x^2+%d x=%d", offset, x), whole(x * x + offset)
  end
  if level == 2 then
    local a, b = nonzero(rng, 12), nonzero(rng, 12)
    return format("Expand (x %s)(x %s). What is the coefficient of x?", signed(a, " "), signed(b, " ")),
      format("(x%s)(x%s) x1?", signed(a), signed(b)),
      whole(a + b)
  end
  local a, b, c, root = nonzero(rng, 6), nonzero(rng, 9), nonzero(rng, 9), nonzero(rng, 5)
  return tidy(format(
    "What is the remainder when x^3 %sx^2 %sx %s is divided by x %s?",
    signed(a, " "), signed(b, " "), signed(c, " "), signed(-root, " ")
  )), tidy(format("x^3%sx^2%sx%s mod x%s", signed(a), signed(b), signed(c), signed(-root))),
    whole(root * root * root + a * root * root + b * root + c)
end)

add("quadratics", function(rng, level)
  if level == 1 then
    local root, offset = rng:int(1, 5), rng:int(0, 3)
    return format("Which positive x solves x^2 + %d = %d?", offset, root * root + offset),
      format("x^2+%d=%d", offset, root * root + offset),
      whole(root)
  end
  local first, second = nonzero(rng, 12), nonzero(rng, 12)
  if level == 2 then
    while first == second or first + second == 0 do -- one solution only, or no term in x
      second = nonzero(rng, 12)
    end
    local minus_sum, product = -(first + second), first * second
    return tidy(format("What is the larger solution of x^2 %sx %s = 0?", signed(minus_sum, " "), signed(product, " "))),
      tidy(format("max x^2%sx%s=0", signed(minus_sum), signed(product))),
      whole(first > second and first or second)
  end
  -- The sum of squares of the roots, which need not be whole themselves: (r + s)^2 - 2rs.
  return tidy(format(
    "What is the sum of the squares of the two solutions of x^2 %sx %s = 0 (complex ones included)?",
    signed(first, " "), signed(second, " ")
  )), tidy(format("x^2%sx%s=0 r^2+s^2", signed(first), signed(second))),
    whole(first * first - 2 * second)
end)

add("inequalities", function(rng, level)
  if level == 1 then
    local bound, offset = rng:int(0, 8), rng:int(0, 6)
    return format("What is the smallest whole number x with x + %d > %d?", offset, bound + offset),
      format("min x+%d>%d", offset, bound + offset),
      whole(bound + 1)
  end
  if level == 2 then
    local factor, offset, bound = rng:int(2, 9), nonzero(rng, 20), rng:int(10, 90)
    return format("What is the smallest whole number x with %dx %s > %d?", factor, signed(offset, " "), bound),
      format("min %dx%s>%d", factor, signed(offset), bound),
      whole(quotient(bound - offset, factor) + 1)
  end
  local factor, centre, width, count = rng:int(2, 5), nonzero(rng, 12), rng:int(3, 40), 0
  for x = -60, 60 do
    if math.abs(factor * x - centre) <= width then count = count + 1 end
  end
  return format("How many whole numbers x (negative ones and zero included) satisfy |%dx %s| <= %d?", factor, signed(-centre, " "), width),
    format("count |%dx%s|<=%d", factor, signed(-centre), width),
    whole(count)
end)

add("ratios", function(rng, level)
  if level == 1 then
    local a, b, times = rng:int(1, 4), rng:int(1, 4), rng:int(1, 3)
    return format("%d : %d = %d : x. What is x?", a, b, a * times), format("%d:%d=%d:?", a, b, a * times), whole(b * times)
  end
  local a, b, unit = rng:int(1, 9), rng:int(1, 9), rng:int(2, 15)
  if level == 2 then
    return format("%d coins are shared in the ratio %d : %d. How many coins is the first share?", (a + b) * unit, a, b),
      format("%d as %d:%d 1st", (a + b) * unit, a, b),
      whole(a * unit)
  end
  local c, d = rng:int(1, 9), rng:int(1, 9)
  return format(
    "x : y = %d : %d and y : z = %d : %d. When x : z is written in lowest terms as p : q, what is p + q?",
    a, b, c, d
  ), format("x:y=%d:%d y:z=%d:%d p+q", a, b, c, d), whole(quotient(a * c + b * d, integers.gcd(a * c, b * d)))
end)

add("averages", function(rng, level)
  if level == 1 then
    local mean = rng:int(2, 8)
    local low, high = rng:int(0, 2), rng:int(0, 2)
    return format("What is the average of %d, %d and %d?", mean - low, mean + high, mean + low - high),
      format("avg %d %d %d", mean - low, mean + high, mean + low - high),
      whole(mean)
  end
  if level == 2 then
    local a, b, c, mean = rng:int(1, 30), rng:int(1, 30), rng:int(1, 30), rng:int(10, 30)
    return format("Four numbers have the average %d. Three of them are %d, %d and %d. What is the fourth?", mean, a, b, c),
      format("avg %d: %d %d %d ?", mean, a, b, c),
      whole(4 * mean - a - b - c)
  end
  local first, second, low, high = rng:int(2, 20), rng:int(2, 20), rng:int(40, 70), rng:int(60, 95)
  return format(
    "A class of %d pupils scores %d on average, another of %d pupils scores %d on average. What is the average of all pupils? Give a fraction in lowest terms if it is not whole.",
    first, low, second, high
  ), format("avg %dx%d %dx%d", first, low, second, high), integers.fraction(first * low + second * high, first + second)
end)

return families
