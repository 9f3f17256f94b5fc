use super::*;
use crate::seed::Seed;

fn stage(seat: u32, players: &[&str], scores: &[f64]) -> StageRecord {
    StageRecord {
        game: "g".to_owned(),
        version: String::new(),
        seed: Seed::new(0),
        seat,
        players: players.iter().map(|player| (*player).to_owned()).collect(),
        turns: Vec::new(),
        scores: scores.to_vec(),
        reward: 0.0,
        success: false,
        truncated: false,
        prompt_count: 0,
        sampled_count: 0,
    }
}

fn league(settings: &Settings) -> League {
    let load = |_: &Path| Err(Box::new(Diagnostic::error("test", "no model is read")));
    League::new(settings, Path::new("nowhere"), Box::new(load)).unwrap()
}

#[test]
fn results_are_by_score_and_who_forfeits_loses() {
    assert_eq!(result(&stage(1, &["self", "x"], &[1.0, 0.0]), 1), Some(1.0));
    assert_eq!(result(&stage(2, &["x", "self"], &[1.0, 0.0]), 0), Some(0.0));
    assert_eq!(result(&stage(2, &["x", "self"], &[0.5, 0.5]), 0), Some(0.5));
    let truncated = StageRecord { truncated: true, ..stage(1, &["self", "x"], &[0.0, 0.0]) };
    assert_eq!(result(&truncated, 1), None);
    let turn = |seat| crate::rollout::TurnRecord {
        seat,
        observation: String::new(),
        answer: String::new(),
        action: String::new(),
        legal: false,
        well_formed: true,
        reward: 0.0,
    };
    let forfeited = |seat| StageRecord { turns: vec![turn(seat)], ..stage(1, &["self", "x", "y"], &[0.0; 3]) };
    assert_eq!(
        (result(&forfeited(1), 1), result(&forfeited(2), 1), result(&forfeited(3), 1)),
        (Some(0.0), Some(1.0), None)
    );
}

#[test]
fn members_that_win_are_met_more_often_and_the_self_keeps_its_share() {
    let mut league = league(&Settings { self_share: 0.25, ..Settings::default() });
    for (name, score) in [("random", 0.0), ("search", 9.0)] {
        let played = Played::from([(("g".to_owned(), name.to_owned()), (10, 10.0 - score))]);
        rate(&mut league.state.games, &played, 1.0);
    }
    // (10 + 1) / 12 against random, (1 + 1) / 12 against search.
    assert!((league.weight("g", "random") - (1.0_f64 / 12.0).powi(2)).abs() < 1e-12);
    assert!((league.weight("g", "search") - (10.0_f64 / 12.0).powi(2)).abs() < 1e-12);
    assert!((league.weight("g", "unknown") - 0.25).abs() < 1e-12);
    league.settings.weighting = Weighting::Variance;
    assert!((league.weight("g", "search") - 2.0 / 12.0 * 10.0 / 12.0).abs() < 1e-12);
    let standing = &league.state.games["g"];
    assert!(standing.members["search"].rating.value > standing.learner.value);
    assert!(standing.members["random"].rating.value < standing.learner.value);
}

#[test]
fn rates_forget_and_counts_do_not() {
    let mut games = BTreeMap::new();
    let played = Played::from([(("g".to_owned(), "bot".to_owned()), (8, 8.0))]);
    rate(&mut games, &played, 0.5);
    rate(&mut games, &Played::new(), 0.5);
    let record = games["g"].members["bot"];
    assert_eq!((record.episodes, record.recent, record.score), (8, 4.0, 4.0));
}

#[test]
fn the_least_useful_snapshot_goes_first_and_the_newest_stays() {
    let mut league = league(&Settings { max_snapshots: 2, ..Settings::default() });
    league.state.snapshots = vec![10, 20, 30];
    // The learner always beats 20, never 10, and has not met 30.
    let key = |name: &str| ("g".to_owned(), name.to_owned());
    let played = Played::from([(key("step-000010"), (10, 0.0)), (key("step-000020"), (10, 10.0))]);
    rate(&mut league.state.games, &played, 1.0);
    league.drop_least_useful();
    assert_eq!(league.state.snapshots, [10, 30]);
    assert!(!league.state.games["g"].members.contains_key("step-000020"));
    league.drop_least_useful();
    assert_eq!(league.state.snapshots, [10, 30]);
}

#[test]
fn what_cannot_be_a_fixed_member_is_refused() {
    let load = |_: &Path| Err(Box::new(Diagnostic::error("test", "no model is read")));
    let settings = Settings { fixed: vec!["human".to_owned()], ..Settings::default() };
    let problem = League::new(&settings, Path::new("nowhere"), Box::new(load)).err().unwrap();
    assert!(problem.to_string().contains("cannot be a fixed member"), "{problem}");
}
