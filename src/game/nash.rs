//! Finds the Nash equilibria of a two-player matrix game, for scripts (`gift.nash`) and for the matrix games'
//! definition of success. Pure arithmetic: no scripts, no state, no randomness. It is not a general solver: on a
//! degenerate game it lists the equilibria that support enumeration sees, not the continua between them.
//!
//! The method is Algorithm 3.4 of Nisan, Roughgarden, Tardos and Vazirani, *Algorithmic Game Theory* (2007), in the
//! form of nashpy's `Game.support_enumeration()`, whose order and results the GIFT reference code relies on ("the last
//! equilibrium listed"). Supports go by size, then lexicographically; for each row support, each column support; a
//! pair yields at most one equilibrium: the strategies that make the other player indifferent over its support, if
//! they are unique, positive on their own support and leave no better reply. nashpy visits pairs of unequal size too,
//! but their equations are not square, its solver refuses them, and so they never yield anything; they are left
//! out here.
//!
//! Departure: nashpy works in `f64`, so rounding decides what it lists. It loses an equilibrium when a strategy outside
//! the support comes out of its solver as -1e-18 instead of 0 (94 of the 626 games in
//! `tests/numerics/data/nash_games.json`), and with linearly dependent payoffs it lists one too many or too few (2 of
//! them). Here the arithmetic is exact (integers, fraction-free elimination after Bareiss, 1968), on payoffs rounded to
//! 15 digits of the largest one, so that noise such as `0.1 + 0.2` breaks no tie. The results agree wherever rounding
//! does not decide.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, CheckedSub, Signed, ToPrimitive};

/// Most rows and most columns of a matrix: 8 by 8 has 12 869 pairs of supports, and each more strategy quadruples them.
pub const MAX_STRATEGIES: usize = 8;

/// Significant decimal digits of the largest payoff that count: what an `f64` always holds.
const PAYOFF_DIGITS: usize = 15;

/// A strategy must be played with more than this to be in the support: nashpy's default tolerance.
const MIN_PROBABILITY: f64 = 1e-16;

/// One equilibrium: a probability for each strategy of either player.
#[derive(Debug, Clone, PartialEq)]
pub struct Equilibrium {
    /// How often the row player plays each row
    pub row: Vec<f64>,
    /// How often the column player plays each column
    pub column: Vec<f64>,
}

/// Why a pair of payoff matrices is no game that [`equilibria`] takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NashError {
    /// A matrix has no row, or a first row without entries
    #[error("the {player} player's payoff matrix is empty, expected at least 1 row and 1 column")]
    Empty {
        /// `row` or `column`
        player: &'static str,
    },
    /// The rows of one matrix differ in length
    #[error("row {row} of the {player} player's payoff matrix has {found} entries, expected {expected}")]
    Ragged {
        /// `row` or `column`
        player: &'static str,
        /// Number of the odd row, from 1
        row: usize,
        /// Entries of the first row
        expected: usize,
        /// Entries of this row
        found: usize,
    },
    /// The two matrices differ in shape
    #[error(
        "the payoff matrices differ: {rows}x{columns} for the row player, {other_rows}x{other_columns} for the column player"
    )]
    Mismatch {
        /// Rows of the row player's matrix
        rows: usize,
        /// Columns of the row player's matrix
        columns: usize,
        /// Rows of the column player's matrix
        other_rows: usize,
        /// Columns of the column player's matrix
        other_columns: usize,
    },
    /// A matrix is larger than [`MAX_STRATEGIES`]
    #[error("the game is {rows}x{columns}, expected at most {MAX_STRATEGIES}x{MAX_STRATEGIES}")]
    TooLarge {
        /// Rows found
        rows: usize,
        /// Columns found
        columns: usize,
    },
    /// A payoff is infinite or not a number
    #[error("payoff [{row}][{column}] of the {player} player is not finite")]
    NotFinite {
        /// `row` or `column`
        player: &'static str,
        /// Row of the payoff, from 1
        row: usize,
        /// Column of the payoff, from 1
        column: usize,
    },
}

/// All equilibria that support enumeration finds, in nashpy's order.
///
/// `row[i][j]` and `column[i][j]` are the payoffs of the two players when the row player plays `i` and the column
/// player `j`. A game of one row and one column has one equilibrium; a degenerate game may have any number listed,
/// even none (its equilibria may all lie on supports of unequal size).
///
/// # Errors
/// [`NashError`] for matrices that are empty, ragged, of different shapes, larger than [`MAX_STRATEGIES`] on a side,
/// or with a payoff that is not finite.
pub fn equilibria(row: &[Vec<f64>], column: &[Vec<f64>]) -> Result<Vec<Equilibrium>, NashError> {
    check_shapes(row, column)?;
    let own = whole_payoffs(row);
    let other = transposed(&whole_payoffs(column));
    let (rows, columns) = (own.len(), other.len());
    let mut found = Vec::new();
    for row_support in supports(rows) {
        for column_support in supports(columns) {
            if row_support.len() != column_support.len() {
                continue;
            }
            if is_dominated(&own, &row_support, &column_support) || is_dominated(&other, &column_support, &row_support)
            {
                continue;
            }
            let Some(row_play) = mixture(&other, &column_support, &row_support, rows) else {
                continue;
            };
            let Some(column_play) = mixture(&own, &row_support, &column_support, columns) else {
                continue;
            };
            found.push(Equilibrium { row: row_play, column: column_play });
        }
    }
    Ok(found)
}

