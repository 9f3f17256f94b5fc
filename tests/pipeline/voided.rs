//! Episodes that a fault of a script ends: they leave their group and are counted, never rewarded 0, and a version that
//! keeps failing is replaced by the last good one.
#![expect(clippy::float_cmp, reason = "the counts and rewards here are whole numbers")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use gift_host::game::{GameDef, RewardScript, ScriptHost};
use gift_host::reload::read_source;
use gift_host::rollout::Culprit;
use gift_host::run::{Error, IterationReport};
use gift_host::script::{HostFunction, Library, Limits, Value};

use super::support::{ECHO, Lab, config, game, host, iterate, pool, start, unchecked};

/// A game that raises an error in `apply` where `condition` holds (of `state.digit` and `action`).
fn failing(condition: &str) -> String {
    ECHO.replace(
        "  state.done, state.right",
        &format!("  if {condition} then error(\"boom\") end\n  state.done, state.right"),
    )
}

/// No share of lost episodes is too much.
const TOLERANT: &[&str] = &["scripts.max_voided_share=1.0", "rollout.groups=8"];

fn counts(report: &IterationReport) -> (usize, usize) {
    let groups = || report.groups.iter().map(|scored| &scored.group);
    (groups().map(|group| group.trajectories.len()).sum(), groups().map(|group| group.voided.len()).sum())
}

#[test]
fn lost_episodes_are_counted_and_in_no_mean() {
    let lab = Lab::new();
    // Wrong answers beyond 2 are lost, so what is left is better than what was played.
    let path = lab.write("games/echo.lua", &failing("state.digit <= 2 and tonumber(action) > 2"));
    pool(2).install(|| {
        let mut run = start(config(TOLERANT), unchecked(vec![game(&path)]));
        let report = iterate(&mut run);
        let (played, lost) = counts(&report);
        assert_eq!(played + lost, 32);
        assert!(lost > 0 && played > 0, "{played} played, {lost} lost");
        assert_eq!(report.figures["voided/echo"], lost as f64);
        let trajectories = || report.groups.iter().flat_map(|scored| &scored.group.trajectories);
        let mean = trajectories().map(|trajectory| trajectory.reward).sum::<f64>() / played as f64;
        assert!((report.figures["reward/mean"] - mean).abs() < 1e-12, "a lost episode is not a reward of 0");
        for scored in &report.groups {
            assert_eq!(scored.advantages.len(), scored.group.trajectories.len());
            for voided in &scored.group.voided {
                assert_eq!((voided.game.as_str(), &voided.culprit), ("echo", &Culprit::Game("echo".to_owned())));
                let text = voided.problem.to_string();
                assert!(text.contains("boom") && text.contains("games/echo.lua:9"), "{text}");
            }
        }
        let problem = report.problems.first().expect("the author is told").to_string();
        assert!(problem.contains("boom") && problem.contains("of the episodes of `echo` were lost"), "{problem}");
    });
}

/// An advantage compares members, so one that is alone, or none at all, cannot be trained on.
#[test]
fn a_group_of_fewer_than_two_is_dropped() {
    let lab = Lab::new();
    let path = lab.write("games/echo.lua", &failing("state.digit ~= 1 and action ~= \"1\""));
    for filter in ["filter.kind=reward_std", "filter.kind=none"] {
        pool(2).install(|| {
            let settings = [TOLERANT, &[filter, "rollout.groups=12"]].concat();
            let mut run = start(config(&settings), unchecked(vec![game(&path)]));
            let report = iterate(&mut run);
            let small = report.groups.iter().filter(|scored| scored.group.trajectories.len() < 2);
            assert!(small.clone().count() > 0, "the case comes up");
            assert!(
                small.clone().all(|scored| !scored.kept && scored.advantages.iter().all(|a| a.is_finite())),
                "{filter}"
            );
            let kept = report.groups.iter().filter(|scored| scored.kept).count();
            assert_eq!(report.figures["groups/kept"], kept as f64);
        });
    }
}

#[test]
fn an_iteration_that_loses_everything_changes_no_weight_and_goes_on() {
    let lab = Lab::new();
    let path = lab.write("games/echo.lua", &failing("true"));
    pool(2).install(|| {
        let mut run = start(config(TOLERANT), unchecked(vec![game(&path)]));
        let before = super::support::weights(&run);
        let report = iterate(&mut run);
        assert_eq!(counts(&report), (0, 32));
        assert!(!report.figures.contains_key("reward/mean"), "there is nothing to average: {:?}", report.figures);
        assert_eq!((report.figures["voided/echo"], report.figures["groups/kept"]), (32.0, 0.0));
        assert!(super::support::weights(&run) == before);
        assert_eq!(iterate(&mut run).step, 2);
    });
}

