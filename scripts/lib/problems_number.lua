-- Problem families about plain numbers, for games/math.lua.
--
-- A family is a name and a function (rng, level) that returns question, brief, answer: the question in words, the same
-- in the shortest notation, and the answer as text. Level 1 keeps numbers so small that a model which starts from
-- nothing can find answers by trial; level 3 takes several steps.

local integers = require("integers")
local format, quotient = string.format, integers.quotient

local families = {}

local function add(name, make)
  families[#families + 1] = { name = name, make = make }
end

local function whole(number)
  return format("%d", number)
end

add("arithmetic", function(rng, level)
  if level == 1 then
    local left, right = rng:int(0, 9), rng:int(0, 9)
    if rng:int(0, 1) == 0 then
      return format("What is %d + %d?", left, right), format("%d+%d=", left, right), whole(left + right)
    end
    left, right = math.max(left, right), math.min(left, right)
    return format("What is %d - %d?", left, right), format("%d-%d=", left, right), whole(left - right)
  end
  if level == 2 then
    local a, b, c = rng:int(2, 12), rng:int(2, 12), rng:int(1, 50)
    return format("What is %d * %d + %d?", a, b, c), format("%d*%d+%d=", a, b, c), whole(a * b + c)
  end
  local a, b, c, d, e = rng:int(3, 40), rng:int(3, 40), rng:int(2, 15), rng:int(2, 20), rng:int(2, 20)
  return format("What is (%d + %d) * %d - %d * %d?", a, b, c, d, e),
    format("(%d+%d)*%d-%d*%d=", a, b, c, d, e),
    whole((a + b) * c - d * e)
end)

add("fractions", function(rng, level)
  if level == 1 then
    local below = rng:int(2, 5)
    local above, times = rng:int(1, below - 1), rng:int(1, 3)
    return format("What is %d/%d of %d?", above, below, below * times),
      format("%d/%d*%d=", above, below, below * times),
      whole(above * times)
  end
  local a, b, c, d = rng:int(1, 9), rng:int(2, 9), rng:int(1, 9), rng:int(2, 9)
  if level == 2 then
    return format("Add %d/%d and %d/%d. Give the sum as a fraction in lowest terms.", a, b, c, d),
      format("%d/%d+%d/%d=", a, b, c, d),
      integers.fraction(a * d + c * b, b * d)
  end
  local e, f = rng:int(1, 9), rng:int(2, 9)
  return format("Work out (%d/%d) * (%d/%d) - %d/%d. Give the result as a fraction in lowest terms.", a, b, c, d, e, f),
    format("%d/%d*%d/%d-%d/%d=", a, b, c, d, e, f),
    integers.fraction(a * c * f - e * b * d, b * d * f)
end)

add("percentages", function(rng, level)
  if level == 1 then
    local percent = rng:pick({ 10, 20, 25, 50, 100 })
    local parts = quotient(100, percent)
    local result = rng:int(1, 9)
    return format("What is %d%% of %d?", percent, parts * result), format("%d%% of %d", percent, parts * result), whole(result)
  end
  if level == 2 then
    local percent, hundreds = rng:int(1, 19) * 5, rng:int(1, 40) * 20
    return format("What is %d%% of %d?", percent, hundreds),
      format("%d%% of %d", percent, hundreds),
      whole(quotient(percent * hundreds, 100))
  end
  local up, down, price = rng:int(1, 9) * 10, rng:int(1, 9) * 10, rng:int(1, 30) * 100
  return format("A price of %d rises by %d%% and then falls by %d%%. What is the final price?", price, up, down),
    format("%d +%d%% -%d%%", price, up, down),
    whole(quotient(price * (100 + up) * (100 - down), 10000))
end)

add("powers", function(rng, level)
  if level == 1 then
    local base, exponent = rng:int(1, 4), rng:int(0, 2)
    if base == 2 then exponent = rng:int(0, 3) end
    return format("What is %d^%d?", base, exponent), format("%d^%d=", base, exponent), whole(integers.power(base, exponent))
  end
  local base = rng:int(2, 9)
  local first, second = rng:int(2, 9), rng:int(2, 9)
  if level == 2 then
    return format("%d^%d * %d^%d = %d^n. What is n?", base, first, base, second, base),
      format("%d^%d*%d^%d=%d^?", base, first, base, second, base),
      whole(first + second)
  end
  local third = rng:int(1, 12)
  return format("(%d^%d)^%d / %d^%d = %d^n. What is n?", base, first, second, base, third, base),
    format("(%d^%d)^%d/%d^%d=%d^?", base, first, second, base, third, base),
    whole(first * second - third)
end)

add("roots", function(rng, level)
  if level == 1 then
    local root = rng:int(0, 9)
    return format("What is the square root of %d?", root * root), format("sqrt %d", root * root), whole(root)
  end
  if level == 2 then
    local root = rng:int(2, 12)
    return format("What is the cube root of %d?", root * root * root), format("cbrt %d", root * root * root), whole(root)
  end
  -- The number under the root has no square factor, so the form a*sqrt(b) is unique.
  local outside, inside = rng:int(2, 12), rng:pick({ 2, 3, 5, 6, 7, 10, 11, 13, 14, 15 })
  return format(
    "The square root of %d equals a times the square root of b, where a and b are whole numbers and b is as small as possible. What is a + b?",
    outside * outside * inside
  ), format("sqrt %d=a sqrt b a+b", outside * outside * inside), whole(outside + inside)
end)

add("gcd", function(rng, level)
  if level == 1 then
    local common = rng:int(1, 6)
    local left, right = common * rng:int(1, 4), common * rng:int(1, 4)
    return format("What is the greatest common divisor of %d and %d?", left, right),
      format("gcd %d %d", left, right),
      whole(integers.gcd(left, right))
  end
  local common = rng:int(2, 30)
  local left, right, last = common * rng:int(2, 20), common * rng:int(2, 20), common * rng:int(2, 20)
  if level == 2 then
    return format("What is the greatest common divisor of %d and %d?", left, right),
      format("gcd %d %d", left, right),
      whole(integers.gcd(left, right))
  end
  return format("What is the greatest common divisor of %d, %d and %d?", left, right, last),
    format("gcd %d %d %d", left, right, last),
    whole(integers.gcd(integers.gcd(left, right), last))
end)

add("lcm", function(rng, level)
  local most = level == 1 and 4 or level == 2 and 15 or 12
  local left, right = rng:int(level, most), rng:int(level, most)
  if level < 3 then
    return format("What is the least common multiple of %d and %d?", left, right),
      format("lcm %d %d", left, right),
      whole(integers.lcm(left, right))
  end
  local last = rng:int(level, most)
  return format("What is the least common multiple of %d, %d and %d?", left, right, last),
    format("lcm %d %d %d", left, right, last),
    whole(integers.lcm(integers.lcm(left, right), last))
end)

add("primes", function(rng, level)
  if level == 1 then
    local start = rng:int(1, 12)
    local prime = start + 1
    while not integers.is_prime(prime) do prime = prime + 1 end
    return format("What is the smallest prime greater than %d?", start), format("prime>%d", start), whole(prime)
  end
  if level == 2 then
    local low = rng:int(2, 40)
    local high = low + rng:int(5, 30)
    local count = 0
    for number = low, high do
      if integers.is_prime(number) then count = count + 1 end
    end
    return format("How many primes are there from %d to %d (both included)?", low, high),
      format("primes %d..%d", low, high),
      whole(count)
  end
  local number = rng:int(60, 999)
  local rest, largest, divisor = number, 1, 2
  while rest > 1 do
    if rest % divisor == 0 then
      largest, rest = divisor, quotient(rest, divisor)
    else
      divisor = divisor + 1
    end
  end
  return format("What is the largest prime factor of %d?", number), format("maxprime %d", number), whole(largest)
end)

add("divisors", function(rng, level)
  if level == 1 then
    local number = rng:int(2, 16)
    return format("How many positive divisors does %d have?", number),
      format("divs %d", number),
      whole(#integers.divisors(number))
  end
  if level == 2 then
    local number, sum = rng:int(10, 99), 0
    for _, divisor in ipairs(integers.divisors(number)) do sum = sum + divisor end
    return format("What is the sum of all positive divisors of %d?", number), format("sumdivs %d", number), whole(sum)
  end
  local number, zeros, five = rng:int(20, 300), 0, 5
  while five <= number do
    zeros, five = zeros + quotient(number, five), five * 5
  end
  return format("How many zeros does %d! (the factorial) end with?", number), format("zeros %d!", number), whole(zeros)
end)

add("modular", function(rng, level)
  if level == 1 then
    local number, modulus = rng:int(1, 20), rng:int(2, 6)
    return format("What is the remainder of %d divided by %d?", number, modulus),
      format("%d%%%d=", number, modulus),
      whole(number % modulus)
  end
  local base, other, modulus = rng:int(3, 30), rng:int(3, 30), rng:int(5, 13)
  if level == 2 then
    return format("What is the remainder of %d * %d divided by %d?", base, other, modulus),
      format("%d*%d%%%d=", base, other, modulus),
      whole(base * other % modulus)
  end
  return format("What is the remainder of %d^%d divided by %d?", base, other, modulus),
    format("%d^%d%%%d=", base, other, modulus),
    whole(integers.power_modulo(base, other, modulus))
end)

add("digits", function(rng, level)
  if level == 1 then
    local number = rng:int(1, 5) * 10 + rng:int(0, 5)
    return format("What is the sum of the digits of %d?", number),
      format("digits %d", number),
      whole(quotient(number, 10) + number % 10)
  end
  if level == 2 then
    local tens, ones = rng:int(2, 9), 0
    ones = rng:int(1, tens - 1)
    local number, reversed = tens * 10 + ones, ones * 10 + tens
    return format("Reverse the digits of %d and subtract the result from %d. What remains?", number, number),
      format("%d-rev=", number),
      whole(number - reversed)
  end
  local digit, last, count = rng:int(1, 9), rng:int(30, 400), 0
  for number = 1, last do
    for _, entry in ipairs(integers.digits(number, 10)) do
      if entry == digit then count = count + 1 end
    end
  end
  return format("How many times is the digit %d written when all whole numbers from 1 to %d are written down?", digit, last),
    format("digit %d in 1..%d", digit, last),
    whole(count)
end)

add("bases", function(rng, level)
  if level == 1 then
    local number = rng:int(1, 12)
    local binary = table.concat(integers.digits(number, 2))
    return format("The binary number %s is which decimal number?", binary), format("bin %s", binary), whole(number)
  end
  local base = rng:int(3, 9)
  local number = rng:int(10, level == 2 and 120 or 900)
  local text = table.concat(integers.digits(number, base))
  if level == 2 then
    return format("The number %s in base %d is which decimal number?", text, base), format("%s b%d", text, base), whole(number)
  end
  return format("Write the decimal number %d in base %d.", number, base), format("%d to b%d", number, base), text
end)

return families
