//! Every nest and every reward script that is shipped compiles against the shipped games and does what its header says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gift_host::game::{EpisodeSummary, GameStats, Nest, NestMode, RewardScript, ScriptHost, Seat, StageResult, Turn};
use gift_host::reload::read_source;
use gift_host::seed::Seed;

use super::support::{deep, load, options, scripts_in, stem};

fn names() -> Vec<String> {
    deep(|| scripts_in("games").iter().map(|path| load(path, options(&[])).name.clone()).collect())
}

fn nest(path: &Path) -> Nest {
    let source = read_source(path).unwrap_or_else(|problem| panic!("{problem}"));
    Nest::compile(&source, &names(), &ScriptHost::default()).unwrap_or_else(|problem| panic!("{problem}"))
}

fn stages(nest: &Nest, stats: &[(&str, f64)]) -> Vec<String> {
    let entry = |&(game, success): &(&str, f64)| (game.to_owned(), GameStats { success, reward: success });
    let stats: BTreeMap<String, GameStats> = stats.iter().map(entry).collect();
    nest.stages(&names(), &stats, &mut Seed::new(1).stream()).unwrap_or_else(|problem| panic!("{problem}"))
}

#[test]
fn every_nest_compiles_and_has_the_mode_and_stages_of_its_name() {
    for path in scripts_in("scripts/nests") {
        let (name, nest) = (stem(&path), nest(&path));
        if name == "warm_up" {
            continue;
        }
        let stages = stages(&nest, &[]);
        let mode = name.rsplit('_').next().unwrap_or_default();
        let expected = match mode {
            "mixed" => NestMode::Mixed,
            "cst" => NestMode::Cst,
            _ => NestMode::Nested,
        };
        assert_eq!(nest.mode, expected, "{name}");
        let expected: &[&str] = match &name[..name.len().min(4)] {
            "f_i1" => &["math", "matrix"],
            "f_i2" => &["math", "tictactoe"],
            _ => &["math", "matrix", "tictactoe", "spy"],
        };
        assert_eq!(stages, expected, "{name}");
        let results = |rewards: &[f64]| -> Vec<StageResult> {
            let of =
                |(game, &reward): (&String, &f64)| StageResult { game: game.clone(), reward, success: reward > 0.9 };
            stages.iter().zip(rewards).map(of).collect()
        };
        let reward = nest.reward(&results(&[1.0, 0.0, 0.5, 0.5])).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert!((reward - 0.5).abs() < 1e-12, "{name}: the mean of the stages, found {reward}");
    }
}

#[test]
fn the_warm_up_adds_a_game_of_several_turns_once_the_format_is_known() {
    let nest = nest(Path::new("scripts/nests/warm_up.lua"));
    let played = |success: f64| -> BTreeSet<Vec<String>> {
        let stats = BTreeMap::from([("matrix".to_owned(), GameStats { success, reward: success })]);
        let draw = |seed: u64| nest.stages(&names(), &stats, &mut Seed::new(seed).stream()).expect("an order");
        (0..32).map(draw).collect()
    };
    let of = |games: &[&str]| -> BTreeSet<Vec<String>> { games.iter().map(|game| vec![(*game).to_owned()]).collect() };
    assert_eq!(stages(&nest, &[]), ["matrix"]);
    assert_eq!(played(0.39), of(&["matrix"]));
    assert_eq!(played(0.4), of(&["matrix", "tictactoe"]));
}

#[test]
fn the_adaptive_nest_puts_what_succeeds_first() {
    let nest = nest(Path::new("scripts/nests/adaptive.lua"));
    let order = stages(&nest, &[("math", 0.1), ("matrix", 0.5), ("tictactoe", 0.9), ("spy", 0.3)]);
    assert_eq!(order, ["tictactoe", "matrix", "spy", "math"]);
    assert_eq!(stages(&nest, &[("spy", 0.2)]), ["spy", "math", "matrix", "tictactoe"], "no figures count as unsolved");
}

/// The reward of an episode in which seat 1 took these turns.
fn reward(name: &str, score: f64, success: bool, own_turns: usize, penalty: f64) -> f64 {
    let source = read_source(&Path::new("scripts/rewards").join(name)).unwrap_or_else(|problem| panic!("{problem}"));
    let script = RewardScript::compile(source, &ScriptHost::default()).unwrap_or_else(|problem| panic!("{problem}"));
    let turn = Turn { seat: Seat(1), action: "1".to_owned(), legal: true, well_formed: true, refusal: None };
    let turns = vec![turn; own_turns];
    let texts = vec![("s3".to_owned(), "1".to_owned()); own_turns];
    let summary = EpisodeSummary {
        game: "nim",
        seat: 1,
        scores: &[score, 1.0 - score],
        success: &[success, !success],
        turns: &turns,
        texts: &texts,
        prompt_tokens: 4 * own_turns,
        response_tokens: own_turns,
        penalty,
        truncated: false,
    };
    script.reward(&summary).unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

#[test]
fn the_rewards_pay_what_their_headers_say() {
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
    close(reward("default.lua", 0.5, false, 3, -0.1), 0.4);
    close(reward("win_only.lua", 0.5, false, 3, -0.1), -0.1);
    close(reward("win_only.lua", 1.0, true, 3, 0.0), 1.0);
    close(reward("efficient.lua", 1.0, true, 1, 0.0), 1.1);
    close(reward("efficient.lua", 1.0, true, 2, -0.1), 0.95);
    close(reward("efficient.lua", 0.5, false, 1, 0.0), 0.5);
    let tested = BTreeSet::from(["default", "efficient", "win_only"].map(str::to_owned));
    let shipped: BTreeSet<String> = scripts_in("scripts/rewards").iter().map(|path| stem(path)).collect();
    assert_eq!(shipped, tested, "a new reward script needs a line above");
}
