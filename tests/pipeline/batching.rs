//! What sequences share, how prompts are cut and which caches give way decides about time and memory, never about a token.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device};
use gift_host::policy::{BatchStats, Batcher, Draw, PrefixCache, Request};
use gift_host::policy::{CandleDecoder, CpuDecoder, DecoderConfig, Inference, Sampling, initial_weights, sample};
use gift_host::seed::{Seed, Stream};

use super::support::pool;

const VOCABULARY: usize = 300;
const TURNS: usize = 3;
const PROMPT: usize = 70;
const TURN_PROMPT: usize = 9;
const NEW: usize = 12;
/// A block of 32 positions of the tiny model: keys and values, 2 layers, 2 heads of 32.
const BLOCK_BYTES: usize = 2 * 2 * 2 * 32 * 32 * 4;

fn decoder() -> CpuDecoder {
    let config = DecoderConfig::tiny(VOCABULARY);
    CpuDecoder::new(config.clone(), &initial_weights(&config, Seed::new(3))).expect("a decoder")
}

/// Three groups of four members: two prompts begin alike for 40 tokens, one is different.
fn prompt(sequence: usize) -> Vec<u32> {
    let group = sequence / 4;
    let mut common = Seed::new(1).stream();
    let mut own = Seed::new(2).child("group", group as u64).stream();
    let token = |stream: &mut Stream| stream.index(VOCABULARY) as u32;
    let shared = if group < 2 { 40 } else { 0 };
    let mut tokens: Vec<u32> = (0..shared).map(|_| token(&mut common)).collect();
    tokens.extend((shared..PROMPT).map(|_| token(&mut own)));
    tokens
}

/// The tokens of a sequence and the bits of the log-probabilities of the sampled ones.
type Played = (Vec<u32>, Vec<u32>);

/// Every sequence after some turns, and what batching did.
fn play(threads: usize, max_batch_tokens: usize, max_cache_bytes: usize) -> (Vec<Played>, BatchStats) {
    play_with(threads, Batcher::new(12, max_batch_tokens, max_cache_bytes))
}

fn play_with(threads: usize, batcher: Batcher) -> (Vec<Played>, BatchStats) {
    play_on(&decoder(), threads, batcher)
}

fn play_on(decoder: &dyn Inference, threads: usize, mut batcher: Batcher) -> (Vec<Played>, BatchStats) {
    pool(threads).install(|| {
        let sampling = Sampling::default();
        let mut streams: Vec<Stream> =
            (0..12).map(|sequence| Seed::new(4).child("member", sequence).stream()).collect();
        let mut played: Vec<Played> = (0..12).map(|sequence| (prompt(sequence), Vec::new())).collect();
        for turn in 1..=TURNS {
            let mut steps = 0;
            loop {
                let waiting = |entry: &(usize, &Played)| entry.1.1.len() < turn * NEW;
                let requests: Vec<Request<'_>> = played
                    .iter()
                    .enumerate()
                    .filter(waiting)
                    .map(|(sequence, (tokens, _))| Request { sequence, tokens })
                    .collect();
                if requests.is_empty() {
                    break;
                }
                for pass in batcher.step(decoder, &requests).expect("computed") {
                    let sequences: Vec<usize> = pass.sequences().collect();
                    let streams = streams.iter_mut().enumerate().filter(|(sequence, _)| sequences.contains(sequence));
                    let draws = streams.map(|(index, stream)| Draw { index, allowed: None, stream }).collect();
                    let drawn = batcher.sample(decoder, &sampling, &[pass], draws).expect("drawn");
                    for (sequence, drawn) in sequences.into_iter().zip(drawn) {
                        played[sequence].0.push(drawn.token);
                        played[sequence].1.push(drawn.log_prob.to_bits());
                    }
                }
                steps += 1;
                assert!(steps < 100_000, "no progress");
            }
            for (sequence, (tokens, _)) in played.iter_mut().enumerate() {
                tokens.extend((0..TURN_PROMPT).map(|position| ((sequence * 31 + position * 7) % VOCABULARY) as u32));
            }
        }
        let stats = batcher.stats();
        (0..12).for_each(|sequence| batcher.finish(sequence));
        (played, stats)
    })
}

/// The reference: every sequence alone, every token computed anew from the start, at every step.
fn alone(sequence: usize) -> Played {
    let decoder = decoder();
    let mut stream = Seed::new(4).child("member", sequence as u64).stream();
    let (mut tokens, mut bits) = (prompt(sequence), Vec::new());
    for _ in 0..TURNS {
        for _ in 0..NEW {
            let mut cache = decoder.new_cache();
            let mut chunks = [gift_host::policy::Chunk { cache: &mut cache, tokens: &tokens }];
            let logits = decoder.extend(&mut chunks).expect("computed");
            let drawn = sample(&logits, None, &Sampling::default(), &mut stream);
            tokens.push(drawn.token);
            bits.push(drawn.log_prob.to_bits());
        }
        tokens.extend((0..TURN_PROMPT).map(|position| ((sequence * 31 + position * 7) % VOCABULARY) as u32));
    }
    (tokens, bits)
}

#[test]
fn batching_sharing_threads_and_preemption_change_no_bit() {
    let expected: Vec<_> = (0..12).map(alone).collect();
    for (threads, batch, cache) in [(1, 8192, 0), (2, 8192, 0), (3, 17, 0), (2, 5, 0), (2, 100, 14 * BLOCK_BYTES)] {
        let (played, stats) = play(threads, batch, cache);
        assert!(played == expected, "{threads} threads, {batch} tokens a pass, {cache} bytes of caches: {stats:?}");
    }
}

