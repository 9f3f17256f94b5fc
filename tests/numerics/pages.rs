//! Caches that share pages: whatever a sequence has in common with others, its logits are those of the sequence alone.

use gift_host::policy::{Chunk, Decoder, DecoderConfig, KvCache};
use gift_host::seed::Seed;

use super::decoder::{every_decoder, logits_in_pieces, qwen2, qwen3, weights};

/// Contexts that take several blocks of threads on a device, heads that it has kernels for, and heads that it has none for.
pub(super) fn configs() -> [DecoderConfig; 3] {
    [
        DecoderConfig { head_count: 4, kv_head_count: 2, head_dim: 32, max_positions: 700, ..qwen2() },
        DecoderConfig { head_count: 2, kv_head_count: 1, head_dim: 64, max_positions: 700, ..qwen3() },
        DecoderConfig { max_positions: 700, ..qwen3() },
    ]
}

/// Sequences that grow together, as tokens and caches.
struct Grove<'a> {
    decoder: &'a dyn Decoder,
    tokens: Vec<Vec<u32>>,
    caches: Vec<KvCache>,
}

impl Grove<'_> {
    /// Another sequence that begins as one does.
    fn branch(&mut self, from: usize, length: usize) {
        self.tokens.push(self.tokens[from][..length].to_vec());
        self.caches.push(self.caches[from].prefix(length));
    }

    /// Puts so many tokens behind each of some sequences, and compares.
    fn extend(&mut self, counts: &[(usize, usize)]) {
        let vocab_size = self.decoder.config().vocab_size;
        for &(sequence, count) in counts {
            let mut stream = Seed::new(self.tokens[sequence].len() as u64).child("sequence", sequence as u64).stream();
            self.tokens[sequence].extend((0..count).map(|_| stream.index(vocab_size) as u32));
        }
        let mut chunks = Vec::new();
        for (sequence, (tokens, cache)) in self.tokens.iter().zip(&mut self.caches).enumerate() {
            if counts.iter().any(|count| count.0 == sequence) {
                chunks.push(Chunk { tokens: &tokens[cache.len()..], cache });
            }
        }
        let found = self.decoder.extend(&mut chunks).expect("extended");
        for (&(sequence, _), found) in counts.iter().zip(found.chunks_exact(vocab_size)) {
            let expected = logits_in_pieces(self.decoder, &self.tokens[sequence..=sequence], 1000);
            // Logits are up to 10: sums of a few dozen terms in f32.
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 3e-5);
            assert!(close, "sequence {sequence} after {} tokens", self.tokens[sequence].len());
        }
    }
}

#[test]
fn sequences_that_share_pages_are_what_they_are_alone() {
    for config in configs() {
        for decoder in every_decoder(&config, &weights(&config, 1)) {
            let decoder = decoder.as_ref();
            let mut grove = Grove { decoder, tokens: vec![Vec::new()], caches: vec![decoder.new_cache()] };
            grove.extend(&[(0, 45)]);
            // In the middle of a page, at the end of one, and all of it.
            for length in [45, 20, 32, 45, 33] {
                grove.branch(0, length);
            }
            grove.extend(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 40), (5, 3)]);
            // The first one gives way; what others hold of it stays.
            grove.caches[0] = decoder.new_cache();
            grove.branch(4, 60);
            grove.extend(&[(1, 1), (2, 260), (3, 30), (4, 1), (5, 300), (6, 1)]);
            grove.extend(&[(0, 0), (1, 1), (2, 1), (5, 1), (6, 500)]);
            grove.extend(&[(0, 1), (2, 1), (6, 1)]);
        }
    }
}

/// What several caches hold counts once, and what is held is given back.
#[test]
fn pages_are_counted_once() {
    let config = &configs()[0];
    for decoder in every_decoder(config, &weights(config, 1)) {
        let mut first = decoder.new_cache();
        let page = first.growth(1);
        decoder.extend(&mut [Chunk { cache: &mut first, tokens: &[1; 70] }]).expect("extended");
        let mut second = first.prefix(65);
        assert_eq!((first.growth(1), second.growth(1), first.growth(27)), (page, page, 2 * page));
        assert_eq!(KvCache::total_bytes([&first, &second]), 3 * page);
        decoder.extend(&mut [Chunk { cache: &mut second, tokens: &[2] }]).expect("extended");
        assert_eq!(KvCache::total_bytes([&first, &second]), 4 * page);
        assert_eq!((first.growth(1), second.growth(1)), (0, 0));
    }
}
