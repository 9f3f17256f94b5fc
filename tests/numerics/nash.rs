//! Equilibria against nashpy's on the stored games of `data/nash_games.py`, and properties that need no reference.

use gift_host::game::nash::{Equilibrium, NashError, equilibria};
use proptest::prelude::*;
use serde_json::Value;

/// Probabilities are stored with 12 decimals and nashpy solves in doubles.
const TOLERANCE: f64 = 1e-9;

fn matrix(value: &Value) -> Vec<Vec<f64>> {
    let line = |line: &Value| line.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    value.as_array().unwrap().iter().map(line).collect()
}

fn stored_equilibria(value: &Value) -> Vec<Equilibrium> {
    let pair = |value: &Value| {
        let [row, column] = <[Vec<f64>; 2]>::try_from(matrix(value)).unwrap();
        Equilibrium { row, column }
    };
    value.as_array().unwrap().iter().map(pair).collect()
}

fn agree(ours: &[Equilibrium], theirs: &[Equilibrium]) -> bool {
    let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= TOLERANCE);
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| close(&a.row, &b.row) && close(&a.column, &b.column))
}

/// Order and values, for every stored game; where nashpy's rounding decided (see `nash_games.py`), the exact list.
#[test]
fn equilibria_are_those_of_nashpy() {
    let stored: Value = serde_json::from_str(include_str!("data/nash_games.json")).unwrap();
    let (mut like_nashpy, mut paper, mut exact_only) = (0, 0, 0);
    for (index, game) in stored["games"].as_array().unwrap().iter().enumerate() {
        let found = equilibria(&matrix(&game["a"]), &matrix(&game["b"])).unwrap();
        let nashpy = stored_equilibria(&game["nashpy"]);
        if let Some(exact) = game.get("exact") {
            let exact = stored_equilibria(exact);
            assert!(agree(&found, &exact), "game {index}: {game}\nfound {found:?}");
            assert!(!agree(&found, &nashpy), "game {index} needs no exact list: {game}");
            exact_only += 1;
        } else {
            assert!(agree(&found, &nashpy), "game {index}: {game}\nfound {found:?}");
            like_nashpy += 1;
            paper += usize::from(game["kind"].as_str().unwrap().contains(" * "));
        }
    }
    // All nine games of the paper, with both signs and three offsets, are among those nashpy gets right.
    assert_eq!((like_nashpy, paper, exact_only), (530, 54, 96));
}

/// The paper's success rule reads the last equilibrium listed, so the order is part of the result.
#[test]
fn mixed_equilibria_come_after_pure_ones() {
    let a = vec![vec![2.0, 0.0], vec![0.0, 1.0]];
    let b = vec![vec![1.0, 0.0], vec![0.0, 2.0]];
    let found: Vec<_> = equilibria(&a, &b).unwrap().into_iter().map(|e| e.row).collect();
    assert_eq!(found, [vec![1.0, 0.0], vec![0.0, 1.0], vec![2.0 / 3.0, 1.0 / 3.0]]);
}

/// Tenths are ties for the author, although their doubles differ.
#[test]
fn decimal_ties_are_ties() {
    let a = vec![vec![0.1 + 0.2, 1.0], vec![0.3, 0.0]];
    let b = vec![vec![1.0, 0.0], vec![1.0, 0.0]];
    let found: Vec<_> = equilibria(&a, &b).unwrap().into_iter().map(|e| e.row).collect();
    assert_eq!(found, [vec![1.0, 0.0], vec![0.0, 1.0]]);
}

#[test]
fn payoffs_of_any_magnitude_are_taken() {
    for scale in [f64::MAX / 4.0, 1e-300, 1.0 / 3.0] {
        let scaled = |m: [[f64; 2]; 2]| -> Vec<Vec<f64>> {
            m.iter().map(|line| line.iter().map(|x| x * scale).collect()).collect()
        };
        let found = equilibria(&scaled([[2.0, 0.0], [0.0, 1.0]]), &scaled([[1.0, 0.0], [0.0, 2.0]]));
        let found = found.unwrap();
        assert_eq!(found.len(), 3, "{scale}");
        assert!((found[2].row[0] - 2.0 / 3.0).abs() < TOLERANCE, "{scale}: {found:?}");
    }
}

