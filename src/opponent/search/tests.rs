use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::game::ScriptHost;
use crate::script::{Language, Source, Value};
use crate::seed::Seed;

fn connect(columns: i64, rows: i64) -> GameDef {
    let text = include_str!("../../../tests/games/connect.lua");
    let source = Source::new(Path::new("connect.lua"), Language::Lua, text, BTreeMap::new());
    let options = Value::from([("columns", columns.into()), ("rows", rows.into())]);
    GameDef::compile(&source, options, &ScriptHost::default()).unwrap()
}

/// The position after some random moves, with the seat to act; none if the game is over by then.
fn position(game: &GameDef, moves: usize, seed: Seed) -> Option<(State, Seat)> {
    let mut stream = seed.stream();
    let mut state = game.init(seed).unwrap();
    for _ in 0..moves {
        let seat = game.to_act(&state).unwrap()?;
        let action = random_action(game, &state, seat, &mut stream).unwrap();
        state = game.apply(&state, seat, &action).unwrap();
    }
    let seat = game.to_act(&state).unwrap()?;
    Some((state, seat))
}

/// The two ways to play perfectly know the same best actions, distances to the end included.
#[test]
fn alpha_beta_and_enumeration_agree_on_every_best_action() {
    let (mut compared, mut several) = (0, 0);
    for (columns, rows) in [(3, 3), (4, 3), (4, 4)] {
        let game = connect(columns, rows);
        for number in 0..40 {
            let Some((state, seat)) = position(&game, number as usize % 7 + 1, Seed::new(number)) else { continue };
            let actions = game.actions(&state, seat).unwrap().unwrap();
            let all = enumerate::best(&Memory::default(), &game, &state, seat, &actions, Budget::nodes(1_000_000));
            let cut = alpha_beta::to_the_end(&game, &state, seat, &actions, Budget::nodes(1_000_000));
            let (all, Ok(cut)) = (all.unwrap().unwrap(), cut) else { panic!("a budget that reaches") };
            assert_eq!(all, cut, "{}", state.to_json());
            compared += 1;
            several += usize::from(all.len() > 1 && all.len() < actions.len());
        }
    }
    assert!(compared > 80 && several > 5, "{compared} compared, {several} with some equals");
}

/// What alpha-beta is for: it reaches the end of larger games with the same budget.
#[test]
fn alpha_beta_needs_fewer_positions() {
    let game = connect(4, 4);
    let (state, seat) = position(&game, 1, Seed::new(0)).unwrap();
    let actions = game.actions(&state, seat).unwrap().unwrap();
    let reaches = |nodes: usize| {
        let all = enumerate::best(&Memory::default(), &game, &state, seat, &actions, Budget::nodes(nodes)).unwrap();
        let cut = alpha_beta::to_the_end(&game, &state, seat, &actions, Budget::nodes(nodes));
        (all.is_some(), cut.is_ok())
    };
    let least = |pick: fn((bool, bool)) -> bool| (0..12).map(|power| 500 << power).find(|&n| pick(reaches(n))).unwrap();
    let (all, cut) = (least(|(all, _)| all), least(|(_, cut)| cut));
    assert!(cut < all, "alpha-beta {cut}, enumeration {all}");
}

#[test]
fn a_forced_win_is_found_at_the_depth_that_it_takes() {
    let game = connect(4, 4);
    let mut state = game.init(Seed::new(0)).unwrap();
    for (seat, column) in [(1, "1"), (2, "4"), (1, "1"), (2, "4")] {
        state = game.apply(&state, Seat(seat), column).unwrap();
    }
    let actions = game.actions(&state, Seat(1)).unwrap().unwrap();
    let best = alpha_beta::to_depth(&game, &state, Seat(1), &actions, 1, DEPTH_NODES).unwrap();
    assert_eq!(best.iter().map(|&index| actions[index].as_str()).collect::<Vec<_>>(), ["1"]);
}

/// A tree search within far fewer positions than the game has wins when it can at once, and does not let the other.
#[test]
fn monte_carlo_search_sees_wins_and_threats() {
    let game = connect(5, 4);
    for (moves, wanted) in [("1 5 1 5", "1"), ("3 1 4 1", "1"), ("1 4 1 4 2", "1")] {
        let mut state = game.init(Seed::new(0)).unwrap();
        let mut seat = Seat(1);
        for column in moves.split(' ') {
            state = game.apply(&state, seat, column).unwrap();
            seat = Seat(3 - seat.0);
        }
        let actions = game.actions(&state, seat).unwrap().unwrap();
        for seed in 0..5 {
            let mut stream = Seed::new(seed).stream();
            let found = monte_carlo::choose(&game, &state, seat, &actions, Budget::nodes(2000), &mut stream).unwrap();
            let wins = |index: usize| {
                let child = game.apply(&state, seat, &actions[index]).unwrap();
                game.to_act(&child).unwrap().is_none()
            };
            assert!(actions[found] == wanted || wins(found), "{moves}: {}", actions[found]);
        }
    }
}
