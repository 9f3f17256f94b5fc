//! Elo's scale with uncertainty: ratings from results, as in Glicko. Pure arithmetic.

use serde::{Deserialize, Serialize};

/// `ln(10) / 400`: the scale on which 400 points are odds of ten to one.
const SCALE: f64 = std::f64::consts::LN_10 / 400.0;
/// Where a rating is looked for, in points from the old one.
const REACH: f64 = 4000.0;

/// The strength of a player: a normal distribution on Elo's scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    /// The mean, in points; only differences mean something.
    pub value: f64,
    /// The standard deviation, in points. 1.96 of them to both sides are a 95 % interval.
    pub deviation: f64,
}

impl Default for Rating {
    /// A player of whom nothing is known: Glicko's 1500 and 350.
    fn default() -> Self {
        Self { value: 1500.0, deviation: 350.0 }
    }
}

/// What a player reached against one opponent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Results {
    /// The opponent's rating before.
    pub opponent: Rating,
    /// Episodes.
    pub episodes: f64,
    /// Wins, and a half for each draw.
    pub score: f64,
}

impl Rating {
    /// After some time without results, in which the player may have changed: `sqrt(deviation² + drift²)`, at most that of
    /// an unknown player (Glicko, step 1).
    #[must_use]
    pub fn drifted(self, drift: f64) -> Self {
        Self { deviation: self.deviation.hypot(drift).min(Self::default().deviation), ..self }
    }

    /// After these results.
    ///
    /// The model is Glicko's (Glickman, Parameter estimation in large dynamic paired comparison experiments, 1999): the
    /// expected score against an opponent is `E(x) = 1 / (1 + 10^(-g (x - r) / 400))` with
    /// `g = 1 / sqrt(1 + 3 q² RD² / π²)`, `q = ln(10) / 400`. Departure: Glicko takes one Newton step from the old rating,
    /// which overshoots with hundreds of results a period; here the most probable rating is found exactly. The deviation is
    /// Glicko's, taken there: `1 / sqrt(1 / RD² + q² Σ n g² E (1 - E))`.
    #[must_use]
    pub fn after(self, results: &[Results]) -> Self {
        let precision = self.deviation.powi(-2);
        let damping = |opponent: Self| {
            let spread = SCALE * opponent.deviation / std::f64::consts::PI;
            1.0 / (1.0 + 3.0 * spread * spread).sqrt()
        };
        let expected =
            |value: f64, opponent: Self| 1.0 / (1.0 + (-SCALE * damping(opponent) * (value - opponent.value)).exp());
        // The slope of the log-probability falls everywhere, so it has one zero.
        let slope = |value: f64| {
            let pull =
                |one: &Results| damping(one.opponent) * (one.score - one.episodes * expected(value, one.opponent));
            (self.value - value) * precision + SCALE * results.iter().map(pull).sum::<f64>()
        };
        let (mut low, mut high) = (self.value - REACH, self.value + REACH);
        for _ in 0..64 {
            let middle = f64::midpoint(low, high);
            if slope(middle) > 0.0 { low = middle } else { high = middle }
        }
        let value = f64::midpoint(low, high);
        let information = |one: &Results| {
            let (g, e) = (damping(one.opponent), expected(value, one.opponent));
            one.episodes * g * g * e * (1.0 - e)
        };
        let gained = SCALE * SCALE * results.iter().map(information).sum::<f64>();
        Self { value, deviation: (precision + gained).sqrt().recip() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(value: f64, deviation: f64, episodes: f64, score: f64) -> Results {
        Results { opponent: Rating { value, deviation }, episodes, score }
    }

    /// The example of Glickman's description of the system: 1464 and 151.4 by one Newton step; the mode lies near.
    #[test]
    fn agrees_with_the_published_example() {
        let own = Rating { value: 1500.0, deviation: 200.0 };
        let after = own.after(&[
            results(1400.0, 30.0, 1.0, 1.0),
            results(1550.0, 100.0, 1.0, 0.0),
            results(1700.0, 300.0, 1.0, 0.0),
        ]);
        assert!((after.value - 1464.0).abs() < 2.0 && (after.deviation - 151.4).abs() < 1.0, "{after:?}");
    }

    #[test]
    fn many_results_give_the_odds_and_lopsided_ones_stay_finite() {
        let fixed = |score| Rating::default().after(&[results(1500.0, 0.0, 10_000.0, score)]);
        // Ten to one is 400 points, even is none.
        assert!((fixed(10_000.0 * 10.0 / 11.0).value - 1900.0).abs() < 2.0);
        assert!((fixed(5_000.0).value - 1500.0).abs() < 1e-6 && fixed(5_000.0).deviation < 4.0);
        let won = fixed(10_000.0);
        assert!((2200.0..3200.0).contains(&won.value) && won.deviation.is_finite(), "{won:?}");
        // An upset where a Newton step would leave the scale.
        let upset = Rating { value: 500.0, deviation: 50.0 }.after(&[results(2500.0, 50.0, 500.0, 500.0)]);
        assert!((500.0..4500.0).contains(&upset.value), "{upset:?}");
    }

    #[test]
    fn without_results_nothing_changes_but_by_drift() {
        let own = Rating { value: 1600.0, deviation: 40.0 };
        let after = own.after(&[]);
        assert!((after.value - own.value).abs() < 1e-9 && (after.deviation - 40.0).abs() < 1e-9);
        assert!((own.drifted(30.0).deviation - 50.0).abs() < 1e-9);
        assert!(own.drifted(1e6).deviation <= 350.0);
    }
}