#[test]
fn a_version_that_always_fails_gives_way_to_the_last_good_one() {
    let lab = Lab::new();
    let good = game(&lab.write("games/echo.lua", ECHO));
    let bad = game(&lab.write("games/echo.lua", &failing("true")));
    pool(2).install(|| {
        let mut run = start(config(&["scripts.max_voided_share=0.25"]), unchecked(vec![Arc::clone(&good)]));
        let first = iterate(&mut run);
        assert!(first.problems.is_empty());
        // As a reload does, for a fault that the check did not meet.
        run.catalog.replace_game(Arc::clone(&bad));
        let second = iterate(&mut run);
        assert_eq!(second.versions["echo"], bad.source.version);
        assert_eq!(counts(&second), (0, 16));
        let told: Vec<String> = second.problems.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|text| text.contains("boom")), "{told:?}");
        let back = format!("`echo` goes back to version {}", good.source.version.short());
        assert!(told.iter().any(|text| text.contains("run::failing_version") && text.contains(&back)), "{told:?}");
        let third = iterate(&mut run);
        assert_eq!(third.versions["echo"], good.source.version);
        assert_eq!((counts(&third), third.problems.len()), ((16, 0), 0));
    });
}

/// A fault now and then is no reason to go back: the version stays, and becomes the good one.
#[test]
fn a_version_that_seldom_fails_stays() {
    let lab = Lab::new();
    let good = game(&lab.write("games/echo.lua", ECHO));
    let weak = game(&lab.write("games/echo.lua", &failing("state.digit == 1 and action == \"4\"")));
    pool(2).install(|| {
        let settings = ["scripts.max_voided_share=0.5", "rollout.groups=16"];
        let mut run = start(config(&settings), unchecked(vec![good]));
        run.catalog.replace_game(Arc::clone(&weak));
        let report = iterate(&mut run);
        assert!(counts(&report).1 > 0, "the case comes up");
        assert_eq!(iterate(&mut run).versions["echo"], weak.source.version);
    });
}

#[test]
fn without_a_good_version_the_run_stops_with_the_reason() {
    let lab = Lab::new();
    let path = lab.write("games/echo.lua", &failing("true"));
    pool(2).install(|| {
        let mut run = start(config(&["scripts.max_voided_share=0.25"]), unchecked(vec![game(&path)]));
        let error = run.iterate(None, &AtomicBool::new(false)).expect_err("nothing can be played");
        let Error::Script(problem) = &error else { panic!("{error}") };
        let text = problem.to_string();
        assert!(text.contains("boom") && text.contains("no earlier version to go back to"), "{text}");
    });
}

/// The opponent's seat runs the same script: its fault voids the episode as well.
#[test]
fn a_fault_of_the_scripted_opponent_voids_the_episode() {
    let lab = Lab::new();
    let text = ECHO
        .replace("seats = 1, max_turns = 1", "seats = 2, max_turns = 2")
        .replace("if state.done then return nil end return 1 end", "if state.done then return nil end return 2 end")
        .replace(
            "scores = { state.right and 1 or 0 }, success = { state.right }",
            "scores = { 0, 0 }, success = { false, false }",
        )
        .replace(
            "function game.bot(state, seat, rng) return",
            "function game.bot(state, seat, rng) if state.digit == 2 then error(\"boom\") end return",
        );
    let path = lab.write("games/echo.lua", &text);
    pool(2).install(|| {
        let settings = [TOLERANT, &["opponent=bot", "seat=1"]].concat();
        let mut run = start(config(&settings), unchecked(vec![game(&path)]));
        let report = iterate(&mut run);
        let (played, lost) = counts(&report);
        assert!(lost > 0 && lost % 4 == 0 && played + lost == 32, "{played} played, {lost} lost");
    });
}

