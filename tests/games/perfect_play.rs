//! The search opponent against what is known of two games: exhaustive minimax of tic-tac-toe, and the nim-sum.

use std::collections::HashMap;

use gift_host::eval::Match;
use gift_host::game::{Action, Episode, Seat, Status};
use gift_host::opponent::Opponents;
use gift_host::script::Value;
use gift_host::seed::Seed;

use super::support::{any_action, deep, load, options};

const LINES: [[usize; 3]; 8] = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]];

/// 0 for a free cell, else the seat.
pub(crate) type Board = [u8; 9];

/// What perfect play gives seat 1 from here: 1, 0 or -1. Written for this test, independent of the search.
fn minimax(board: Board, turn: u8, known: &mut HashMap<(Board, u8), i8>) -> i8 {
    if let Some(&value) = known.get(&(board, turn)) {
        return value;
    }
    let winner = LINES.iter().find(|[a, b, c]| board[*a] != 0 && board[*a] == board[*b] && board[*b] == board[*c]);
    let value = match winner {
        Some([a, ..]) => {
            if board[*a] == 1 {
                1
            } else {
                -1
            }
        }
        None if !board.contains(&0) => 0,
        None => {
            let free: Vec<usize> = (0..9).filter(|&cell| board[cell] == 0).collect();
            let children = free.into_iter().map(|cell| {
                let mut child = board;
                child[cell] = turn;
                minimax(child, 3 - turn, known)
            });
            if turn == 1 { children.max() } else { children.min() }.unwrap_or(0)
        }
    };
    known.insert((board, turn), value);
    value
}

/// The board of a state of tic-tac-toe: the cells of each seat are bits of a number.
pub(crate) fn board_of(state: &Value) -> Board {
    let cells: Vec<i64> =
        state.get("cells").and_then(Value::as_list).expect("cells").iter().filter_map(Value::as_int).collect();
    std::array::from_fn(|cell| (1..).zip(&cells).find(|(_, cells)| *cells >> cell & 1 == 1).map_or(0, |(seat, _)| seat))
}

/// What perfect play gives the seat whose turn it is: 1, 0 or -1.
pub(crate) fn value_for(state: &Value, seat: Seat) -> i8 {
    let value = minimax(board_of(state), seat.0 as u8, &mut HashMap::new());
    if seat == Seat(1) { value } else { -value }
}

/// From any position that random play reaches, also bad ones, the search keeps what is there to be had. So it never
/// loses a position that is not lost already.
#[test]
fn search_keeps_the_value_of_every_tic_tac_toe_position() {
    deep(|| {
        let game = load("games/tictactoe.lua", options(&[]));
        let search = Opponents::parse("search").expect("a specification");
        let mut known = HashMap::new();
        let (mut lost_positions, mut checked) = (0, 0);
        for number in 0..150 {
            let seed = Seed::new(5).child("search", number);
            let own = Seat(1 + (number % 2) as u32);
            let mut stream = seed.child("play", 0).stream();
            // The first moves are random for both, so that bad positions are reached as well (and quickly solved).
            let random_turns = 1 + stream.index(4);
            let mut episode = Episode::start(&game, seed).expect("a start");
            let mut guaranteed = None;
            while let Status::Turn(seat) = *episode.status() {
                let searches = seat == own && episode.turns().len() >= random_turns;
                let value = |state: &Value, turn: Seat, known: &mut HashMap<_, _>| {
                    minimax(board_of(state), turn.0 as u8, known) * if own == Seat(1) { 1 } else { -1 }
                };
                let before = value(episode.state(), seat, &mut known);
                let text = if searches {
                    search.act(&game, episode.state(), seat, &mut stream).expect("a move")
                } else {
                    any_action(&game, episode.state(), seat, &mut stream)
                };
                let after_state = game.apply(episode.state(), seat, &text).expect("a legal move");
                if searches {
                    let after = value(&after_state, Seat(3 - seat.0), &mut known);
                    assert_eq!(after, before, "`{text}` gives away {}", episode.state().to_json());
                    guaranteed = guaranteed.or(Some(before));
                    lost_positions += usize::from(before < 0);
                    checked += 1;
                }
                episode.act(seat, &Action { text, well_formed: true }).expect("a turn");
            }
            let score = episode.result(own).0;
            match guaranteed {
                Some(1) => assert!(score > 0.9, "a won position was not won"),
                Some(0) => assert!(score > 0.4, "a drawn position was lost"),
                _ => {}
            }
        }
        assert!(checked > 150 && lost_positions > 3, "{checked} positions, {lost_positions} of them lost");
    });
}

#[test]
fn search_leaves_a_nim_sum_of_zero_wherever_it_can() {
    deep(|| {
        let game = load("games/nim.rhai", options(&[]));
        let search = Opponents::parse("search").expect("a specification");
        let nim_sum = |state: &Value| {
            let piles = state.get("piles").and_then(Value::as_list).expect("piles");
            piles.iter().map(|pile| pile.as_int().expect("a size")).fold(0, |sum, pile| sum ^ pile)
        };
        let (mut won, mut lost) = (0, 0);
        for number in 0..40 {
            let seed = Seed::new(6).child("search", number);
            let mut stream = seed.child("play", 0).stream();
            let mut episode = Episode::start(&game, seed).expect("a start");
            while let Status::Turn(seat) = *episode.status() {
                let text = search.act(&game, episode.state(), seat, &mut stream).expect("a move");
                let after = game.apply(episode.state(), seat, &text).expect("a legal move");
                if nim_sum(episode.state()) == 0 {
                    lost += 1;
                } else {
                    assert_eq!(nim_sum(&after), 0, "`{text}` in {}", episode.state().to_json());
                    won += 1;
                }
                let text = any_action(&game, episode.state(), seat, &mut stream);
                episode.act(seat, &Action { text, well_formed: true }).expect("a turn");
            }
        }
        assert!(won > 50 && lost > 10, "{won} won and {lost} lost positions");
    });
}

/// The rates that `eval` reports follow from theory: in nim, whoever can leave a nim-sum of 0 wins, so the search loses
/// only starts that are lost, which chance seldom punishes.
#[test]
fn a_match_measures_search_as_nearly_unbeaten() {
    deep(|| {
        let games = vec![load("games/nim.rhai", options(&[]))];
        let matches =
            Match { games, episodes: 40, by_game: std::collections::BTreeMap::new(), seat: None, seed: Seed::new(9) };
        let opponents = |text: &str| Opponents::parse(text).expect("a specification");
        let search = opponents("search");
        let strong = matches.play_scripted(&search, &opponents("random"));
        let again = matches.play_scripted(&search, &opponents("random"));
        assert_eq!(strong, again, "the same seed gives the same rates, whatever the search remembers");
        assert!(
            strong.iter().all(|rate| rate.rates.success > 0.9 && rate.rates.illegal == 0.0 && rate.voided == 0),
            "{strong:?}"
        );
        let weak = matches.play_scripted(&opponents("random"), &search);
        assert!(weak.iter().all(|rate| rate.rates.success < 0.1 && rate.rates.episodes == 40), "{weak:?}");
        let [low, high] = strong[0].rates.interval;
        assert!(low < strong[0].rates.success && strong[0].rates.success <= high, "{strong:?}");
    });
}
