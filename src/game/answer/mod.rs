//! Decides whether an answer to a mathematics problem is the reference answer in another spelling. Scripts call it as
//! `gift.math_equal`, and the reward of formal tasks rests on it. Pure text and arithmetic; it is a grader, not an
//! algebra system: it compares values and never solves or integrates.
//!
//! Either text is read as LaTeX or as plain typing (`lexer`, `parser`), units and delimiters aside (`reading`),
//! and the two results are compared (`compare`): constants as exact fractions where possible (`exact`) and as
//! complex doubles otherwise (`approximate`), formulas at fixed points, collections item by item. Text that is no
//! mathematics is compared as words, ignoring case. No crate fits: of the LaTeX parsers, mathlex 0.4 comes nearest,
//! and it refuses `\dfrac`, `\frac12`, `\sqrt2`, `\%`, `\$`, `^\circ`, `\left`, `10,000` and `(1,2]`.
//!
//! Decisions where graders differ:
//! - A decimal is the number it writes: `0.333` is not `1/3` and `3.14` is not `\pi`. Only where a root, `\pi`, `e` or
//!   a function is involved does a relative tolerance of 1e-9 apply.
//! - `50%` equals `50` and `1/2` (answers to "what percent" come in either form); `50` does not equal `1/2`.
//! - A unit may be missing on one side; two known units must agree (`5 cm` is not `5 m`).
//! - `{1, 2}` and the bare list `1, 2` are order-free, `(1, 2)` is not; a bare list equals the tuple in its order.
//! - `x = 5` equals `5`; `x > 5` equals `(5, \infty)`; `3 \pm 1` equals `2, 4`; equations are equal if proportional.
//! - `1011_2` equals `102_3` by value, and beside a number without a base its digits count: `1011`, not `11`.
//!
//! Every step is bounded ([`MAX_LENGTH`] bytes, nesting, size of numbers, evaluated nodes); beyond a bound, texts are
//! equal only if they are the same text. The relation is reflexive and symmetric, but not transitive (percent, units).
mod approximate; // complex doubles with an error bound
mod boxed; // \boxed{…}
mod collections; // sets, lists, intervals, matrices
mod compare; // when two readings agree
mod exact; // fractions
mod expression; // what a text means
mod lexer; // text to tokens
mod parser; // tokens to expressions
mod reading; // the ways to read one text
mod relation; // equations and inequalities
mod units; // centimetres, dollars, degrees

pub use boxed::extract_boxed;

/// Longest text in bytes that is read as mathematics; the longest reference of MATH has under 200.
pub const MAX_LENGTH: usize = 1000;

/// Whether `given` and `reference` are the same answer.
///
/// The outermost `\boxed{…}` and `$…$` may be there or not on either side. See the module header for what counts as
/// the same. Takes any text, in bounded time.
///
/// ```
/// use gift_host::game::answer::math_equal;
/// assert!(math_equal("0.5", r"\dfrac{1}{2}"));
/// assert!(!math_equal("0.333", r"\frac13"));
/// ```
pub fn math_equal(given: &str, reference: &str) -> bool {
    let (given, reference) = (given.trim(), reference.trim());
    if given == reference {
        return true;
    }
    if given.len() > MAX_LENGTH || reference.len() > MAX_LENGTH {
        return false;
    }
    // One fixed order, so that the answer cannot depend on which side a text is on, even where a bound cuts in.
    let (first, second) = if given < reference { (given, reference) } else { (reference, given) };
    let (first, second) = (reading::Text::read(first), reading::Text::read(second));
    first.is_same_wording(&second) || compare::Comparison::new().readings(&first, &second)
}
