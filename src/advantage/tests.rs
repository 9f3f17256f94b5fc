#![expect(clippy::float_cmp, reason = "the expected numbers are exact")]

use super::*;
use crate::rollout::{StageRecord, Trajectory};
use crate::seed::Seed;

fn trajectory(member: usize, reward: f64, stages: &[(&str, &str, u32)]) -> Trajectory {
    let stage = |&(game, version, seat): &(&str, &str, u32)| StageRecord {
        players: Vec::new(),
        game: game.to_owned(),
        version: version.to_owned(),
        seed: Seed::new(1),
        seat,
        turns: Vec::new(),
        scores: Vec::new(),
        reward,
        success: false,
        truncated: false,
        prompt_count: 0,
        sampled_count: 0,
    };
    Trajectory {
        is_further: false,
        id: format!("1-0-{member}"),
        group: 0,
        member,
        stages: stages.iter().map(stage).collect(),
        tokens: Vec::new(),
        targets: Vec::new(),
        log_probs: Vec::new(),
        reward,
        success: false,
        truncated: false,
    }
}

fn group(rewards: &[f64]) -> Group {
    seat_group(rewards, 1)
}

fn seat_group(rewards: &[f64], seat: u32) -> Group {
    let members = rewards.iter().enumerate();
    Group {
        games: vec!["nim".to_owned()],
        trajectories: members.map(|(member, &reward)| trajectory(member, reward, &[("nim", "a", seat)])).collect(),
        ..Group::default()
    }
}

#[test]
fn a_group_of_mixed_versions_is_refused_and_leaves_no_trace() {
    let mut mixed = group(&[0.0, 1.0]);
    mixed.trajectories[1].stages[0].version = "b".to_owned();
    for estimator in [EstimatorKind::MeanStd, EstimatorKind::Mean, EstimatorKind::Role] {
        let mut estimator = build_estimator(&config::Advantage { estimator, ..config::Advantage::default() });
        let error = estimator.advantages(&mixed).unwrap_err();
        assert_eq!(error.to_string(), "a group mixes scripts: `1-0-0` plays `nim@a`, `1-0-1` plays `nim@b`");
        assert_eq!(estimator.state(), EstimatorState::default());
    }
}

#[test]
fn a_member_that_ended_early_does_not_make_a_group_mixed() {
    let mut nested = group(&[0.0, 1.0]);
    nested.trajectories[1] = trajectory(1, 1.0, &[("nim", "a", 1), ("spy", "c", 3)]);
    let mut estimator = RoleBaseline::new(0.9);
    assert!(estimator.advantages(&nested).is_ok());
    assert_eq!(estimator.state().baselines.keys().collect::<Vec<_>>(), ["nim:1 spy:3"]);
}

#[test]
fn a_reward_that_is_not_finite_is_refused() {
    let error = MeanStd.advantages(&group(&[0.0, f64::NAN])).unwrap_err();
    assert_eq!(error.to_string(), "the reward of trajectory `1-0-1` must be finite, found NaN");
}

#[test]
fn one_member_or_equal_rewards_give_zeros() {
    assert_eq!(group_relative(&[]), Vec::<f32>::new());
    assert_eq!(group_relative(&[3.0]), [0.0]);
    assert_eq!(group_relative(&[0.1; 16]), [0.0; 16]);
    assert_eq!(mean_relative(&[0.1; 16]), [0.0; 16]);
    assert_eq!(mean_relative(&[3.0]), [0.0]);
}

#[test]
fn mean_and_spread_are_taken_out() {
    // std over G - 1 of [0, 0, 1, 1] is sqrt(1/3).
    let expected = 0.5 / ((1.0_f64 / 3.0).sqrt() + 1e-6);
    assert_eq!(group_relative(&[0.0, 0.0, 1.0, 1.0])[3], expected as f32);
    assert_eq!(mean_relative(&[0.0, 0.0, 1.0, 1.0]), [-0.5, -0.5, 0.5, 0.5]);
}

#[test]
fn role_baselines_are_kept_apart_by_seat_and_follow_the_rewards() {
    let mut estimator = RoleBaseline::new(0.5);
    // The first group of a role is measured against its own mean.
    assert_eq!(estimator.advantages(&seat_group(&[0.0, 1.0], 1)).unwrap(), [-0.5, 0.5]);
    assert_eq!(estimator.advantages(&seat_group(&[1.0, 1.0], 1)).unwrap(), [0.5, 0.5]);
    // 0.5^2 of the old mean 0.5 and the rest of the new mean 1.
    assert_eq!(estimator.state().baselines["nim:1"], 0.875);
    assert_eq!(estimator.advantages(&seat_group(&[0.0, 0.0], 2)).unwrap(), [0.0, 0.0]);
    assert_eq!(estimator.state().baselines.len(), 2);
}

#[test]
fn role_state_survives_json_and_goes_on_alike() {
    let settings = config::Advantage { estimator: EstimatorKind::Role, ..config::Advantage::default() };
    let mut first = build_estimator(&settings);
    first.advantages(&group(&[0.1, 0.7, 1.0])).unwrap();
    let stored = serde_json::to_string(&first.state()).unwrap();
    let mut second = build_estimator(&settings);
    second.restore(serde_json::from_str(&stored).unwrap());
    let next = group(&[0.3, 0.9, 0.2]);
    assert_eq!(first.advantages(&next), second.advantages(&next));
    assert_eq!(first.state(), second.state());
}

#[test]
fn filter_keeps_the_highest_spreads() {
    assert_eq!(keep_highest(&[0.1, 0.4, 0.2, 0.3], 0.5), [false, true, false, true]);
    assert_eq!(keep_highest(&[0.1, 0.4], 0.25), [false, true], "at least one");
    assert_eq!(keep_highest(&[0.2, 0.2, 0.2, 0.2], 0.5), [true, true, false, false], "ties by order");
    assert_eq!(keep_highest(&[0.0, 0.0, 0.1, f64::NAN], 1.0), [false, false, true, false], "no spread, no signal");
    assert_eq!(keep_highest(&[0.0], 1.0), [false]);
    assert_eq!(keep_highest(&[], 0.25), Vec::<bool>::new());
    let spreads: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(keep_highest(&spreads, 0.29).into_iter().filter(|&kept| kept).count(), 29);
}

#[test]
fn filters_drop_groups_of_fewer_than_two() {
    let groups = [group(&[1.0]), group(&[0.5, 0.5]), group(&[0.0, 1.0]), Group::default()];
    let all = config::Filter { kind: FilterKind::None, ..config::Filter::default() };
    assert_eq!(build_filter(&all).keep(&groups), [false, true, true, false]);
    let highest = config::Filter { ratio: 1.0, ..config::Filter::default() };
    assert_eq!(build_filter(&highest).keep(&groups), [false, false, true, false]);
    let cut = groups.map(|group| Group { is_cut: true, ..group });
    assert_eq!(build_filter(&all).keep(&cut), [false; 4]);
    assert_eq!(build_filter(&highest).keep(&cut), [false; 4]);
}