fn check_shapes(row: &[Vec<f64>], column: &[Vec<f64>]) -> Result<(), NashError> {
    for (player, matrix) in [("row", row), ("column", column)] {
        let width = matrix.first().map_or(0, Vec::len);
        if width == 0 {
            return Err(NashError::Empty { player });
        }
        if matrix.len() > MAX_STRATEGIES || width > MAX_STRATEGIES {
            return Err(NashError::TooLarge { rows: matrix.len(), columns: width });
        }
        for (i, line) in matrix.iter().enumerate() {
            if line.len() != width {
                let (expected, found) = (width, line.len());
                return Err(NashError::Ragged { player, row: i + 1, expected, found });
            }
            if let Some(j) = line.iter().position(|payoff| !payoff.is_finite()) {
                return Err(NashError::NotFinite { player, row: i + 1, column: j + 1 });
            }
        }
    }
    let width = |matrix: &[Vec<f64>]| matrix.first().map_or(0, Vec::len);
    if row.len() != column.len() || width(row) != width(column) {
        return Err(NashError::Mismatch {
            rows: row.len(),
            columns: width(row),
            other_rows: column.len(),
            other_columns: width(column),
        });
    }
    Ok(())
}

/// The payoffs as whole numbers with one common factor removed, which changes no equilibrium.
///
/// The unit is the last of the [`PAYOFF_DIGITS`] digits of the largest payoff. Digits come from decimal formatting,
/// which is correctly rounded and the same on every platform, so `0.1` is one tenth and not its binary neighbour.
fn whole_payoffs(matrix: &[Vec<f64>]) -> Vec<Vec<i64>> {
    let digits = |payoff: f64| -> (i64, i32) {
        let text = format!("{payoff:.*e}", PAYOFF_DIGITS - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or(("0", "0"));
        let mantissa = mantissa.replace('.', "").parse().unwrap_or(0);
        (mantissa, exponent.parse().unwrap_or(0))
    };
    let is_exact = |payoff: &f64| payoff.fract() == 0.0 && payoff.abs() < 10_f64.powi(PAYOFF_DIGITS as i32);
    if matrix.iter().flatten().all(is_exact) {
        // Whole numbers, as most games have, only get zeros at their end by what follows.
        return reduced(matrix.iter().map(|line| line.iter().map(|&payoff| payoff as i64).collect()).collect());
    }
    let nonzero = matrix.iter().flatten().filter(|payoff| **payoff != 0.0);
    let largest = nonzero.map(|&payoff| digits(payoff).1).max().unwrap_or(0);
    let whole = |payoff: f64| -> i64 {
        let (mantissa, exponent) = digits(payoff);
        let drop = u32::try_from(largest - exponent).unwrap_or(0);
        if mantissa == 0 || drop > 17 {
            return 0;
        }
        let unit = 10_i64.pow(drop);
        (mantissa + mantissa.signum() * (unit / 2)) / unit
    };
    reduced(matrix.iter().map(|line| line.iter().map(|&payoff| whole(payoff)).collect()).collect())
}

/// The numbers without their common factor.
fn reduced(whole: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
    let divisor = whole.iter().flatten().fold(0, |divisor, &value| gcd(divisor, value.abs())).max(1);
    whole.into_iter().map(|line| line.into_iter().map(|value| value / divisor).collect()).collect()
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn transposed(matrix: &[Vec<i64>]) -> Vec<Vec<i64>> {
    let width = matrix.first().map_or(0, Vec::len);
    (0..width).map(|j| matrix.iter().map(|line| line[j]).collect()).collect()
}

/// The non-empty sets of strategies below `count`, by size and then lexicographically.
fn supports(count: usize) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> =
        (1_u32..1 << count).map(|bits| (0..count).filter(|i| bits >> i & 1 == 1).collect()).collect();
    sets.sort_by(|a: &Vec<usize>, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    sets
}

/// Whether a strategy of `support` is worse than some other strategy against each reply: then no equilibrium has it.
///
/// Only saves time: such a pair would fail the best-reply test of [`mixture`] (Porter, Nudelman and Shoham, *Simple
/// search methods for finding a Nash equilibrium*, 2008).
fn is_dominated(payoffs: &[Vec<i64>], support: &[usize], replies: &[usize]) -> bool {
    support.iter().any(|&i| payoffs.iter().any(|other| replies.iter().all(|&j| other[j] > payoffs[i][j])))
}

/// The opponent's probabilities over all its `count` strategies, supported on `columns`, that make a player with these
/// `payoffs` indifferent over `rows` and leave it no better reply; none if there is no such or no unique mixture.
fn mixture(payoffs: &[Vec<i64>], rows: &[usize], columns: &[usize], count: usize) -> Option<Vec<f64>> {
    /// Up to here a float holds each whole number, so that a quotient of two is rounded once.
    const MAX_EXACT: i128 = 1 << 53;
    // Small payoffs, which is nearly all, fit 128 bits; where a product does not, the same steps run on big integers.
    let weights = match weights::<i128>(payoffs, rows, columns) {
        Ok(weights) => {
            let weights = weights?;
            // They are positive.
            let total = weights.iter().try_fold(0_i128, |total, weight| total.checked_add(*weight));
            if let Some(total) = total.filter(|total| *total <= MAX_EXACT) {
                let shares = weights.iter().map(|&weight| weight as f64 / total as f64);
                return spread(columns, shares, count);
            }
            weights.into_iter().map(BigInt::from).collect()
        }
        Err(Overflow) => weights::<BigInt>(payoffs, rows, columns).ok()??,
    };
    let total: BigInt = weights.iter().sum();
    let shares = weights.into_iter().map(|weight| BigRational::new(weight, total.clone()).to_f64());
    spread(columns, shares.collect::<Option<Vec<f64>>>()?, count)
}

/// The probabilities of `columns` among those of all `count` strategies; none if one is too small.
fn spread(columns: &[usize], shares: impl IntoIterator<Item = f64>, count: usize) -> Option<Vec<f64>> {
    let mut probabilities = vec![0.0; count];
    for (&j, probability) in columns.iter().zip(shares) {
        if probability <= MIN_PROBABILITY {
            return None;
        }
        probabilities[j] = probability;
    }
    Some(probabilities)
}

/// A number left the range of its type.
struct Overflow;

/// What elimination needs; `i128` says when it overflows and `BigInt` never does.
trait Whole: Clone + From<i64> + Signed + PartialOrd + CheckedAdd + CheckedSub + CheckedMul + CheckedDiv {}
impl Whole for i128 {}
impl Whole for BigInt {}

/// Positive weights over `columns`, proportional to the mixture that [`mixture`] describes.
fn weights<T: Whole>(payoffs: &[Vec<i64>], rows: &[usize], columns: &[usize]) -> Result<Option<Vec<T>>, Overflow> {
    let number = |value: i64| T::from(value);
    let Some((&first, others)) = rows.split_first() else { return Ok(None) };
    // Equal payoffs: (A[i] - A[first]) . q = 0 for the other rows; and the probabilities add up to 1.
    let mut system: Vec<Vec<T>> = Vec::with_capacity(rows.len());
    for &i in others {
        let differences = columns.iter().map(|&j| number(payoffs[i][j] - payoffs[first][j]));
        system.push(differences.chain([T::zero()]).collect());
    }
    system.push(vec![T::one(); columns.len() + 1]);
    let Some(weights) = solve(system)? else { return Ok(None) };
    if weights.iter().any(|weight| !weight.is_positive()) {
        return Ok(None);
    }
    let value = |line: &[i64]| -> Result<T, Overflow> {
        columns.iter().zip(&weights).try_fold(T::zero(), |sum, (&j, weight)| {
            let term = number(line[j]).checked_mul(weight).ok_or(Overflow)?;
            sum.checked_add(&term).ok_or(Overflow)
        })
    };
    let on_support = value(&payoffs[first])?;
    for line in payoffs {
        if value(line)? > on_support {
            return Ok(None);
        }
    }
    Ok(Some(weights))
}

/// The solution of a square system times its determinant, signed so that the determinant is positive; none if singular.
///
/// Fraction-free Gauss-Jordan elimination (Bareiss, *Sylvester's identity and multistep integer-preserving Gaussian
/// elimination*, 1968): each step's division by the pivot before is exact, so entries stay minors of the input.
fn solve<T: Whole>(mut system: Vec<Vec<T>>) -> Result<Option<Vec<T>>, Overflow> {
    let size = system.len();
    let mut previous = T::one();
    for step in 0..size {
        let Some(pivot) = (step..size).find(|&i| !system[i][step].is_zero()) else {
            return Ok(None);
        };
        system.swap(step, pivot);
        let pivot_line = system[step].clone();
        for (i, line) in system.iter_mut().enumerate() {
            if i == step {
                continue;
            }
            let factor = line[step].clone();
            for (entry, above) in line.iter_mut().zip(&pivot_line) {
                let kept = pivot_line[step].checked_mul(entry).ok_or(Overflow)?;
                let removed = factor.checked_mul(above).ok_or(Overflow)?;
                let difference = kept.checked_sub(&removed).ok_or(Overflow)?;
                *entry = difference.checked_div(&previous).ok_or(Overflow)?;
            }
        }
        previous = pivot_line[step].clone();
    }
    let sign = previous.signum();
    let column = |line: Vec<T>| line.into_iter().next_back().map(|value| value * sign.clone());
    Ok(system.into_iter().map(column).collect())
}
