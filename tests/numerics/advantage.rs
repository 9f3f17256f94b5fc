//! Advantages against the PyTorch values of `data/loss_reference.py` and a plain loop in `f64`, and the properties that
//! make them sound.

use gift_host::advantage::{MIN_STD, group_relative, keep_highest, mean_relative, standard_deviation};
use proptest::prelude::*;
use serde_json::Value;

/// Advantages are `f32` numbers below 4: half a unit in the last place is 1.2e-7.
const TOLERANCE: f64 = 2.5e-7;

#[test]
fn advantages_are_those_of_pytorch() {
    let stored: Value = serde_json::from_str(include_str!("data/loss_reference.json")).unwrap();
    let numbers =
        |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect() };
    for group in stored["groups"].as_array().unwrap() {
        let rewards = numbers(&group["rewards"]);
        assert!((standard_deviation(&rewards) - group["std"].as_f64().unwrap()).abs() < 1e-12);
        for (found, expected) in group_relative(&rewards).into_iter().zip(numbers(&group["advantages"])) {
            assert!((f64::from(found) - expected).abs() < TOLERANCE, "{found} is not {expected} in {rewards:?}");
        }
    }
}

/// Rewards as games give them: a score and some penalties.
fn groups() -> impl Strategy<Value = Vec<f64>> {
    let reward = (prop::sample::select(vec![0.0, 0.5, 1.0]), 0..4_u32).prop_map(|(s, p)| s - 0.1 * f64::from(p));
    prop::collection::vec(reward, 0..17)
}

proptest! {
    #[test]
    fn advantages_are_those_of_a_plain_loop(rewards in groups()) {
        let found = group_relative(&rewards);
        let mut mean = 0.0;
        for reward in &rewards {
            mean += reward / rewards.len() as f64;
        }
        let mut variance = 0.0;
        for reward in &rewards {
            variance += (reward - mean) * (reward - mean) / (rewards.len() - 1) as f64;
        }
        for (reward, found) in rewards.iter().zip(found) {
            let signal = rewards.len() > 1 && variance.sqrt() >= MIN_STD;
            let expected = if signal { (reward - mean) / (variance.sqrt() + 1e-6) } else { 0.0 };
            prop_assert!((f64::from(found) - expected).abs() < TOLERANCE, "{} is not {}", found, expected);
        }
    }

    /// What one trajectory gains in probability the others of its group lose.
    #[test]
    fn advantages_sum_to_zero(rewards in groups()) {
        for advantages in [group_relative(&rewards), mean_relative(&rewards)] {
            let sum: f64 = advantages.iter().map(|&advantage| f64::from(advantage)).sum();
            prop_assert!(sum.abs() < 1e-5, "{sum} from {rewards:?}");
        }
    }

    /// A constant added to every reward (a living cost, say) must not change the update.
    #[test]
    fn advantages_ignore_a_shared_offset(rewards in groups(), offset in -5.0..5.0) {
        let shifted: Vec<f64> = rewards.iter().map(|reward| reward + offset).collect();
        for estimate in [group_relative, mean_relative] {
            for (a, b) in estimate(&rewards).iter().zip(estimate(&shifted)) {
                prop_assert!((a - b).abs() < 1e-6, "{a} became {b} in {rewards:?}");
            }
        }
    }

    /// The reward's unit must not change the update (but for the 1e-6 beside the standard deviation).
    #[test]
    fn normalised_advantages_ignore_a_shared_factor(rewards in groups(), factor in 0.1..10.0) {
        let scaled: Vec<f64> = rewards.iter().map(|reward| reward * factor).collect();
        for (a, b) in group_relative(&rewards).iter().zip(group_relative(&scaled)) {
            prop_assert!((a - b).abs() < 1e-3, "{a} became {b} in {rewards:?}");
        }
    }

    #[test]
    fn advantages_do_not_depend_on_the_order(rewards in groups(), turn in 0..16_usize) {
        prop_assume!(!rewards.is_empty());
        let turn = turn % rewards.len();
        let mut turned = rewards.clone();
        turned.rotate_left(turn);
        let mut expected = group_relative(&rewards);
        expected.rotate_left(turn);
        for (a, b) in expected.iter().zip(group_relative(&turned)) {
            prop_assert!((a - b).abs() < 1e-6, "{a} became {b} in {rewards:?}");
        }
    }

    /// No dropped group has more spread than a kept one, no kept group is without, and the count is the one asked for.
    #[test]
    fn the_filter_keeps_the_highest(
        spreads in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0], 0..20),
        ratio in 0.0..=1.0,
    ) {
        let keep = keep_highest(&spreads, ratio);
        let kept = |wanted: bool| {
            let pairs = spreads.iter().zip(&keep);
            pairs.filter(move |(_, keep)| **keep == wanted).map(|(spread, _)| *spread)
        };
        let lowest = kept(true).fold(f64::INFINITY, f64::min);
        prop_assert!(kept(false).all(|spread| spread <= lowest));
        prop_assert!(kept(true).all(|spread| spread >= MIN_STD));
        let usable = spreads.iter().filter(|spread| **spread >= MIN_STD).count();
        let wanted = ((ratio * spreads.len() as f64 + 1e-9).floor() as usize).max(1);
        prop_assert_eq!(kept(true).count(), wanted.min(usable));
    }
}
