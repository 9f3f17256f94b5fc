//! Search against known values: connect three by an independent minimax, Kuhn poker's -1/18, tic-tac-toe without a loss;
//! and its strengths, its refusals and its determinism.

use std::collections::{BTreeMap, HashMap};

use gift_host::eval::Match;
use gift_host::game::{Action, Episode, GameDef, Seat, Status};
use gift_host::opponent::Opponents;
use gift_host::script::{State, Value};
use gift_host::seed::{Seed, Stream};

use super::support::{any_action, deep, load, options};

fn opponents(text: &str) -> Opponents {
    Opponents::parse(text).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Connect three on a board of columns, written for this test: what perfect play gives seat 1, as 1, 0 or -1.
struct Solver {
    rows: usize,
    known: HashMap<(Vec<String>, u8), i8>,
}

impl Solver {
    fn won(columns: &[String], column: usize, mark: u8) -> bool {
        let row = columns[column].len() as i64 - 1;
        let at = |c: i64, r: i64| {
            usize::try_from(c)
                .ok()
                .zip(usize::try_from(r).ok())
                .and_then(|(c, r)| columns.get(c)?.as_bytes().get(r).copied())
        };
        let count = |dc: i64, dr: i64| {
            (1..3).take_while(|step| at(column as i64 + dc * step, row + dr * step) == Some(mark)).count()
        };
        [(1, 0), (0, 1), (1, 1), (1, -1)].iter().any(|&(dc, dr)| count(dc, dr) + count(-dc, -dr) >= 2)
    }

    fn value(&mut self, columns: &[String], turn: u8) -> i8 {
        if let Some(&value) = self.known.get(&(columns.to_vec(), turn)) {
            return value;
        }
        let sign = if turn == b'1' { 1 } else { -1 };
        let mut best: Option<i8> = None;
        let rows = self.rows;
        for column in (0..columns.len()).filter(|&column| columns[column].len() < rows) {
            let mut next = columns.to_vec();
            next[column].push(turn as char);
            let value = if Self::won(&next, column, turn) { sign } else { self.value(&next, b'1' + b'2' - turn) };
            best = Some(best.map_or(value, |best| if sign > 0 { best.max(value) } else { best.min(value) }));
        }
        let best = best.unwrap_or(0);
        self.known.insert((columns.to_vec(), turn), best);
        best
    }
}

fn board(state: &Value) -> Vec<String> {
    let columns = state.get("columns").and_then(Value::as_list).expect("columns");
    columns.iter().map(|column| column.as_text().expect("discs").to_owned()).collect()
}

/// Boards with the value for seat 1, as the solver above finds it.
const CONNECT_THREE: [(i64, i64, i8); 5] = [(3, 3, 0), (4, 3, 1), (3, 4, 0), (4, 4, 1), (5, 3, 1)];

#[test]
fn connect_three_is_played_to_its_value_on_every_board() {
    deep(|| {
        for (columns, rows, expected) in CONNECT_THREE {
            let game = load("tests/games/connect.lua", options(&[("columns", columns.into()), ("rows", rows.into())]));
            let mut solver = Solver { rows: rows as usize, known: HashMap::new() };
            let search = opponents("search");
            search.check(&game).expect("nothing is hidden");
            let mut stream = Seed::new(1).stream();
            let mut episode = Episode::start(&game, Seed::new(1)).expect("a start");
            assert_eq!(solver.value(&board(episode.state()), b'1'), expected, "{columns}x{rows}");
            while let Status::Turn(seat) = *episode.status() {
                let text = search.act(&game, episode.state(), seat, &mut stream).expect("a move");
                episode.act(seat, &Action { text, well_formed: true }).expect("a turn");
            }
            assert_eq!(episode.result(Seat(1)).0, f64::from(expected + 1) / 2.0, "{columns}x{rows}");
        }
    });
}

/// Kuhn's equilibrium strategies (Kuhn 1950), here with a bluff in one of six: the probability of a bet or a call.
fn equilibrium(card: &str, past: &str) -> f64 {
    const BLUFF: f64 = 1.0 / 6.0;
    match (past, card) {
        ("", "J") => BLUFF,
        ("", "K") => 3.0 * BLUFF,
        ("cb", "Q") => BLUFF + 1.0 / 3.0,
        ("c", "J") | ("b", "Q") => 1.0 / 3.0,
        ("cb" | "c" | "b", "K") => 1.0,
        _ => 0.0,
    }
}

fn text<'a>(state: &'a State, field: &str) -> &'a str {
    state.get(field).and_then(Value::as_text).expect("a text")
}

