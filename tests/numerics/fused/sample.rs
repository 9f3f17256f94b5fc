//! Tokens drawn where logits lie, against the sampler of the program: the same tokens for the same numbers.

use candle_core::{DType, Device, Tensor};
use gift_host::policy::fused::{SampleTokens, TokenDraw, draw_tables, sample_tokens};
use gift_host::policy::{Sampling, sample};
use gift_host::seed::{Seed, Stream};

use super::super::emulator::TYPES;
use super::{every_way, normal};

/// Draws of each row and list of ids; the emulator takes its time for 512 threads.
const DRAWS: u64 = 3;

fn stream(index: u64) -> Stream {
    Seed::new(7).child("draw", index).stream()
}

/// Draws from all rows among all ids, among few that are not in the first block, among one, and among more than a block has.
fn assert_same_tokens(logits: &Tensor, sampling: &Sampling) {
    let (rows, vocab) = logits.dims2().unwrap();
    let ids = |step: usize, count: usize| -> Vec<u32> {
        (0..vocab as u32).rev().step_by(step).take(count).collect::<Vec<_>>().into_iter().rev().collect()
    };
    let lists = [None, Some(ids(3, 5)), Some(ids(1, 1)), Some(ids(2, 600))];
    let mut draws = Vec::new();
    for row in 0..rows {
        for allowed in &lists {
            for _ in 0..DRAWS {
                let number = stream(draws.len() as u64).float();
                draws.push(TokenDraw { row, allowed: allowed.as_deref(), number });
            }
        }
    }
    let values: Vec<Vec<f32>> = logits.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
    let expected: Vec<_> = draws
        .iter()
        .enumerate()
        .map(|(index, draw)| sample(&values[draw.row], draw.allowed, sampling, &mut stream(index as u64)))
        .collect();
    let [table, allowed] = draw_tables(&draws, &Device::Cpu).unwrap();
    for (way, outputs) in every_way(&SampleTokens { sampling: *sampling }, &[logits, &table, &allowed]) {
        let found: Vec<Vec<f32>> = outputs[0].to_vec2().unwrap();
        let mut different = 0;
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let name = format!("draw {index} of {vocab} ids {:?} {sampling:?} {way}", logits.dtype());
            if found[0].to_bits() != expected.token {
                // Sums of other roundings part where a number falls between.
                assert!(way != "on the CPU", "{name}: {} is not {}", found[0].to_bits(), expected.token);
                different += 1;
                continue;
            }
            assert!((found[1] - expected.log_prob).abs() < 1e-5, "{name}: {}, not {expected:?}", found[1]);
        }
        assert!(different <= 1, "{different} of {} draws differ: {sampling:?} {way}", draws.len());
    }
}

#[test]
fn tokens_are_those_of_the_host() {
    let plain = Sampling::default();
    let kinds = [
        plain,
        Sampling { temperature: 0.7, ..plain },
        Sampling { temperature: 0.0, ..plain },
        Sampling { temperature: 0.0, top_k: 3, ..plain },
        Sampling { top_k: 1, ..plain },
        Sampling { top_k: 40, ..plain },
        Sampling { top_k: 4000, ..plain },
        Sampling { top_p: 0.9, ..plain },
        Sampling { top_p: 1e-9, ..plain },
        Sampling { min_p: 0.02, ..plain },
        Sampling { temperature: 1.5, top_k: 100, top_p: 0.95, min_p: 0.001 },
        Sampling { temperature: 1.5, top_k: 5, top_p: 0.999, min_p: 0.0 },
    ];
    let logits = normal(1, &[2, 2300], 2.0, DType::F32);
    for sampling in &kinds {
        assert_same_tokens(&logits, sampling);
    }
}

/// In 16 bits many logits are equal, and their ids decide.
#[test]
fn tokens_of_equal_logits_are_those_of_the_host() {
    let cuts = Sampling { temperature: 1.5, top_k: 900, top_p: 0.9, min_p: 0.01 };
    for dtype in TYPES {
        // Less than a block, and more.
        for vocab in [67, 1300] {
            let logits = normal(3, &[2, vocab], 2.0, dtype);
            for sampling in [Sampling::default(), Sampling { temperature: 0.0, ..cuts }, cuts] {
                assert_same_tokens(&logits, &sampling);
            }
        }
    }
}

/// More ids than the threads of a block have blocks for, and logits of trained models: few tokens have most of the mass.
#[test]
fn tokens_of_large_vocabularies_are_those_of_the_host() {
    let logits = (normal(2, &[1, 40_000], 1.0, DType::F32).powf(3.0).unwrap() / 2.0).unwrap();
    for sampling in [Sampling::default(), Sampling { temperature: 0.8, top_k: 1000, top_p: 0.9, min_p: 1e-4 }] {
        assert_same_tokens(&logits, &sampling);
    }
}

/// What is not finite is impossible; where nothing is possible nothing is drawn.
#[test]
fn logits_that_are_not_finite_are_not_drawn() {
    for dtype in TYPES {
        let mut values = vec![f32::NAN; 3 * 300];
        (values[5], values[17], values[40]) = (f32::INFINITY, 1.0, f32::NEG_INFINITY);
        values[600..].fill(-2.0);
        let logits = Tensor::from_vec(values, (3, 300), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let allowed = [4_u32, 9];
        let draws = [(0, None), (1, None), (1, Some(&allowed[..])), (0, Some(&allowed)), (2, None)];
        let draws = draws.map(|(row, allowed)| TokenDraw { row, allowed, number: 0.999 });
        for sampling in [
            Sampling::default(),
            Sampling { temperature: 0.0, ..Sampling::default() },
            Sampling { top_k: 200, top_p: 0.99, min_p: 0.1, ..Sampling::default() },
        ] {
            let [table, list] = draw_tables(&draws, &Device::Cpu).unwrap();
            for (way, outputs) in every_way(&SampleTokens { sampling }, &[&logits, &table, &list]) {
                let found: Vec<Vec<f32>> = outputs[0].to_vec2().unwrap();
                let tokens: Vec<u32> = found.iter().map(|pair| pair[0].to_bits()).collect();
                assert_eq!(tokens[..4], [17, 0, 4, 4], "{dtype:?} {sampling:?} {way}");
                assert!(found[0][1].abs() < 1e-6, "{way}");
                assert!(found[1..4].iter().all(|pair| pair[1] == f32::INFINITY), "{way}");
                assert!((found[4][1] + 300_f32.ln()).abs() < 1e-5, "{way}");
            }
            let found = sample_tokens(&logits, &draws, &sampling).unwrap();
            assert!(found[0].is_some() && found[1..4].iter().all(Option::is_none));
        }
        assert!(sample_tokens(&logits, &[TokenDraw { row: 3, ..draws[0] }], &Sampling::default()).is_err());
    }
}