/// A move of a random opponent is legal, so a script that fails at it is to blame, and not the opponent.
#[test]
fn a_fault_at_the_move_of_a_random_opponent_is_the_scripts() {
    let lab = Lab::new();
    let text = failing("action == \"3\"")
        .replace("seats = 1, max_turns = 1", "seats = 2, max_turns = 2")
        .replace("if state.done then return nil end return 1 end", "if state.done then return nil end return 2 end")
        .replace(
            "scores = { state.right and 1 or 0 }, success = { state.right }",
            "scores = { 0, 0 }, success = { false, false }",
        );
    let path = lab.write("games/echo.lua", &text);
    pool(2).install(|| {
        let mut run = start(config(&[TOLERANT, &["opponent=random", "seat=1"]].concat()), unchecked(vec![game(&path)]));
        let report = iterate(&mut run);
        let (played, lost) = counts(&report);
        assert!(lost > 0 && played > 0, "{played} played, {lost} lost");
        for voided in report.groups.iter().flat_map(|scored| &scored.group.voided) {
            assert_eq!((voided.problem.code, &voided.culprit), ("script::runtime", &Culprit::Game("echo".to_owned())));
            let place = voided.problem.place.as_ref().expect("a place");
            assert_eq!((place.file.as_path(), place.line), (path.as_path(), 9));
            let notes = voided.problem.notes.join("\n");
            assert!(notes.contains("in the episode of seed ") && notes.contains("when seat 2 answers `3`"), "{notes}");
            assert!(
                notes.contains("printf '%s\\n' 3 | gift-host play ") && notes.contains("scripts.call_ms=20000"),
                "{notes}"
            );
        }
    });
}

/// The trial before a reward script is used cannot see every episode, so one that fails in play voids everything. It gives
/// way as a game's version does, and the game is not blamed.
#[test]
fn a_reward_version_that_always_fails_gives_way_as_well() {
    let lab = Lab::new();
    let path = lab.write("games/echo.lua", ECHO);
    let reward = |text: &str| {
        let source = read_source(&lab.write("reward.lua", text)).unwrap_or_else(|problem| panic!("{problem}"));
        Arc::new(RewardScript::compile(source, &host()).unwrap_or_else(|problem| panic!("{problem}")))
    };
    let (good, bad) = (reward("return function() return 1 end\n"), reward("return function() return nil end\n"));
    pool(2).install(|| {
        let mut run = start(config(&[]), unchecked(vec![game(&path)]));
        run.catalog.reward = Some(Arc::clone(&good));
        iterate(&mut run);
        run.catalog.reward = Some(bad);
        let lost = iterate(&mut run);
        assert!(lost.problems.iter().any(|problem| problem.to_string().contains("reward.lua")));
        assert_eq!(iterate(&mut run).versions["reward"], good.source.version);
    });
}

/// A call that sleeps inside the host, where nothing can end it, stands for a library call without an end: its thread is
/// given up, its episode is lost, and the run goes on with other threads.
#[test]
fn a_script_that_cannot_be_stopped_costs_its_episodes_only() {
    #[expect(clippy::unnecessary_wraps, reason = "the form of a function of the host")]
    fn hold(_: &[Value]) -> Result<Value, String> {
        std::thread::sleep(Duration::from_secs(600));
        Ok(Value::Nil)
    }
    let lab = Lab::new();
    let text = failing("state.digit == 3").replace("error(\"boom\")", "gift.hold()");
    let source = read_source(&lab.write("games/echo.lua", &text)).unwrap_or_else(|problem| panic!("{problem}"));
    let host = ScriptHost {
        limits: Limits { call: Duration::from_millis(20), ..Limits::default() },
        library: Library::new(vec![HostFunction { name: "hold", call: hold }]),
    };
    let game =
        GameDef::compile(&source, Value::Map(BTreeMap::new()), &host).unwrap_or_else(|problem| panic!("{problem}"));
    let start_time = Instant::now();
    pool(2).install(|| {
        let settings = [TOLERANT, &["rollout.groups=4"]].concat();
        let mut run = start(config(&settings), unchecked(vec![Arc::new(game)]));
        let (mut played, mut lost) = (0, 0);
        for step in 1..=2 {
            let report = iterate(&mut run);
            let counted = counts(&report);
            assert_eq!((report.step, counted.0 + counted.1), (step, 16));
            (played, lost) = (played + counted.0, lost + counted.1);
            let mut voided = report.groups.iter().flat_map(|scored| &scored.group.voided);
            assert!(voided.all(|voided| voided.problem.code == "script::stuck"));
        }
        assert!(lost > 0 && played > 0, "{played} played, {lost} lost");
    });
    assert!(start_time.elapsed() < Duration::from_secs(120), "{:?}", start_time.elapsed());
}
