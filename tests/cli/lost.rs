//! Episodes that are lost to a fault of the game's script: whoever made the move, the script's line is told, with the seed, the
//! moves and a command that leads there.

use std::process::Command;

use super::support::{ECHO, Place, QUICK, show};

/// Two seats. Fails at moves of seat 2 in one start of eight, which the check at a run's beginning does not meet.
const DUEL: &str = r#"local game = { name = "duel", seats = 2, max_turns = 4 }
function game.init(rng, options) return { digit = rng:int(1, 400), seat = 1, turns = 0, shift = options.shift } end
function game.to_act(state) if state.turns == 4 then return nil end return state.seat end
function game.observe(state, seat) return "Say a digit: " .. state.digit end
function game.brief(state, seat) return "d" .. state.digit end
function game.actions(state, seat) return { "1", "2", "3", "4" } end
function game.apply(state, seat, action)
  if not table.find({ "1", "2", "3", "4" }, action) then gift.illegal("a digit from 1 to 4") end
  if state.digit % 8 == 2 and seat == 2 and action ~= "3" then error("boom") end
  state.turns, state.seat = state.turns + 1, 3 - seat
  return state
end
function game.outcome(state) return { scores = { 1, 0 }, success = { true, false } } end
function game.bot(state, seat, rng) return "1" end
return game
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("games/duel.lua", DUEL);
    place
}

/// The script is blamed, at its line, and the command that is told leads there.
fn is_told(place: &Place, said: &str) {
    assert!(said.contains("error[script::runtime]: boom\n  --> games/duel.lua:9\n"), "{said}");
    assert!(!said.contains("opponent::refused"), "{said}");
    assert!(said.contains("note: in the episode of seed ") && said.contains(", when seat 2 answers `"), "{said}");
    let command = said.split('`').find(|part| part.contains("| gift-host play games/duel.lua --seed "));
    let command = command.unwrap_or_else(|| panic!("no command in {said}"));
    let program = env!("CARGO_BIN_EXE_gift-host");
    let command = command.replace("gift-host play", &format!("'{program}' play"));
    let output = Command::new("sh").args(["-c", &command]).current_dir(place.path("")).output().expect("a shell");
    let shown = show(&output);
    assert!(shown.starts_with("status: 1") && shown.contains("--> games/duel.lua:9\n"), "{command}: {shown}");
}

#[cfg(unix)]
#[test]
fn a_fault_at_a_random_opponents_move_is_the_scripts() {
    let place = place();
    let mut eval = vec!["eval", "--games", "games/duel.lua", "--model", "tiny", "--device", "cpu"];
    eval.extend(["--episodes", "30", "--seat", "1", "--opponent", "random"]);
    is_told(&place, &show(&place.run(&eval)));
    let mut train = vec!["train", "--games", "games/duel.lua", "--out", "run", "--steps", "1", "--seat", "1"];
    train.extend(QUICK);
    train.extend(["--opponent", "random", "--set", "rollout.groups=16", "--set", "scripts.max_voided_share=1"]);
    is_told(&place, &show(&place.run(&train)));
}

/// Here with options, without which the command would not lead there.
#[cfg(unix)]
#[test]
fn a_fault_in_a_match_of_scripted_players_is_told_alike() {
    let place = place();
    place.write("games/duel.lua", &DUEL.replace("% 8 == 2", "% 8 == 2 and state.shift and state.shift[2] == \"it's\""));
    let mut eval =
        vec!["eval", "--games", "games/duel.lua", "--player", "bot", "--opponent", "bot", "--episodes", "30"];
    eval.extend(["--set", "games.duel.shift=[1.5, \"it's\"]"]);
    is_told(&place, &show(&place.run(&eval)));
}

#[test]
fn play_and_check_tell_the_line_of_a_fault_at_an_opponents_move() {
    let place = Place::new();
    place.write("games/duel.lua", &DUEL.replace("state.digit % 8 == 2 and ", ""));
    for arguments in [&["play", "games/duel.lua", "--seat", "1"][..], &["check", "games/duel.lua"]] {
        let shown = show(&place.run_with_input(arguments, "1\n"));
        let is_told = shown.contains("error[script::runtime]: boom\n  --> games/duel.lua:9\n");
        assert!(is_told && shown.starts_with("status: 1"), "{arguments:?}: {shown}");
    }
}

/// An evaluation that loses everything says why.
#[test]
fn the_evaluation_before_training_says_why_episodes_were_lost() {
    let place = Place::with_echo();
    let text =
        ECHO.replace("rng, options) return {", "rng, options) if options.episode then error(\"boom\") end return {");
    place.write("games/echo.lua", &text);
    let output = place.train(&["--steps", "1", "--set", "evaluation.episodes=3"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let before = errors.split("iteration 1/1").next().unwrap_or_default();
    assert!(before.contains("before training") && before.contains("echo: 3 episodes were lost"), "{errors}");
    assert!(before.contains("error[script::runtime]: boom\n  --> games/echo.lua:2\n"), "{errors}");
    assert!(before.contains("`gift-host play games/echo.lua --seed "), "{errors}");
}
