//! Compares things of several parts: sets, lists, tuples, intervals, unions, matrices. The parts themselves go back
//! to [`super::compare`].

use super::compare::Comparison;
use super::expression::Expression;

/// Most items that are matched in any order; longer collections are compared in their order.
const MAX_MATCHED: usize = 64;

impl Comparison {
    /// Whether two expressions, at least one of which is a collection, are the same; none if neither is.
    pub(super) fn collections(&mut self, a: &Expression, b: &Expression) -> Option<bool> {
        use Expression::{Bracketed, Joined, List, Matrix, Set};
        Some(match (a, b) {
            (Set(a), Set(b) | List(b)) | (List(a), Set(b)) => self.same_set(a, b),
            (Joined { operator: x, items: a }, Joined { operator: y, items: b }) => {
                x == y && self.same_in_any_order(a, b)
            }
            // `x < 1 or x > 3` beside `(-\infty, 1) \cup (3, \infty)`
            (List(a), List(b) | Joined { operator: '∪', items: b }) | (Joined { operator: '∪', items: a }, List(b)) => {
                self.same_in_any_order(a, b)
            }
            (Bracketed { open: o, close: c, items: a }, Bracketed { open, close, items: b }) => {
                o == open && c == close && self.same_in_order(a, b)
            }
            (List(a), Bracketed { open: '(', close: ')', items: b })
            | (Bracketed { open: '(', close: ')', items: a }, List(b)) => self.same_in_order(a, b),
            (Matrix(a), Matrix(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same_in_order(a, b)),
            // The set of one solution and the solution
            (Set(items), other) | (other, Set(items)) if items.len() == 1 && !is_collection(other) => {
                self.same(&items[0], other)
            }
            _ if is_collection(a) || is_collection(b) => false,
            _ => return None,
        })
    }

    fn same_in_order(&mut self, a: &[Expression], b: &[Expression]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
    }

    /// Mutual inclusion: how often an item is listed does not matter.
    fn same_set(&mut self, a: &[Expression], b: &[Expression]) -> bool {
        if a.len().max(b.len()) > MAX_MATCHED {
            return self.same_in_order(a, b);
        }
        a.iter().all(|item| b.iter().any(|other| self.same(item, other)))
            && b.iter().all(|item| a.iter().any(|other| self.same(item, other)))
    }

    /// A perfect matching of equal items by augmenting paths: equality is not transitive (percent), so taking the
    /// first equal partner could miss one.
    fn same_in_any_order(&mut self, a: &[Expression], b: &[Expression]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        if a.len() > MAX_MATCHED {
            return self.same_in_order(a, b);
        }
        let partners: Vec<Vec<usize>> =
            a.iter().map(|item| (0..b.len()).filter(|&j| self.same(item, &b[j])).collect()).collect();
        let mut taken_by = vec![None; b.len()];
        (0..a.len()).all(|item| assign(item, &partners, &mut taken_by, &mut vec![false; b.len()]))
    }
}

fn assign(item: usize, partners: &[Vec<usize>], taken_by: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for &partner in &partners[item] {
        if std::mem::replace(&mut tried[partner], true) {
            continue;
        }
        let is_free = match taken_by[partner] {
            None => true,
            Some(other) => assign(other, partners, taken_by, tried),
        };
        if is_free {
            taken_by[partner] = Some(item);
            return true;
        }
    }
    false
}

pub(super) fn is_collection(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::List(_)
            | Expression::Bracketed { .. }
            | Expression::Set(_)
            | Expression::Joined { .. }
            | Expression::Matrix(_)
    )
}