/// What seat 1 wins in the mean from here, if `searcher` searches and the other plays the equilibrium. How often the search
/// chooses each action is counted over several streams.
fn kuhn_value(
    game: &GameDef,
    state: &State,
    searcher: Seat,
    search: &Opponents,
    known: &mut BTreeMap<(String, String), f64>,
) -> f64 {
    const STREAMS: u64 = 6;
    let Some(seat) = game.to_act(state).expect("a seat") else {
        return game.outcome(state).expect("an outcome").scores[0];
    };
    let cards = state.get("cards").and_then(Value::as_list).expect("cards");
    let card = cards[seat.0 as usize - 1].as_text().expect("a card");
    let past = text(state, "past");
    let actions = game.actions(state, seat).expect("actions").expect("a list");
    let bold = if seat == searcher {
        // By what the seat knows: the search must not see the other card, so any state with this card will do.
        *known.entry((card.to_owned(), past.to_owned())).or_insert_with(|| {
            let chooses = |stream: u64| {
                let mut stream = Seed::new(4).child("kuhn", stream).stream();
                search.act(game, state, seat, &mut stream).expect("a move") == actions[0]
            };
            (0..STREAMS).filter(|&stream| chooses(stream)).count() as f64 / STREAMS as f64
        })
    } else {
        equilibrium(card, past)
    };
    let after = |action: &str| game.apply(state, seat, action).expect("a legal move");
    [(bold, &actions[0]), (1.0 - bold, &actions[1])]
        .into_iter()
        .filter(|(probability, _)| *probability > 0.0)
        .map(|(probability, action)| probability * kuhn_value(game, &after(action), searcher, search, known))
        .sum()
}

/// Against an equilibrium, play without dominated actions gets exactly the value of the game, -1/18 for seat 1; every
/// dominated one costs something.
#[test]
fn kuhn_poker_is_worth_minus_an_eighteenth_to_seat_1() {
    deep(|| {
        let search = opponents("search:nodes=20000");
        for searcher in [Seat(1), Seat(2)] {
            let mut known = BTreeMap::new();
            let deals = ["JQ", "JK", "QJ", "QK", "KJ", "KQ"];
            let values = deals.map(|deal| {
                let game = load("tests/games/kuhn.lua", options(&[("deal", deal.into())]));
                search.check(&game).expect("it has `hide`");
                let state = game.init(Seed::new(0)).expect("a start");
                kuhn_value(&game, &state, searcher, &search, &mut known)
            });
            let value = values.iter().sum::<f64>() / 6.0;
            assert!((value + 1.0 / 18.0).abs() < 1e-9, "seat {searcher}: {value}; bold: {known:?}");
        }
    });
}

/// The searcher's choice depends on what it sees, not on the other's card.
#[test]
fn a_search_with_hide_does_not_see_what_is_hidden() {
    deep(|| {
        let search = opponents("search:nodes=500");
        let open = opponents("search:nodes=500:sees=all");
        let act = |who: &Opponents, deal: &str, seed: u64| {
            let game = load("tests/games/kuhn.lua", options(&[("deal", deal.into())]));
            let state = game.init(Seed::new(0)).expect("a start");
            let state = game.apply(&state, Seat(1), "bet").expect("a bet");
            who.act(&game, &state, Seat(2), &mut Seed::new(seed).stream()).expect("a move")
        };
        for seed in 0..10 {
            assert_eq!(act(&search, "JQ", seed), act(&search, "KQ", seed));
        }
        assert_eq!((act(&open, "JQ", 0).as_str(), act(&open, "KQ", 0).as_str()), ("call", "fold"));
    });
}

#[test]
fn hidden_information_without_hide_is_refused_with_the_fix() {
    deep(|| {
        let search = opponents("search");
        let spy = load("games/spy.lua", options(&[("describe", "attributes".into())]));
        let problem = search.check(&spy).expect_err("roles are hidden").to_string();
        assert!(problem.contains("does not see all") && problem.contains("search:sees=all"), "{problem}");
        opponents("search:sees=all").check(&spy).expect("it may look");
        for path in ["games/tictactoe.lua", "games/nim.rhai"] {
            search.check(&load(path, options(&[]))).unwrap_or_else(|problem| panic!("{problem}"));
        }
        let kuhn = load("tests/games/kuhn.lua", options(&[]));
        let problem = opponents("search:depth=2").check(&kuhn).expect_err("no depth").to_string();
        assert!(problem.contains("hidden information"), "{problem}");
    });
}

