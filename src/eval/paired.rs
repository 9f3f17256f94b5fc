//! Two players on the same episodes: who succeeded where the other did not, and how likely a difference of that size is
//! if both are equally good.

use serde::Serialize;

use super::SuccessRate;

/// Two players in one game, over the episodes that both played to an end. The difference is tested with the exact form of
/// `McNemar`'s test ([`mcnemar`]), which looks only at episodes with different results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The game.
    pub game: String,
    /// Episodes that both played.
    pub episodes: usize,
    /// Episodes in which both succeeded.
    pub both: usize,
    /// Those in which only the player did.
    pub only_player: usize,
    /// Those in which only the baseline did.
    pub only_baseline: usize,
    /// Those in which neither did.
    pub neither: usize,
    /// Success of the player less that of the baseline, over these episodes.
    pub difference: f64,
    /// The two-sided p-value.
    pub p_value: f64,
}

/// Compares a player with a baseline that was put through the same match, game by game.
pub fn compare(player: &[SuccessRate], baseline: &[SuccessRate]) -> Vec<Comparison> {
    player.iter().filter_map(|rate| Some(compare_game(rate, baseline.iter().find(|b| b.game == rate.game)?))).collect()
}

fn compare_game(player: &SuccessRate, baseline: &SuccessRate) -> Comparison {
    let success_in = |episode: usize| {
        let place = baseline.results.binary_search_by_key(&episode, |result| result.episode).ok()?;
        Some(baseline.results[place].success)
    };
    let pairs: Vec<(bool, bool)> =
        player.results.iter().filter_map(|result| Some((result.success, success_in(result.episode)?))).collect();
    let count = |pair: (bool, bool)| pairs.iter().filter(|other| **other == pair).count();
    let (only_player, only_baseline) = (count((true, false)), count((false, true)));
    Comparison {
        game: player.game.clone(),
        episodes: pairs.len(),
        both: count((true, true)),
        only_player,
        only_baseline,
        neither: count((false, false)),
        difference: (only_player as f64 - only_baseline as f64) / pairs.len().max(1) as f64,
        p_value: mcnemar(only_player, only_baseline),
    }
}

/// The two-sided p-value of the exact `McNemar` test: with `b` episodes that only one player won and `c` that only the
/// other did, `p = min(1, 2 P(X <= min(b, c)))` for `X` binomial with `n = b + c` trials of probability 1/2. 1 if they
/// never differ.
///
/// `McNemar` (1947), in the exact, conditional form of Fagerland, Lydersen and Laake, "The `McNemar` test for binary matched-pairs
/// data", BMC Medical Research Methodology 13:91 (2013), equation 6.
pub fn mcnemar(b: usize, c: usize) -> f64 {
    let (n, k) = ((b + c) as f64, b.min(c));
    if b == c {
        return 1.0;
    }
    // Terms of the sum by their logarithms: 2^-n is too small for a float from n = 1075 on. log C(n, i) is summed upwards.
    let mut log_binomial = 0.0;
    let mut terms = vec![-n * std::f64::consts::LN_2];
    for i in 1..=k {
        log_binomial += ((n - i as f64 + 1.0) / i as f64).ln();
        terms.push(log_binomial - n * std::f64::consts::LN_2);
    }
    (2.0 * terms.into_iter().map(f64::exp).sum::<f64>()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{EpisodeResult, Rates};

    fn rate(game: &str, wins: &[(usize, bool)]) -> SuccessRate {
        let result = |&(episode, success)| EpisodeResult { episode, seat: 1, success, ..EpisodeResult::default() };
        let results: Vec<EpisodeResult> = wins.iter().map(result).collect();
        SuccessRate {
            game: game.to_owned(),
            opponent: "none".to_owned(),
            rates: Rates::of(&results),
            voided: 0,
            seats: Vec::new(),
            results,
            problem: None,
        }
    }

    #[test]
    fn episodes_are_paired_by_number_and_lost_ones_left_out() {
        let player = rate("nim", &[(0, true), (1, true), (2, false), (4, true), (5, false)]);
        let baseline = rate("nim", &[(0, true), (1, false), (2, true), (3, true), (4, false), (5, false)]);
        let other = rate("math", &[(0, true)]);
        let all = compare(&[player, other], &[baseline]);
        let expected = Comparison {
            game: "nim".to_owned(),
            episodes: 5,
            both: 1,
            only_player: 2,
            only_baseline: 1,
            neither: 1,
            difference: 0.2,
            p_value: 1.0,
        };
        assert_eq!(all, [expected]);
    }

    #[test]
    fn many_different_episodes_do_not_underflow() {
        let p = mcnemar(20_000, 21_000);
        assert!((7e-7..9e-7).contains(&p), "{p}");
        assert!(mcnemar(0, 5_000) < 1e-300);
        assert_eq!((mcnemar(0, 0), mcnemar(3, 3), mcnemar(4, 3), mcnemar(0, 1)), (1.0, 1.0, 1.0, 1.0));
        assert_eq!(mcnemar(2, 9), mcnemar(9, 2));
    }
}