/// A game of full size with no dominated strategy costs the most: every pair of supports is solved.
#[test]
fn the_largest_game_is_solved() {
    let a: Vec<Vec<f64>> = (0..8).map(|i| (0..8).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let b: Vec<Vec<f64>> = a.iter().map(|line| line.iter().map(|x| -x).collect()).collect();
    let found = equilibria(&a, &b).unwrap();
    assert_eq!(found, [Equilibrium { row: vec![0.125; 8], column: vec![0.125; 8] }]);
    // The identity for both players: each of the 255 supports against itself.
    assert_eq!(equilibria(&a, &a).unwrap().len(), 255);
}

#[test]
fn bad_matrices_are_refused() {
    let one = vec![vec![1.0]];
    let message = |a: &[Vec<f64>], b: &[Vec<f64>]| equilibria(a, b).unwrap_err().to_string();
    assert_eq!(equilibria(&[], &one), Err(NashError::Empty { player: "row" }));
    assert_eq!(equilibria(&one, &[vec![]]), Err(NashError::Empty { player: "column" }));
    let ragged = [vec![1.0, 2.0], vec![1.0]];
    assert_eq!(message(&ragged, &one), "row 2 of the row player's payoff matrix has 1 entries, expected 2");
    assert_eq!(
        message(&one, &[vec![1.0, 2.0]]),
        "the payoff matrices differ: 1x1 for the row player, 1x2 for the column player"
    );
    let wide = [vec![0.0; 9]];
    assert_eq!(message(&wide, &wide), "the game is 1x9, expected at most 8x8");
    assert_eq!(message(&one, &[vec![f64::NAN]]), "payoff [1][1] of the column player is not finite");
}

fn payoffs(rows: usize, columns: usize) -> impl Strategy<Value = Vec<Vec<f64>>> {
    let payoff = (-1000..1000).prop_map(|whole| f64::from(whole) / 10.0);
    prop::collection::vec(prop::collection::vec(payoff, columns), rows)
}

fn game() -> impl Strategy<Value = (Vec<Vec<f64>>, Vec<Vec<f64>>)> {
    (1_usize..6, 1_usize..6).prop_flat_map(|(m, n)| (payoffs(m, n), payoffs(m, n)))
}

proptest! {
    /// The definition: nobody gains by deviating to any pure strategy.
    #[test]
    fn every_equilibrium_is_a_pair_of_best_replies((a, b) in game()) {
        for Equilibrium { row, column } in equilibria(&a, &b).unwrap() {
            prop_assert!((row.iter().sum::<f64>() - 1.0).abs() < TOLERANCE);
            prop_assert!((column.iter().sum::<f64>() - 1.0).abs() < TOLERANCE);
            let row_values: Vec<f64> =
                a.iter().map(|line| line.iter().zip(&column).map(|(x, p)| x * p).sum()).collect();
            let column_values: Vec<f64> = (0..column.len())
                .map(|j| b.iter().zip(&row).map(|(line, p)| line[j] * p).sum())
                .collect();
            for (play, values) in [(&row, &row_values), (&column, &column_values)] {
                let best = values.iter().copied().fold(f64::MIN, f64::max);
                let earned: f64 = play.iter().zip(values).map(|(p, value)| p * value).sum();
                prop_assert!(best - earned < 1e-6, "{best} beats {earned} in {a:?} {b:?}");
            }
        }
    }

    /// Swapping the players swaps the strategies; the set of equilibria is the same.
    #[test]
    fn swapping_the_players_swaps_the_equilibria((a, b) in game()) {
        let flip = |m: &[Vec<f64>]| -> Vec<Vec<f64>> {
            (0..m[0].len()).map(|j| m.iter().map(|line| line[j]).collect()).collect()
        };
        let found = equilibria(&a, &b).unwrap();
        let swapped = equilibria(&flip(&b), &flip(&a)).unwrap();
        prop_assert_eq!(found.len(), swapped.len());
        for Equilibrium { row, column } in found {
            let mirrored = Equilibrium { row: column, column: row };
            prop_assert!(swapped.contains(&mirrored));
        }
    }
}
