-- Exact arithmetic on whole numbers, for scripts that set or check number problems. Every result stays a whole number
-- below 2^53, where Lua's numbers are exact; the caller keeps the arguments small enough.

local integers = {}

-- Quotient rounded down.
function integers.quotient(dividend, divisor)
  return math.floor(dividend / divisor)
end

function integers.gcd(left, right)
  left, right = math.abs(left), math.abs(right)
  while right ~= 0 do left, right = right, left % right end
  return left
end

function integers.lcm(left, right)
  return integers.quotient(left, integers.gcd(left, right)) * right
end

-- `base` to a whole power of 0 or more. The operator `^` would go through floating point.
function integers.power(base, exponent)
  local result = 1
  for _ = 1, exponent do result = result * base end
  return result
end

function integers.power_modulo(base, exponent, modulus)
  local result = 1 % modulus
  for _ = 1, exponent do result = result * base % modulus end
  return result
end

function integers.is_prime(number)
  if number < 2 then return false end
  local divisor = 2
  while divisor * divisor <= number do
    if number % divisor == 0 then return false end
    divisor = divisor + 1
  end
  return true
end

-- All divisors in rising order.
function integers.divisors(number)
  local list = {}
  for divisor = 1, number do
    if number % divisor == 0 then list[#list + 1] = divisor end
  end
  return list
end

-- Number of ways to choose `count` of `total`.
function integers.choose(total, count)
  local result = 1
  for step = 1, count do
    result = integers.quotient(result * (total - count + step), step)
  end
  return result
end

-- A fraction in lowest terms as text: "3/4", or "2" when it is whole.
function integers.fraction(numerator, denominator)
  if denominator < 0 then numerator, denominator = -numerator, -denominator end
  local divisor = integers.gcd(numerator, denominator)
  local top, bottom = integers.quotient(numerator, divisor), integers.quotient(denominator, divisor)
  if bottom == 1 then return string.format("%d", top) end
  return string.format("%d/%d", top, bottom)
end

-- Digits of a whole number of 0 or more, most significant first.
function integers.digits(number, base)
  local reversed, list = {}, {}
  repeat
    reversed[#reversed + 1] = number % base
    number = integers.quotient(number, base)
  until number == 0
  for index = #reversed, 1, -1 do list[#list + 1] = reversed[index] end
  return list
end

return integers
