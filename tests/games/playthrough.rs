//! One stored playthrough a game: a change of rules, prompts or of the order in which a script draws shows here. Accept
//! a new one only with a commit that explains it (`INSTA_UPDATE=always cargo test --test games playthrough`).

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use gift_host::game::{Action, Episode, GameDef, Status};
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::support::{any_action, deep, load, options, scripts_in, stem};

/// An episode as text: per turn the seat, what it sees, its legal answers and its action; then the outcome.
fn episode_text(game: &Arc<GameDef>, seed: Seed, plays_bot: bool) -> String {
    let mut text = String::new();
    let mut stream = seed.child("playthrough", 0).stream();
    let mut episode = Episode::start(game, seed).expect("a start");
    while let Status::Turn(seat) = *episode.status() {
        let state = episode.state();
        let observation = game.observe(state, seat, false).expect("observe");
        let brief = game.observe(state, seat, true).expect("brief");
        let actions = game.actions(state, seat).expect("actions");
        let action = if plays_bot {
            game.bot(state, seat, &mut stream).expect("a bot")
        } else {
            any_action(game, state, seat, &mut stream)
        };
        let legal = actions.map_or_else(|| "free text".to_owned(), |actions| actions.join(", "));
        writeln!(text, "--- turn {}: seat {seat}", episode.turns().len() + 1).expect("text");
        writeln!(text, "{observation}\nbrief: {brief}\nlegal: {legal}\naction: {action}").expect("text");
        episode.act(seat, &Action { text: action, well_formed: true }).expect("a turn");
    }
    writeln!(text, "--- end: {:?}\nstate: {}", episode.status(), episode.state().to_json()).expect("text");
    text
}

/// Two episodes of a game, the first played by its bot, the second at random.
fn playthrough(game: &Arc<GameDef>) -> String {
    let bot = episode_text(game, Seed::new(7), true);
    let random = episode_text(game, Seed::new(8), false);
    format!("=== {}, seed 7, bot in every seat\n{bot}\n=== seed 8, random play\n{random}", game.name)
}

fn assert_playthrough(file: &str, name: &str, options: Value) {
    let text = deep(|| playthrough(&load(Path::new("games").join(file), options)));
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn math() {
    assert_playthrough("math.lua", "math", options(&[]));
    assert_playthrough("math.lua", "math_choices", options(&[("level", 1_i64.into()), ("choices", 10_i64.into())]));
}

#[test]
fn matrix() {
    assert_playthrough("matrix.lua", "matrix", options(&[]));
}

#[test]
fn nim() {
    assert_playthrough("nim.rhai", "nim", options(&[]));
}

#[test]
fn spy() {
    assert_playthrough("spy.lua", "spy", options(&[]));
    assert_playthrough("spy.lua", "spy_attributes", options(&[("describe", "attributes".into())]));
}

#[test]
fn tictactoe() {
    assert_playthrough("tictactoe.lua", "tictactoe", options(&[]));
}

#[test]
fn every_game_has_a_playthrough() {
    let has_snapshot = |name: &String| Path::new("tests/games/snapshots").join(format!("{name}.snap")).is_file();
    let missing: Vec<String> =
        scripts_in("games").iter().map(|path| stem(path)).filter(|name| !has_snapshot(name)).collect();
    assert!(missing.is_empty(), "no playthrough for {missing:?}; add a test like the ones above");
}
