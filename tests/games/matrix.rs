//! Matrix games: an action succeeds exactly if it has a place in a Nash equilibrium of the payoffs that are shown.

use std::collections::BTreeSet;

use gift_host::game::{GameDef, Seat, nash};
use gift_host::script::{State, Value};
use gift_host::seed::Seed;

use super::support::{deep, load, options};

const EPISODES: u64 = 400;
/// Below this a probability is rounding.
const TOLERANCE: f64 = 1e-6;

type Matrix = Vec<Vec<f64>>;

fn payoffs(state: &Value, name: &str) -> Matrix {
    let rows = state.get(name).and_then(Value::as_list).expect("rows");
    let row =
        |row: &Value| row.as_list().expect("a row").iter().map(|cell| cell.as_number().expect("a number")).collect();
    rows.iter().map(row).collect()
}

/// The numbers (from 0) of the actions that succeed, found by playing each.
fn successes(game: &GameDef, state: &State) -> BTreeSet<usize> {
    let actions = game.actions(state, Seat(1)).expect("actions").expect("a list");
    let succeeds = |action: &String| {
        let end = game.apply(state, Seat(1), action).expect("a legal action");
        assert_eq!(game.to_act(&end).expect("to_act"), None, "one action ends the episode");
        let outcome = game.outcome(&end).expect("an outcome");
        assert_eq!(outcome.scores[0] > 0.5, outcome.success[0]);
        outcome.success[0]
    };
    (0..actions.len()).filter(|&index| succeeds(&actions[index])).collect()
}

/// The learner's strategies in all equilibria, in their order.
fn strategies(state: &Value) -> Vec<Vec<f64>> {
    let equilibria = nash::equilibria(&payoffs(state, "A"), &payoffs(state, "B")).expect("equilibria");
    let is_row = state.get("role").and_then(Value::as_int) == Some(1);
    equilibria.into_iter().map(|found| if is_row { found.row } else { found.column }).collect()
}

/// The learner's actions in equilibria of pure strategies, by the definition: nobody gains by deviating alone.
fn pure_actions(state: &Value) -> BTreeSet<usize> {
    let (a, b) = (payoffs(state, "A"), payoffs(state, "B"));
    let is_row = state.get("role").and_then(Value::as_int) == Some(1);
    let cells = (0..a.len()).flat_map(|row| (0..a[0].len()).map(move |column| (row, column)));
    cells
        .filter(|&(row, column)| {
            (0..a.len()).all(|other| a[other][column] <= a[row][column])
                && (0..a[0].len()).all(|other| b[row][other] <= b[row][column])
        })
        .map(|(row, column)| if is_row { row } else { column })
        .collect()
}

#[test]
fn success_is_a_place_in_the_support_of_an_equilibrium() {
    deep(|| {
        let game = load("games/matrix.lua", options(&[]));
        let mut seen = BTreeSet::new();
        for number in 0..EPISODES {
            let state = game.init(Seed::new(number)).expect("a start");
            let strategies = strategies(&state);
            let supported = |action: &usize| strategies.iter().any(|strategy| strategy[*action] > TOLERANCE);
            let expected: BTreeSet<usize> = (0..strategies[0].len()).filter(supported).collect();
            let found = successes(&game, &state);
            assert_eq!(found, expected, "seed {number}: {}", state.to_json());
            assert!(pure_actions(&state).is_subset(&found), "seed {number}: {}", state.to_json());
            seen.insert((state.get("id").and_then(Value::as_int), state.get("role").and_then(Value::as_int)));
        }
        assert_eq!(seen.len(), 18, "nine games from both sides");
    });
}

#[test]
fn with_paper_success_one_action_of_the_last_equilibrium_is_right() {
    deep(|| {
        let game = load("games/matrix.lua", options(&[("success", "paper".into())]));
        for number in 0..EPISODES {
            let state = game.init(Seed::new(number)).expect("a start");
            let last = strategies(&state).pop().expect("an equilibrium");
            let found: Vec<usize> = successes(&game, &state).into_iter().collect();
            let [only] = found[..] else { panic!("seed {number}: {found:?} are right") };
            assert!(last.iter().all(|&other| last[only] > other - TOLERANCE), "seed {number}: {only} of {last:?}");
        }
    });
}

#[test]
fn an_unknown_rule_of_success_is_refused() {
    let problem = deep(|| {
        let game = load("games/matrix.lua", options(&[("success", "most".into())]));
        game.init(Seed::new(0)).expect_err("a problem").to_string()
    });
    assert!(problem.contains("games.matrix.success has to be") && problem.contains("games/matrix.lua:"), "{problem}");
}

/// An offset or a change of sign may change which action is right, never whether there is one.
#[test]
fn payoffs_are_shown_with_signs_and_offsets() {
    deep(|| {
        let game = load("games/matrix.lua", options(&[]));
        let mut offsets = BTreeSet::new();
        for number in 0..EPISODES {
            let state = game.init(Seed::new(number)).expect("a start");
            if state.get("id").and_then(Value::as_int) == Some(1) {
                // The prisoner's dilemma: payoffs 0 to 5, or 0 to -5.
                let a = payoffs(&state, "A");
                let text = game.observe(&state, Seat(1), false).expect("observe");
                offsets.insert(format!("{:?}", a[0]));
                assert!(a.iter().flatten().all(|cell| text.contains(&cell.to_string())), "{a:?}\n{text}");
                assert!(!text.contains("-0"), "{text}");
            }
        }
        assert_eq!(offsets.len(), 6, "three offsets, two signs: {offsets:?}");
    });
}
