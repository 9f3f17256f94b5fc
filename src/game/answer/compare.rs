//! Decides whether two readings are the same answer. Collections are in [`super::collections`], relations in
//! [`super::relation`]; here is what is left: units, percent, `\pm`, bases, and numbers and formulas by value.

use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive;

use super::approximate::{self, Approximation};
use super::exact::{self, Point};
use super::expression::Expression;
use super::reading::Text;
use super::{collections, relation};

/// Nodes that may be evaluated in one comparison; large numbers count more. Some 20 ms at
/// most; an ordinary answer takes a thousand.
const FUEL: u32 = 60_000;

/// Points at which formulas are compared. Polynomials that differ agree at a random point with a chance of about
/// degree / 1000 (Schwartz and Zippel), at all of them practically never.
const POINTS: usize = 6;

/// Points at which both formulas must have a value.
const MIN_POINTS: usize = 3;

/// Most variables of a formula.
const MAX_VARIABLES: usize = 12;

/// One comparison and the work that it may still do.
pub(super) struct Comparison {
    fuel: u32,
}

/// A number, as exact as it could be found.
enum Number {
    Exact(BigRational),
    Approximate(Approximation),
}

impl Comparison {
    pub(super) fn new() -> Self {
        Self { fuel: FUEL }
    }

    /// Whether any reading of one text agrees with any reading of the other.
    pub(super) fn readings(&mut self, a: &Text, b: &Text) -> bool {
        a.readings.iter().any(|a| {
            b.readings.iter().any(|b| {
                let units_differ = a.unit.is_some() && b.unit.is_some() && a.unit != b.unit;
                !units_differ && self.same(&a.value, &b.value)
            })
        })
    }

    /// Whether two expressions are the same answer.
    pub(super) fn same(&mut self, a: &Expression, b: &Expression) -> bool {
        if self.fuel == 0 {
            return false;
        }
        self.fuel -= 1;
        if a == b {
            return true;
        }
        match (a, b) {
            (Expression::Relation { .. }, Expression::Relation { .. }) => return self.relations(a, b),
            (Expression::Relation { .. }, other) | (other, Expression::Relation { .. }) => {
                let relation = if matches!(a, Expression::Relation { .. }) { a } else { b };
                return relation::solution(relation).is_some_and(|value| self.same(&value, other));
            }
            (Expression::Variable(a), Expression::Variable(b)) => return a.eq_ignore_ascii_case(b),
            _ => {}
        }
        if let Some(same) = self.percentages(a, b) {
            return same;
        }
        let (two_of_a, two_of_b) = (both_signs(a), both_signs(b));
        if two_of_a.is_some() || two_of_b.is_some() {
            return self.same(two_of_a.as_ref().unwrap_or(a), two_of_b.as_ref().unwrap_or(b));
        }
        if let Some(same) = self.collections(a, b) {
            return same;
        }
        match (a, b) {
            (Expression::Based { digits, .. }, Expression::Number(value))
            | (Expression::Number(value), Expression::Based { digits, .. }) => {
                return value.is_integer() && value.to_string() == *digits;
            }
            _ => {}
        }
        self.same_values(a, b)
    }

    fn relations(&mut self, a: &Expression, b: &Expression) -> bool {
        if let (Some(x), Some(y)) = (relation::subject(a), relation::subject(b))
            && x == y
            && let (Some(a), Some(b)) = (relation::solution(a), relation::solution(b))
            && self.same(&a, &b)
        {
            return true;
        }
        match (relation::normal_form(a), relation::normal_form(b)) {
            (Some((x, a)), Some((y, b))) => x == y && self.proportional(&a, &b, matches!(x, '<' | '≤')),
            _ => false,
        }
    }

    /// The verdict if exactly one side is a percentage: 50 % is 50 or one half.
    fn percentages(&mut self, a: &Expression, b: &Expression) -> Option<bool> {
        match (percentage(a), percentage(b)) {
            (Some(a), Some(b)) => Some(self.same(&a, &b)),
            (Some(count), None) if !collections::is_collection(b) => {
                Some(self.same(&count, b) || self.same_values(a, b))
            }
            (None, Some(count)) if !collections::is_collection(a) => {
                Some(self.same(a, &count) || self.same_values(a, b))
            }
            _ => None,
        }
    }

    /// Whether two formulas have the same value at every point where both have one.
    fn same_values(&mut self, a: &Expression, b: &Expression) -> bool {
        let Some((points, needed)) = points(a, b) else { return false };
        let mut agreements = 0;
        for variables in points {
            match (self.value(a, &variables), self.value(b, &variables)) {
                (Some(a), Some(b)) if !same_number(&a, &b) => return false,
                (Some(_), Some(_)) => agreements += 1,
                _ => {}
            }
        }
        agreements >= needed
    }

