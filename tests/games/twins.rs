//! Tic-tac-toe in both languages: the same seed and the same actions give the same boards, texts, lists and outcomes,
//! so nothing depends on which language a game is written in.

use gift_host::game::{Action, ApplyError, Episode, Status};
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::perfect_play::{Board, board_of};
use super::support::{deep, load, options};

const SEEDS: u64 = 1000;

/// What both games keep beside the board.
const FIELDS: [&str; 6] = ["turn", "last", "winner", "opening", "rules", "win_text"];

/// The state of the game in Lua.
fn in_lua(state: &Value) -> (Board, [Option<&Value>; 6]) {
    (board_of(state), FIELDS.map(|field| state.get(field)))
}

/// The state of the game in Rhai, whose board is a list of marks.
fn in_rhai(state: &Value) -> (Board, [Option<&Value>; 6]) {
    let cells = state.get("board").and_then(Value::as_list).expect("a board");
    let seat = |cell: &Value| match cell.as_text() {
        Some("X") => 1,
        Some("O") => 2,
        _ => 0,
    };
    let board = Board::try_from(cells.iter().map(seat).collect::<Vec<u8>>()).expect("nine cells");
    (board, FIELDS.map(|field| state.get(field)))
}

#[test]
fn lua_and_rhai_play_identical_episodes() {
    deep(|| {
        let lua = load("games/tictactoe.lua", options(&[]));
        let rhai = load("tests/games/tictactoe.rhai", options(&[]));
        assert_eq!((&lua.name, lua.seats, lua.max_turns), (&rhai.name, rhai.seats, rhai.max_turns));
        for number in 0..SEEDS {
            let seed = Seed::new(number);
            let mut stream = seed.child("twins", 0).stream();
            let mut left = Episode::start(&lua, seed).expect("Lua starts");
            let mut right = Episode::start(&rhai, seed).expect("Rhai starts");
            assert_eq!(in_lua(left.state()), in_rhai(right.state()), "seed {number}");
            while let Status::Turn(seat) = *left.status() {
                assert_eq!(left.status(), right.status(), "seed {number}");
                let (state, twin) = (left.state(), right.state());
                for brief in [false, true] {
                    let texts = (lua.observe(state, seat, brief), rhai.observe(twin, seat, brief));
                    assert_eq!(texts.0.expect("Lua observes"), texts.1.expect("Rhai observes"), "seed {number}");
                }
                let actions = lua.actions(state, seat).expect("Lua lists").expect("a list");
                assert_eq!(Some(&actions), rhai.actions(twin, seat).expect("Rhai lists").as_ref(), "seed {number}");
                let draw = || seed.child("bot", left.turns().len() as u64).stream();
                let bots = (lua.bot(state, seat, &mut draw()), rhai.bot(twin, seat, &mut draw()));
                assert_eq!(bots.0.expect("Lua's bot"), bots.1.expect("Rhai's bot"), "seed {number}");
                assert_eq!(lua.score(state, seat).expect("a score"), rhai.score(twin, seat).expect("a score"));
                // Every tenth answer is one that the rules refuse or must read leniently.
                let text = match stream.int(0, 29) {
                    0 => "10".to_owned(),
                    1 => "centre".to_owned(),
                    2 => format!(" [{}] ", actions[0]),
                    _ => actions[stream.index(actions.len())].clone(),
                };
                let refusal = |result| match result {
                    Ok(_) => None,
                    Err(ApplyError::Illegal(reason)) => Some(reason),
                    Err(ApplyError::Fault(problem)) => panic!("seed {number}, `{text}`: {problem}"),
                };
                assert_eq!(refusal(lua.apply(state, seat, &text)), refusal(rhai.apply(twin, seat, &text)));
                let action = Action { text, well_formed: true };
                left.act(seat, &action).expect("Lua takes the turn");
                right.act(seat, &action).expect("Rhai takes the turn");
                assert_eq!(in_lua(left.state()), in_rhai(right.state()), "seed {number}");
            }
            assert_eq!(left.status(), right.status(), "seed {number}");
            assert_eq!(left.turns(), right.turns(), "seed {number}");
        }
    });
}
