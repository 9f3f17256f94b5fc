//! Exact values: fractions of big integers, as long as they stay under [`MAX_BITS`]. Gives none for anything
//! irrational, too large or undefined; [`super::approximate`] then takes over.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Pow, Signed, ToPrimitive, Zero};

use super::expression::{Expression, Function};

/// Largest numerator or denominator in bits: room for `2^{1000}` and `100!`, little enough that a product takes
/// microseconds.
const MAX_BITS: u64 = 1024;

/// Largest decimal exponent and longest run of digits: 10^300 has 997 bits.
const MAX_DIGITS: usize = 300;

/// Largest argument of a factorial: 170! has 1019 bits.
const MAX_FACTORIAL: u32 = 170;

/// Work of an operation that takes many products, in units of [`Point::spend`].
const LARGE: u64 = 64;

/// Where an expression is evaluated: the variables' values and the work that is left.
pub(super) struct Point<'a> {
    pub(super) variables: &'a BTreeMap<String, BigRational>,
    /// Units of work, about a node of the tree each; shared by a whole comparison
    pub(super) fuel: &'a mut u32,
}

impl Point<'_> {
    /// Pays for a step, or stops the evaluation.
    pub(super) fn spend(&mut self, cost: u64) -> Option<()> {
        let left = self.fuel.checked_sub(u32::try_from(cost).ok()?);
        *self.fuel = left.unwrap_or(0);
        left.map(|_| ())
    }
}