    /// Whether one formula is the other times a constant, positive if the direction matters.
    fn proportional(&mut self, a: &Expression, b: &Expression, is_directed: bool) -> bool {
        let Some((points, needed)) = points(a, b) else { return false };
        let mut first: Option<(Approximation, Approximation)> = None;
        let mut agreements = 0;
        for variables in points {
            let (Some(a), Some(b)) = (self.value(a, &variables), self.value(b, &variables)) else { continue };
            let (Some(a), Some(b)) = (a.approximate(), b.approximate()) else { continue };
            if a.is_zero() != b.is_zero() {
                return false;
            }
            if a.is_zero() {
                continue;
            }
            let (x, y) = *first.get_or_insert((a, b));
            let (Some(left), Some(right)) = (a.times(y), x.times(b)) else { continue };
            if !left.is_close(right) || is_directed && a.real_part() * b.real_part() < 0.0 {
                return false;
            }
            agreements += 1;
        }
        agreements >= needed
    }

    fn value(&mut self, expression: &Expression, variables: &BTreeMap<String, BigRational>) -> Option<Number> {
        let mut point = Point { variables, fuel: &mut self.fuel };
        if let Some(value) = exact::evaluate(expression, &mut point) {
            return Some(Number::Exact(value));
        }
        approximate::evaluate(expression, &mut point).map(Number::Approximate)
    }
}

impl Number {
    fn approximate(&self) -> Option<Approximation> {
        match self {
            Self::Exact(value) => Approximation::real(value.to_f64()?),
            Self::Approximate(value) => Some(*value),
        }
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    if let (Number::Exact(a), Number::Exact(b)) = (a, b) {
        return a == b;
    }
    match (a.approximate(), b.approximate()) {
        (Some(a), Some(b)) => a.is_close(b),
        _ => false,
    }
}

/// The number before the percent sign.
fn percentage(expression: &Expression) -> Option<Expression> {
    match expression {
        Expression::Percent(count) => Some((**count).clone()),
        Expression::Negative(inner) => match inner.as_ref() {
            Expression::Percent(count) => Some(Expression::Negative(count.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// An expression with `\pm` as the list of its two values. Within a collection or relation, each item is for itself.
fn both_signs(expression: &Expression) -> Option<Expression> {
    let is_sign = |part: &Expression| matches!(part, Expression::Sign { .. });
    if collections::is_collection(expression) && !matches!(expression, Expression::List(_)) {
        return None;
    }
    if !expression.contains(&is_sign) {
        return None;
    }
    if let Expression::List(items) = expression {
        let items = items.iter().flat_map(|item| match both_signs(item) {
            Some(Expression::List(two)) => two,
            _ => vec![item.clone()],
        });
        let items: Vec<_> = items.collect();
        // A sign deeper down, as in a tuple of the list, stays; giving the list again would not end.
        let is_open = items.iter().any(|item| item.contains(&is_sign));
        return (!is_open).then_some(Expression::List(items));
    }
    let two = vec![with_sign(expression, 1), with_sign(expression, -1)];
    let is_open = two.iter().any(|value| value.contains(&is_sign));
    (!is_open).then_some(Expression::List(two))
}

fn with_sign(expression: &Expression, sign: i64) -> Expression {
    let inner = |part: &Expression| Box::new(with_sign(part, sign));
    let all = |parts: &[Expression]| parts.iter().map(|part| with_sign(part, sign)).collect();
    match expression {
        Expression::Sign { is_opposite } => Expression::whole(if *is_opposite { -sign } else { sign }),
        Expression::Negative(part) => Expression::Negative(inner(part)),
        Expression::Call(function, part) => Expression::Call(*function, inner(part)),
        Expression::Degrees(part) => Expression::Degrees(inner(part)),
        Expression::Percent(part) => Expression::Percent(inner(part)),
        Expression::Power(a, b) => Expression::Power(inner(a), inner(b)),
        Expression::Root(a, b) => Expression::Root(inner(a), inner(b)),
        Expression::Logarithm(a, b) => Expression::Logarithm(inner(a), inner(b)),
        Expression::Binomial(a, b) => Expression::Binomial(inner(a), inner(b)),
        Expression::Sum(terms) => Expression::Sum(all(terms)),
        Expression::Product(factors) => {
            let factors = factors.iter().map(|(factor, divides)| (with_sign(factor, sign), *divides));
            Expression::Product(factors.collect())
        }
        other => other.clone(),
    }
}

/// Values for the variables of both formulas, and how many points must be defined; none if there are too many.
fn points(a: &Expression, b: &Expression) -> Option<(Vec<BTreeMap<String, BigRational>>, usize)> {
    let mut names = BTreeSet::new();
    a.collect_variables(&mut names);
    b.collect_variables(&mut names);
    if names.is_empty() {
        return Some((vec![BTreeMap::new()], 1));
    }
    if names.len() > MAX_VARIABLES {
        return None;
    }
    let point = |k: usize| names.iter().enumerate().map(move |(j, name)| (name.clone(), sample(j, k))).collect();
    Some(((0..POINTS).map(point).collect(), MIN_POINTS))
}

/// A fixed fraction between 1/2 and 4 for variable `j` at point `k`. Positive, as answers with roots and logarithms
/// assume, but for every second variable at the last point, which tells `x` from `|x|`.
fn sample(j: usize, k: usize) -> BigRational {
    let numerator = BigInt::from((j * 389 + k * 631 + j * k * 97 + 211) % 1009 + 150);
    let value = BigRational::new(numerator, BigInt::from(293));
    if k + 1 == POINTS && j.is_multiple_of(2) { -value } else { value }
}