#[test]
fn a_token_for_a_sequence_without_logits_is_refused() {
    let (decoder, mut batcher) = (decoder(), Batcher::new(12, 8192, 0));
    let tokens = prompt(0);
    let passes = batcher.step(&decoder, &[Request { sequence: 0, tokens: &tokens }]).expect("computed");
    let mut streams = [0, 1].map(|sequence| Seed::new(4).child("member", sequence).stream());
    let draws = streams.iter_mut().enumerate().map(|(index, stream)| Draw { index, allowed: None, stream }).collect();
    let problem = batcher.sample(&decoder, &Sampling::default(), &passes, draws).expect_err("sequence 1 has no logits");
    assert_eq!(problem.to_string(), "`sequence`: expected one of the passes, in their order, found 1");
}

/// Nothing that is computed is computed again: a prompt counts once a group, the beginning of two prompts once, and no turn
/// goes over the earlier ones.
#[test]
fn what_is_shared_is_computed_once() {
    let (_, stats) = play(2, 8192, 0);
    let prompts = PROMPT + (PROMPT - 40) + PROMPT;
    // Every sampled token but the last of a trajectory, and the later turns' texts.
    let own = 12 * (TURNS * NEW - 1 + (TURNS - 1) * TURN_PROMPT);
    let unshared = 12 * PROMPT + own;
    // Members that happen to sample alike are computed once as well.
    assert!(stats.computed <= prompts + own && stats.computed + 12 * 4 > prompts + own, "{stats:?}");
    assert_eq!(stats.computed + stats.shared, unshared, "{stats:?}");
    assert_eq!(stats.preempted, 0);
}

/// A frozen model knows again what it met in an earlier rollout, and plays on as if it had computed it.
#[test]
fn what_an_earlier_rollout_computed_is_taken_over() {
    let (expected, fresh) = play(2, 8192, 0);
    for (max_bytes, is_room) in [(64 << 20, true), (6 * BLOCK_BYTES, false)] {
        let known = Arc::new(Mutex::new(PrefixCache::new(max_bytes)));
        for rollout in 0..3 {
            let (played, stats) = play_with(2, Batcher::new(12, 8192, 0).with_prefix_cache(Arc::clone(&known)));
            assert!(played == expected, "rollout {rollout} with {max_bytes} bytes: {stats:?}");
            match (rollout, is_room) {
                (0, _) => assert_eq!((stats.recalled, stats.computed), (0, fresh.computed)),
                // All prompts and turns; what is left are the sampled tokens.
                (_, true) => {
                    let texts = 12 * (PROMPT + (TURNS - 1) * (TURN_PROMPT + 1));
                    assert!(stats.recalled >= texts && stats.computed <= 12 * TURNS * (NEW - 1), "{stats:?}");
                }
                (_, false) => assert!(stats.computed + 2 * PROMPT > fresh.computed, "{stats:?}"),
            }
        }
    }
}

/// Caches stay below the bound as long as more than one sequence is held, and what gave way is computed again.
#[test]
fn bounded_caches_give_way_and_come_back() {
    let (_, free) = play(2, 8192, 0);
    let bound = 14 * BLOCK_BYTES;
    let (_, stats) = play(2, 8192, bound);
    assert!(stats.peak_cache_bytes > bound / 2 && stats.peak_cache_bytes <= bound, "{stats:?} under {bound}");
    assert!(stats.preempted > 0 && stats.computed > free.computed, "{stats:?}");
    // Even a bound below one sequence lets the rollout end.
    let (_, tight) = play(1, 64, 1);
    assert!(tight.preempted > 0, "{tight:?}");
}

/// The decoder on candle tensors has pages in place of blocks and draws where the logits are: the same tokens, with
/// log-probabilities of sums in another order.
#[test]
fn pages_that_give_way_and_come_back_change_no_token() {
    let config = DecoderConfig::tiny(VOCABULARY);
    let weights = initial_weights(&config, Seed::new(3));
    let decoder = CandleDecoder::new(config, &weights, Device::Cpu, DType::F32).expect("a decoder");
    let expected: Vec<_> = (0..12).map(alone).collect();
    let known = Arc::new(Mutex::new(PrefixCache::new(64 << 20)));
    let bound = 14 * BLOCK_BYTES;
    let batchers = [
        Batcher::new(12, 8192, 0),
        Batcher::new(12, 100, bound),
        Batcher::new(12, 8192, 0).with_prefix_cache(Arc::clone(&known)),
        Batcher::new(12, 8192, 0).with_prefix_cache(known),
    ];
    for (index, batcher) in batchers.into_iter().enumerate() {
        let (played, stats) = play_on(&decoder, 2, batcher);
        for ((tokens, log_probs), (expected_tokens, expected_log_probs)) in played.iter().zip(&expected) {
            assert_eq!(tokens, expected_tokens, "{stats:?}");
            for (&found, &expected) in log_probs.iter().zip(expected_log_probs) {
                assert!((f32::from_bits(found) - f32::from_bits(expected)).abs() < 1e-4);
            }
        }
        match index {
            1 => assert!(stats.preempted > 0 && stats.peak_cache_bytes <= bound, "{stats:?}"),
            3 => assert!(stats.recalled > 0, "{stats:?}"),
            _ => assert_eq!((stats.preempted, stats.recalled), (0, 0), "{stats:?}"),
        }
    }
}
