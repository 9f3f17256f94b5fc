//! Equations and inequalities as answers: `x = 5` for `5`, `x > 5` for an interval, `y - 2x = 3` for `y = 2x + 3`.
//! Solves nothing: two relations agree if one is the other times a number.

use super::expression::Expression;

/// What a relation amounts to when the other answer is no relation: the value of `x = value` or `x \in value`, or the
/// interval of an inequality in one unknown.
pub(super) fn solution(relation: &Expression) -> Option<Expression> {
    let Expression::Relation { sides, operators } = relation else { return None };
    let (first, last) = (sides.first()?, sides.last()?);
    if operators.iter().all(|operator| *operator == '=') {
        // The last side of `x = 2 + 3 = 5`; a name on the right only, as in `5 = x`, gives the left side.
        return match (is_name(first), is_name(last)) {
            (true, _) => Some(last.clone()),
            (false, true) => Some(first.clone()),
            (false, false) => None,
        };
    }
    if operators == &['∈'] && is_name(first) {
        return Some(last.clone());
    }
    interval(sides, operators)
}

/// The name that an equation or inequality gives a value to.
pub(super) fn subject(relation: &Expression) -> Option<&Expression> {
    let Expression::Relation { sides, .. } = relation else { return None };
    match sides.as_slice() {
        [_, middle, _] if is_name(middle) => Some(middle),
        [first, ..] if is_name(first) => Some(first),
        [.., last] if is_name(last) => Some(last),
        _ => None,
    }
}

/// Both sides of a relation with one operator, turned so that the operator is `=`, `≠`, `<` or `≤`.
pub(super) fn normal_form(relation: &Expression) -> Option<(char, Expression)> {
    let Expression::Relation { sides, operators } = relation else { return None };
    let ([left, right], [operator]) = (sides.as_slice(), operators.as_slice()) else { return None };
    let (operator, left, right) = match operator {
        '>' => ('<', right, left),
        '≥' => ('≤', right, left),
        '∈' => return None,
        other => (*other, left, right),
    };
    let difference = vec![left.clone(), Expression::Negative(Box::new(right.clone()))];
    Some((operator, Expression::Sum(difference)))
}

/// A variable, a word, or a function's value such as `f(x)`.
fn is_name(expression: &Expression) -> bool {
    match expression {
        Expression::Variable(_) | Expression::Word(_) => true,
        Expression::Product(factors) => match factors.as_slice() {
            [(Expression::Variable(name), false), (argument, false)] => {
                let is_function = matches!(name.as_str(), "f" | "g" | "h" | "p" | "q" | "F" | "G" | "P" | "Q");
                let is_variable = matches!(argument, Expression::Variable(_));
                is_function && (is_variable || matches!(argument, Expression::Bracketed { .. }))
            }
            _ => false,
        },
        _ => false,
    }
}

fn interval(sides: &[Expression], operators: &[char]) -> Option<Expression> {
    let between = |low: Expression, opens: bool, high: Expression, closes: bool| {
        let open = if opens { '[' } else { '(' };
        let close = if closes { ']' } else { ')' };
        Expression::Bracketed { open, close, items: vec![low, high] }
    };
    let above = |low: &Expression, is_closed| between(low.clone(), is_closed, Expression::Infinity, false);
    let below = |high: &Expression, is_closed| {
        between(Expression::Negative(Box::new(Expression::Infinity)), false, high.clone(), is_closed)
    };
    match (sides, operators) {
        ([name, bound], [operator]) if is_name(name) => match operator {
            '<' | '≤' => Some(below(bound, *operator == '≤')),
            '>' | '≥' => Some(above(bound, *operator == '≥')),
            '≠' => {
                let items = vec![below(bound, false), above(bound, false)];
                Some(Expression::Joined { operator: '∪', items })
            }
            _ => None,
        },
        ([bound, name], [operator]) if is_name(name) => match operator {
            '<' | '≤' => Some(above(bound, *operator == '≤')),
            '>' | '≥' => Some(below(bound, *operator == '≥')),
            _ => None,
        },
        ([first, name, last], [left, right]) if is_name(name) => match (left, right) {
            ('<' | '≤', '<' | '≤') => Some(between(first.clone(), *left == '≤', last.clone(), *right == '≤')),
            ('>' | '≥', '>' | '≥') => Some(between(last.clone(), *right == '≥', first.clone(), *left == '≥')),
            _ => None,
        },
        _ => None,
    }
}
