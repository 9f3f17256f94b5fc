//! A device goes on with drawn tokens before the program has seen them: what is sampled is what it would be without.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};
use gift_host::policy::{
    Batcher, CandleDecoder, Chunk, DecoderConfig, Draw, Error, Inference, InferenceAhead, KvCache, Logits, Pass,
    Request, Sampling,
};
use gift_host::seed::{Seed, Stream};

use super::decoder::{devices, weights};
use super::pages::configs;

const SEQUENCES: usize = 8;
const TURNS: usize = 3;

/// A decoder that goes ahead wherever it computes, or nowhere; counts passes.
struct Counted {
    decoder: CandleDecoder,
    is_ahead: bool,
    asked: AtomicUsize,
    ahead: AtomicUsize,
}

impl Inference for Counted {
    fn config(&self) -> &DecoderConfig {
        self.decoder.config()
    }

    fn new_cache(&self) -> KvCache {
        self.decoder.new_cache()
    }

    fn extend(&self, chunks: &mut [Chunk<'_>]) -> Result<Vec<f32>, Error> {
        self.decoder.extend(chunks)
    }

    fn extend_in_place(&self, chunks: &mut [Chunk<'_>]) -> Result<Logits, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.decoder.extend_in_place(chunks)
    }

    fn ahead(&self) -> Option<&dyn InferenceAhead> {
        self.is_ahead.then_some(self)
    }
}

impl InferenceAhead for Counted {
    fn extend_by_drawn(&self, caches: &mut [&mut KvCache], tokens: &Tensor) -> Result<Logits, Error> {
        self.ahead.fetch_add(1, Ordering::Relaxed);
        self.decoder.extend_by_drawn(caches, tokens)
    }
}

/// How a sequence is played: how many tokens of each turn are drawn, which puts a few others behind a token now and then, and is not
/// asked for at every step.
struct Player {
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    stream: Stream,
    left: usize,
}

/// All tokens, and the log-probabilities of those that were sampled.
fn play(decoder: &Counted, max_tokens: usize, max_bytes: usize) -> Vec<(Vec<u32>, Vec<f32>)> {
    let mut batcher = Batcher::new(SEQUENCES, max_tokens, max_bytes);
    let vocab_size = decoder.config().vocab_size;
    let text = |seed: u64, count: usize| -> Vec<u32> {
        let mut stream = Seed::new(seed).stream();
        (0..count).map(|_| stream.index(vocab_size) as u32).collect()
    };
    // Two groups with a prompt each.
    let mut players: Vec<Player> = (0..SEQUENCES)
        .map(|sequence| Player {
            tokens: text(sequence as u64 % 2, 45),
            log_probs: Vec::new(),
            stream: Seed::new(5).child("player", sequence as u64).stream(),
            left: 0,
        })
        .collect();
    for turn in 0..TURNS {
        for (sequence, player) in players.iter_mut().enumerate() {
            player.left = 3 + 2 * sequence;
            if turn > 0 {
                player.tokens.extend(text(100 + (turn * SEQUENCES + sequence) as u64, sequence % 3 * 20 + 1));
            }
        }
        for step in 0.. {
            assert!(step < 10_000, "no progress");
            let is_asked = |sequence: usize| !(step + sequence).is_multiple_of(5);
            if players.iter().all(|player| player.left == 0) {
                break;
            }
            let waiting =
                players.iter().enumerate().filter(|(sequence, player)| player.left > 0 && is_asked(*sequence));
            let requests: Vec<Request<'_>> =
                waiting.map(|(sequence, player)| Request { sequence, tokens: &player.tokens }).collect();
            let passes = batcher.step(decoder, &requests).expect("computed");
            let sequences: Vec<usize> = passes.iter().flat_map(Pass::sequences).collect();
            let allowed: Vec<u32> = (0..vocab_size as u32).step_by(3).collect();
            let mut streams: Vec<Option<&mut Stream>> =
                players.iter_mut().map(|player| Some(&mut player.stream)).collect();
            let draw = |&index: &usize| {
                let stream = streams[index].take().expect("a sequence of one pass");
                Draw { index, allowed: index.is_multiple_of(2).then_some(&allowed[..]), stream }
            };
            let draws = sequences.iter().map(draw).collect();
            let drawn = batcher.sample(decoder, &Sampling::default(), &passes, draws).expect("drawn");
            assert!(max_bytes == 0 || batcher.cache_bytes() <= max_bytes, "{} bytes", batcher.cache_bytes());
            for (sequence, drawn) in sequences.into_iter().zip(drawn) {
                let player = &mut players[sequence];
                player.tokens.push(drawn.token);
                player.log_probs.push(drawn.log_prob);
                player.left -= 1;
                if drawn.token.is_multiple_of(4) {
                    player.tokens.extend([1, 2]); // what leaves no choice is not drawn
                }
            }
        }
    }
    (0..SEQUENCES).for_each(|sequence| batcher.finish(sequence));
    players.into_iter().map(|player| (player.tokens, player.log_probs)).collect()
}

#[test]
fn going_ahead_changes_nothing_that_is_sampled() {
    let config = &configs()[0];
    for device in devices() {
        let of = |is_ahead: bool| Counted {
            decoder: CandleDecoder::new(config.clone(), &weights(config, 1), device.clone(), DType::F32).expect("fits"),
            is_ahead,
            asked: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
        };
        let page = of(false).first_growth(1);
        // Room for everything; passes too small for all; caches of which some give way; one token a pass.
        for (max_tokens, max_bytes) in [(1000, 0), (4, 0), (1000, 12 * page), (1, 0)] {
            let (plain, ahead) = (of(false), of(true));
            let expected = play(&plain, max_tokens, max_bytes);
            let found = play(&ahead, max_tokens, max_bytes);
            for ((tokens, log_probs), (expected, expected_log_probs)) in found.iter().zip(&expected) {
                assert_eq!(tokens, expected, "{max_tokens} tokens a pass, {max_bytes} bytes");
                // Sums in `f32` in another order, as other rows share the passes.
                assert!(log_probs.iter().zip(expected_log_probs).all(|(a, b)| (a - b).abs() < 2e-5));
            }
            let count = |decoder: &Counted| [&decoder.asked, &decoder.ahead].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(count(&plain)[1], 0);
            let [asked, ahead] = count(&ahead);
            assert!(ahead > 20, "{asked} passes that were asked for, {ahead} ahead");
            if max_tokens == 1000 && max_bytes == 0 {
                // Prompts, what was not drawn, and what was not asked for at once.
                assert!(asked < count(&plain)[0], "{asked} passes that were asked for, {ahead} ahead");
            }
        }
    }
}