/// From any position that random play reaches, the search loses only what is lost already: after its first move it never
/// loses an episode in which a draw was to be had. `GIFT_SEARCH_EPISODES=10000` plays as many.
#[test]
fn tic_tac_toe_is_never_lost_from_positions_of_random_play() {
    deep(|| {
        let wanted = std::env::var("GIFT_SEARCH_EPISODES").ok().and_then(|count| count.parse().ok());
        let episodes: u64 = wanted.unwrap_or(1000);
        let game = load("games/tictactoe.lua", options(&[]));
        let search = opponents("search");
        let (mut played, mut lost) = (0_u64, 0_u64);
        for number in 0..episodes {
            let seed = Seed::new(8).child("episode", number);
            let mut stream: Stream = seed.child("play", 0).stream();
            let mut episode = Episode::start(&game, seed).expect("a start");
            let random_turns = stream.index(6);
            let mut own = None;
            while let Status::Turn(seat) = *episode.status() {
                let text = if episode.turns().len() < random_turns {
                    any_action(&game, episode.state(), seat, &mut stream)
                } else if *own.get_or_insert(seat) == seat || number % 2 == 0 {
                    // Half of the episodes are against play that makes no mistake.
                    search.act(&game, episode.state(), seat, &mut stream).expect("a move")
                } else {
                    any_action(&game, episode.state(), seat, &mut stream)
                };
                episode.act(seat, &Action { text, well_formed: true }).expect("a turn");
            }
            let Some(own) = own else { continue };
            played += 1;
            if episode.result(own).0 < 0.25 {
                lost += 1;
                // Only a position without a draw may be lost.
                let mut again = Episode::start(&game, seed).expect("a start");
                for turn in episode.turns().iter().take(random_turns) {
                    let action = Action { text: turn.action.clone(), well_formed: true };
                    again.act(turn.seat, &action).expect("a turn");
                }
                let value = super::perfect_play::value_for(again.state(), own);
                assert_eq!(value, -1, "episode {number} was lost from a position that was not");
            }
        }
        assert!(played * 10 > episodes * 7 && lost * 4 < played, "{played} played, {lost} lost");
    });
}

#[test]
fn strengths_go_from_random_to_perfect() {
    deep(|| {
        let games = vec![load("games/tictactoe.lua", options(&[]))];
        let matches = Match { games, episodes: 150, seat: None, seed: Seed::new(2), by_game: BTreeMap::new() };
        let score = |player: &str| matches.play_scripted(&opponents(player), &opponents("random"))[0].rates.score;
        let strengths = ["search:epsilon=1", "search:epsilon=0.5", "search:depth=2", "search"].map(score);
        assert!((0.4..0.62).contains(&strengths[0]), "{strengths:?}");
        // Perfect play does not set traps, so against chance it is not above a shallow search.
        assert!(strengths[..3].is_sorted() && strengths[3] > 0.85, "{strengths:?}");
    });
}

/// Monte-Carlo tree search far below the size of the game is better than chance, and the same on any number of threads.
#[test]
fn a_small_budget_is_strong_and_deterministic() {
    let rates = |threads: usize, player: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(gift_host::script::STACK_BYTES);
        pool.build().expect("a pool").install(|| {
            let games = vec![load("tests/games/connect.lua", options(&[("columns", 6.into()), ("rows", 5.into())]))];
            let matches = Match { games, episodes: 30, seat: None, seed: Seed::new(3), by_game: BTreeMap::new() };
            matches.play_scripted(&opponents(player), &opponents("random*0.5+search:200*0.5"))
        })
    };
    let strong = rates(1, "search:1000");
    assert_eq!(strong, rates(3, "search:1000"));
    let weak = rates(2, "random");
    assert!(
        strong[0].rates.score > weak[0].rates.score + 0.3,
        "{} against {}",
        strong[0].rates.score,
        weak[0].rates.score
    );
}

/// A budget of time ends in time; what it finds is not promised.
#[test]
fn a_budget_of_time_is_kept() {
    deep(|| {
        let game = load("tests/games/connect.lua", options(&[("columns", 6.into()), ("rows", 5.into())]));
        let search = opponents("search:ms=40");
        let state = game.init(Seed::new(0)).expect("a start");
        let started = std::time::Instant::now();
        for seed in 0..3 {
            let action = search.act(&game, &state, Seat(1), &mut Seed::new(seed).stream()).expect("a move");
            game.apply(&state, Seat(1), &action).expect("a legal move");
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    });
}
