//! Groups that are cut short because the filter has decided about them: what is trained on is the same to the bit.

use std::collections::BTreeMap;

use gift_host::policy::NamedTensor;
use gift_host::rollout::Trajectory;
use gift_host::run::IterationReport;

use super::support::{Lab, catalog, config, iterate, pool, start, weights};

/// In a group of the first kind both answers end the episode, with different scores; in the others one ends it and the other goes
/// on for a while, and all score alike.
const GAME: &str = r#"
local game = { name = "walk", seats = 1, max_turns = 8 }
function game.init(rng, options) return { kind = rng:int(1, 3), turn = 0, score = 1, done = false } end
function game.to_act(state) if state.done then return nil end return 1 end
function game.observe(state, seat) return "Stop (a) or go on (b)? " .. state.kind .. state.turn end
function game.brief(state, seat) return "w" .. state.kind .. state.turn end
function game.actions(state, seat) return { "a", "b" } end
function game.apply(state, seat, action)
  if action ~= "a" and action ~= "b" then gift.illegal("a or b") end
  state.turn += 1
  state.done = action == "a" or state.kind == 1 or state.turn == 8
  if state.kind == 1 and action == "b" then state.score = 0 end
  return state
end
function game.outcome(state) return { scores = { state.score }, success = { state.score == 1 } } end
return game
"#;

/// Groups of which one in four is kept.
const SETTINGS: [&str; 3] = ["rollout.groups=8", "rollout.group_size=6", "filter.ratio=0.25"];

fn iterations(threads: usize, more: &[&str]) -> (Vec<IterationReport>, Vec<NamedTensor>) {
    let lab = Lab::new();
    let games = [lab.write("games/walk.lua", GAME)];
    pool(threads).install(|| {
        let mut run = start(config(&[&SETTINGS[..], more].concat()), catalog(&games, None, None));
        let reports = (0..6).map(|_| iterate(&mut run)).collect();
        (reports, weights(&run))
    })
}

/// The trajectories that were trained on, by group.
fn kept(report: &IterationReport) -> BTreeMap<usize, Vec<Trajectory>> {
    let kept = report.groups.iter().enumerate().filter(|(_, scored)| scored.kept);
    kept.map(|(index, scored)| (index, scored.group.trajectories.clone())).collect()
}

const CUT: [&str; 2] = ["filter.cut=true", "filter.reward_range=[0.0, 1.0]"];

#[test]
fn what_is_kept_is_the_same_to_the_bit() {
    let (whole, expected) = iterations(2, &[]);
    let (cut, found) = iterations(2, &CUT);
    assert!(expected == found, "the weights differ");
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!(kept(whole), kept(cut));
        assert_eq!(cut.figures["groups/kept"], whole.figures["groups/kept"]);
        assert!(cut.problems.is_empty(), "{:?}", cut.problems);
    }
    let count = |reports: &[IterationReport]| -> usize {
        reports.iter().flat_map(|report| &report.groups).map(|scored| scored.group.trajectories.len()).sum()
    };
    assert!(count(&cut) < count(&whole), "nothing was cut");
    let is_told = |report: &IterationReport| {
        let groups = report.groups.iter().filter(|scored| scored.group.is_cut).count();
        report.figures.get("groups/cut").copied().unwrap_or_default() == groups as f64
    };
    assert!(cut.iter().all(is_told) && whole.iter().all(is_told));
}

#[test]
fn threads_change_nothing_of_what_is_cut() {
    let all = |(reports, weights): (Vec<IterationReport>, Vec<NamedTensor>)| {
        let groups = |report: IterationReport| {
            let groups = report.groups.into_iter().map(|scored| (scored.group, scored.advantages, scored.kept));
            (report.figures, groups.collect::<Vec<_>>())
        };
        (reports.into_iter().map(groups).collect::<Vec<_>>(), weights)
    };
    let one = all(iterations(1, &CUT));
    assert!(one.0.iter().flat_map(|(_, groups)| groups).any(|(group, ..)| group.is_cut), "nothing was cut");
    for threads in [1, 3] {
        assert!(one == all(iterations(threads, &CUT)), "{threads} threads");
    }
}

#[test]
fn a_reward_outside_of_the_range_is_told() {
    let (reports, _) = iterations(1, &["filter.cut=true", "filter.reward_range=[0.0, 0.5]"]);
    let told = |report: &IterationReport| report.problems.iter().any(|problem| problem.code == "run::reward_range");
    let is_outside = |report: &IterationReport| {
        let mut all = report.groups.iter().flat_map(|scored| &scored.group.trajectories);
        all.any(|trajectory| !(0.0..=0.5).contains(&trajectory.reward))
    };
    assert!(reports.iter().all(|report| told(report) == is_outside(report)) && reports.iter().any(told));
}

/// Seats that the policy takes beside the planned ones are groups that the filter ranks as well.
#[test]
fn self_play_is_not_cut() {
    let two = GAME.replace("seats = 1", "seats = 2").replace("{ state.score }", "{ state.score, 0 }");
    let two = two.replace("{ state.score == 1 }", "{ state.score == 1, false }");
    let count = |opponent: &str| {
        let lab = Lab::new();
        let games = [lab.write("games/walk.lua", &two)];
        let mut run =
            start(config(&[&SETTINGS[..], &CUT, &["seat=1", opponent]].concat()), catalog(&games, None, None));
        let reports: Vec<_> = (0..6).map(|_| iterate(&mut run)).collect();
        reports.iter().flat_map(|report| &report.groups).filter(|scored| scored.group.is_cut).count()
    };
    assert!(count("opponent=random") > 0);
    assert_eq!(count("opponent=self"), 0);
}
