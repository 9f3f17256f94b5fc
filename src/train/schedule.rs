//! The learning rate of an update: a linear warm-up over updates times a curve over iterations. A pure function, so a
//! resumed run needs nothing but its counters.

use std::f64::consts::PI;

use crate::config::{Optimizer, Schedule};

/// The learning rate of update `update` (from 1, counted over the run) in `iteration` of `iterations` (from 1):
/// `peak * min(1, update / warmup) * curve`, where `curve` is 1 (constant) or
/// `f + (1 - f) (1 + cos(pi p)) / 2` with `f = final_share` and `p = (iteration - 1) / (iterations - 1)` (cosine, SGDR,
/// arXiv:1608.03983 Eq. 5, without restarts).
///
/// The curve goes by iterations because the number of updates of an iteration depends on how many groups are kept.
pub fn learning_rate(settings: &Optimizer, update: u64, iteration: u64, iterations: u64) -> f64 {
    let warmup = if update < settings.warmup_updates { update as f64 / settings.warmup_updates as f64 } else { 1.0 };
    let curve = match settings.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let last = iterations.saturating_sub(1);
            // A run of one iteration, or one that goes on past its planned end, has no curve or is at its end.
            let done = if last == 0 { 0.0 } else { iteration.saturating_sub(1).min(last) as f64 / last as f64 };
            settings.final_share + (1.0 - settings.final_share) * 0.5 * (1.0 + (PI * done).cos())
        }
    };
    settings.learning_rate * warmup * curve
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn warms_up_over_updates_and_falls_over_iterations() {
        let settings = Optimizer {
            learning_rate: 1.0,
            warmup_updates: 4,
            final_share: 0.1,
            schedule: Schedule::Cosine,
            ..Optimizer::default()
        };
        let rate = |update, iteration| learning_rate(&settings, update, iteration, 101);
        assert_eq!(rate(1, 1), 0.25);
        assert_eq!(rate(4, 1), 1.0);
        assert!((rate(50, 51) - 0.55).abs() < 1e-12, "half-way between 1 and 0.1");
        assert!((rate(50, 101) - 0.1).abs() < 1e-12);
        assert_eq!(rate(50, 101), rate(50, 500), "past the planned end it stays");
        let rates: Vec<f64> = (1..=101).map(|iteration| rate(9, iteration)).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn constant_stays_and_short_runs_are_finite() {
        let constant = Optimizer { schedule: Schedule::Constant, warmup_updates: 0, ..Optimizer::default() };
        assert_eq!(learning_rate(&constant, 1, 77, 100), constant.learning_rate);
        let cosine = Optimizer { warmup_updates: 0, schedule: Schedule::Cosine, ..Optimizer::default() };
        assert_eq!(learning_rate(&cosine, 1, 1, 1), cosine.learning_rate);
        assert_eq!(learning_rate(&cosine, 1, 0, 0), cosine.learning_rate);
    }
}