/// The number that a token's text writes, exactly: `12`, `.5`, `1.2e-5`, `0.1(36)` with a period.
pub(super) fn decimal(text: &str) -> Option<BigRational> {
    if let Some((start, period)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        // The period once over, less the start, is the value shifted by the period's length, less the value.
        let length = u32::try_from(period.len()).ok()?;
        let once = decimal(&format!("{start}{period}"))?;
        let start = decimal(start)?;
        let shift = BigInt::from(10).pow(length);
        return Some((once * &shift - start) / (shift - 1));
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    if whole.len() + fraction.len() > MAX_DIGITS || exponent.unsigned_abs() > MAX_DIGITS as u64 {
        return None;
    }
    let digits: BigInt = format!("0{whole}{fraction}").parse().ok()?;
    let shift = exponent - i64::try_from(fraction.len()).ok()?;
    let scale = BigInt::from(10).pow(u32::try_from(shift.unsigned_abs()).ok()?);
    let value = if shift < 0 { BigRational::new(digits, scale) } else { BigRational::from_integer(digits * scale) };
    Some(value)
}

/// The value of `expression` at `point` as a fraction, or none.
pub(super) fn evaluate(expression: &Expression, point: &mut Point<'_>) -> Option<BigRational> {
    let value = match expression {
        Expression::Number(value) => value.clone(),
        Expression::Based { digits, base } => based(digits, *base)?,
        Expression::Variable(name) => point.variables.get(name)?.clone(),
        Expression::Negative(inner) => -evaluate(inner, point)?,
        Expression::Degrees(inner) => evaluate(inner, point)?,
        Expression::Percent(inner) => evaluate(inner, point)? / BigInt::from(100),
        Expression::Sum(terms) => {
            let mut sum = BigRational::zero();
            for term in terms {
                sum += evaluate(term, point)?;
                point.spend(bits(&sum) / 8)?;
                sum = bounded(sum)?;
            }
            sum
        }
        Expression::Product(factors) => {
            let mut product = BigRational::one();
            for (factor, divides) in factors {
                let factor = evaluate(factor, point)?;
                if *divides && factor.is_zero() {
                    return None;
                }
                product = if *divides { product / factor } else { product * factor };
                point.spend(bits(&product) / 8)?;
                product = bounded(product)?;
            }
            product
        }
        Expression::Power(base, exponent) => {
            let exponent = evaluate(exponent, point)?;
            let base = evaluate(base, point)?;
            point.spend(LARGE)?;
            power(&base, &exponent)?
        }
        Expression::Root(radicand, index) => {
            let index = evaluate(index, point)?;
            let radicand = evaluate(radicand, point)?;
            point.spend(LARGE)?;
            root(&radicand, &index)?
        }
        Expression::Call(function, argument) => {
            let argument = evaluate(argument, point)?;
            point.spend(LARGE)?;
            call(*function, &argument)?
        }
        Expression::Binomial(upper, lower) => {
            let upper = evaluate(upper, point)?;
            point.spend(LARGE)?;
            binomial(&upper, &evaluate(lower, point)?)?
        }
        _ => return None,
    };
    point.spend(1 + bits(&value) / 8)?;
    bounded(value)
}

/// The value of digits in a base.
pub(super) fn based(digits: &str, base: u32) -> Option<BigRational> {
    let (sign, digits) = digits.strip_prefix('-').map_or((1, digits), |digits| (-1, digits));
    // `from_str_radix` accepts bases 2 to 36 and refuses a digit that the base lacks.
    let value = <BigInt as num_traits::Num>::from_str_radix(digits, base).ok()?;
    Some(BigRational::from_integer(value * sign))
}

fn bits(value: &BigRational) -> u64 {
    value.numer().bits().max(value.denom().bits())
}

fn bounded(value: BigRational) -> Option<BigRational> {
    (bits(&value) <= MAX_BITS).then_some(value)
}

fn power(base: &BigRational, exponent: &BigRational) -> Option<BigRational> {
    if !exponent.is_integer() {
        // 8^{2/3}, if the root is whole
        let index = BigRational::from_integer(exponent.denom().clone());
        let radical = root(base, &index).filter(|_| !base.is_negative())?;
        return power(&radical, &BigRational::from_integer(exponent.numer().clone()));
    }
    let exponent = exponent.to_integer().to_i32()?;
    if base.is_zero() && exponent < 0 {
        return None;
    }
    // 0, 1 and -1 have one bit and any power; for the rest the result's size is known beforehand.
    if bits(base) > 1 && bits(base).checked_mul(u64::from(exponent.unsigned_abs()))? > 2 * MAX_BITS {
        return None;
    }
    Some(Pow::pow(base, exponent))
}

/// The real root if it is a fraction: negative for an odd root of a negative number.
fn root(radicand: &BigRational, index: &BigRational) -> Option<BigRational> {
    let index = index.is_integer().then(|| index.to_integer().to_u32())??;
    if index == 0 || index > 64 || radicand.is_negative() && index.is_multiple_of(2) {
        return None;
    }
    let whole_root = |value: &BigInt| {
        let root = value.nth_root(index);
        (Pow::pow(&root, index) == *value).then_some(root)
    };
    Some(BigRational::new(whole_root(radicand.numer())?, whole_root(radicand.denom())?))
}

fn call(function: Function, argument: &BigRational) -> Option<BigRational> {
    match function {
        Function::Absolute => Some(argument.abs()),
        Function::Floor => Some(argument.floor()),
        Function::Ceiling => Some(argument.ceil()),
        Function::Factorial => {
            let count = argument.is_integer().then(|| argument.to_integer().to_u32())??;
            let factorial = || (1..=count).fold(BigInt::one(), |product, factor| product * factor);
            (count <= MAX_FACTORIAL).then(|| BigRational::from_integer(factorial()))
        }
        _ => None,
    }
}

fn binomial(upper: &BigRational, lower: &BigRational) -> Option<BigRational> {
    let whole = |value: &BigRational| value.is_integer().then(|| value.to_integer().to_u32())?;
    let (upper, lower) = (whole(upper)?, whole(lower)?);
    if upper > 1000 || lower > upper {
        return None;
    }
    let lower = lower.min(upper - lower);
    let step = |product: BigInt, k: u32| product * (upper - k) / (k + 1);
    Some(BigRational::from_integer((0..lower).fold(BigInt::one(), step)))
}
