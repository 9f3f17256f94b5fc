//! One player's side of an episode as tokens: observations are appended, answers are sampled behind them, nothing is ever
//! taken back. Knows no rules: who asks says which answers are legal and reads the text.
//!
//! [`advance`] samples one token for many dialogues with one model: those of a learner, or those of a frozen opponent.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::seed::Stream;

use super::{AnswerTrie, Batcher, Draw, Error, Inference, Lease, Pass, Request, Sampled, Sampling, Target, Tokenizer};

/// Tokens that a thread takes in one after the other: fewer are not worth waking another one.
const ACCEPTED_TOGETHER: usize = 128;

impl AnswerRules {
    /// A batcher within these bounds, for dialogues with one model.
    pub fn batcher(&self) -> Batcher {
        Batcher::new(0, self.max_batch_tokens, self.max_cache_bytes)
    }
}

/// Where a free answer ends without the model's end token.
#[derive(Clone, Copy, Debug)]
pub struct StopRule {
    /// The last byte of every complete answer, spaces behind it aside.
    pub last_byte: u8,
    /// Whether nothing can be added to an answer of this text.
    pub is_complete: fn(&str) -> bool,
}

impl StopRule {
    /// Whether the sampled tokens are a complete answer.
    fn ends(&self, answer: &[u32], tokenizer: &Tokenizer) -> bool {
        let Some(&last) = answer.last() else { return false };
        // Reading the whole text for every token would take as the square of its length.
        tokenizer.token_text(last).trim_end().as_bytes().last() == Some(&self.last_byte)
            && (self.is_complete)(&tokenizer.decode(answer))
    }
}

/// How answers are sampled.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRules {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most sampled tokens of an answer.
    pub max_new_tokens: usize,
    /// Most tokens of a dialogue.
    pub max_context: usize,
    /// Most tokens that one forward pass takes, all dialogues together.
    pub max_batch_tokens: usize,
    /// Most bytes of keys and values, all dialogues together; 0: no bound.
    pub max_cache_bytes: usize,
    /// Where free answers end beside the end token.
    pub stop: Option<StopRule>,
}

/// The answer that is being sampled, or waits to be taken.
#[derive(Debug)]
struct Answer {
    /// Position of its first token.
    start: usize,
    /// What may be sampled, and how far it is.
    trie: Option<(AnswerTrie, usize)>,
    is_complete: bool,
}

/// The tokens that a player saw and sampled.
#[derive(Debug)]
pub struct Dialogue {
    /// All tokens: observations, answers, special tokens.
    pub tokens: Vec<u32>,
    /// The sampled ones, ascending, with the ids each was sampled among.
    pub targets: Vec<Target>,
    /// Log-probability of each target, nats.
    pub log_probs: Vec<f32>,
    /// Tokens of observations.
    pub prompt_count: usize,
    /// Whether an answer was cut.
    pub is_cut: bool,
    /// Its place among the sequences that are computed.
    lease: Option<Arc<Lease>>,
    answer: Option<Answer>,
    stream: Stream,
}

impl Dialogue {
    /// An empty dialogue whose tokens will be drawn from `stream`.
    pub fn new(stream: Stream) -> Self {
        Self {
            tokens: Vec::new(),
            targets: Vec::new(),
            log_probs: Vec::new(),
            prompt_count: 0,
            is_cut: false,
            lease: None,
            answer: None,
            stream,
        }
    }

    /// Puts an observation before the model; `legal` holds the legal answers, if only those may be sampled. False, and
    /// nothing is appended, if the longest answer would not fit into the context.
    pub fn ask(
        &mut self,
        observation: &str,
        legal: Option<AnswerTrie>,
        tokenizer: &Tokenizer,
        rules: &AnswerRules,
    ) -> bool {
        let prompt = tokenizer.prompt(observation, self.tokens.is_empty());
        // A constrained answer ends by itself, but may be longer than a free one.
        let longest = legal.as_ref().map_or(rules.max_new_tokens, AnswerTrie::longest);
        if self.tokens.len() + prompt.len() + longest + 1 > rules.max_context {
            return false;
        }
        let trie = legal.map(|legal| (legal, AnswerTrie::ROOT));
        self.prompt_count += prompt.len();
        self.tokens.extend(prompt);
        self.answer = Some(Answer { start: self.tokens.len(), trie, is_complete: false });
        self.take_forced(tokenizer, rules);
        true
    }

    /// Whether the model has to sample the next token.
    pub fn is_open(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_complete)
    }

    /// The text of a complete answer, once.
    pub fn take_answer(&mut self, tokenizer: &Tokenizer) -> Option<String> {
        let answer = self.answer.take_if(|answer| answer.is_complete)?;
        let end = self.tokens.len().saturating_sub(1).max(answer.start);
        Some(tokenizer.decode(&self.tokens[answer.start..end]))
    }

    /// Gives back the memory of keys and values; they are computed again if the dialogue goes on.
    pub fn forget_cache(&mut self) {
        self.lease = None;
    }

    /// The ids that the next token is drawn among.
    fn allowed(&self) -> Option<Arc<[u32]>> {
        let (trie, node) = self.answer.as_ref()?.trie.as_ref()?;
        Some(Arc::clone(trie.allowed(*node)))
    }

    /// Appends the next token, which was drawn among `allowed`.
    fn accept(&mut self, drawn: Sampled, allowed: Option<Arc<[u32]>>, tokenizer: &Tokenizer, rules: &AnswerRules) {
        let Some(answer) = &mut self.answer else { return };
        if let Some((trie, node)) = &mut answer.trie {
            *node = trie.next(*node, drawn.token).unwrap_or(AnswerTrie::ROOT);
        }
        self.targets.push(Target { position: self.tokens.len() as u32, allowed });
        self.log_probs.push(drawn.log_prob);
        self.tokens.push(drawn.token);
        self.take_forced(tokenizer, rules);
    }

    /// Appends the tokens that the constraint leaves no choice about, and notices the end of the answer.
    fn take_forced(&mut self, tokenizer: &Tokenizer, rules: &AnswerRules) {
        let Some(answer) = &mut self.answer else { return };
        if let Some((trie, node)) = &mut answer.trie {
            while let [only] = **trie.allowed(*node) {
                self.tokens.push(only);
                *node = trie.next(*node, only).unwrap_or(AnswerTrie::ROOT);
            }
        }
        let written = self.tokens.len() - answer.start;
        if written > 0 && self.tokens.last().is_some_and(|last| tokenizer.ends().contains(last)) {
            answer.is_complete = true;
        } else if answer.trie.is_none()
            && rules.stop.is_some_and(|stop| stop.ends(&self.tokens[answer.start..], tokenizer))
        {
            // As after a cut, but nothing is missing.
            self.tokens.push(tokenizer.end());
            answer.is_complete = true;
        } else if written >= rules.max_new_tokens && answer.trie.is_none() {
            // Cut: the end token is put in by the host, not sampled.
            self.tokens.push(tokenizer.end());
            self.is_cut = true;
            answer.is_complete = true;
        }
    }
}

/// A dialogue whose next token is drawn.
struct Served<'a> {
    sequence: usize,
    allowed: Option<Arc<[u32]>>,
    dialogue: &'a mut Dialogue,
}

impl Served<'_> {
    /// Every dialogue draws from a stream of its own.
    fn draw(&mut self) -> Draw<'_> {
        Draw { index: self.sequence, allowed: self.allowed.as_deref(), stream: &mut self.dialogue.stream }
    }
}

/// Takes every dialogue, all of which must be open, towards its next token: samples it wherever the batcher has all that
/// stands before it computed; the others are to be given again. What a dialogue samples depends neither on the others nor on
/// the size of a pass.
///
/// # Errors
/// As [`Inference::extend`].
pub fn advance(
    dialogues: &mut [&mut Dialogue],
    batcher: &mut Batcher,
    decoder: &dyn Inference,
    tokenizer: &Tokenizer,
    rules: &AnswerRules,
) -> Result<(), Error> {
    if dialogues.is_empty() {
        return Ok(());
    }
    let sequences: Vec<usize> = dialogues.iter_mut().map(|dialogue| batcher.sequence(&mut dialogue.lease)).collect();
    let requests: Vec<Request<'_>> = dialogues
        .iter()
        .zip(&sequences)
        .map(|(dialogue, &sequence)| Request { sequence, tokens: &dialogue.tokens })
        .collect();
    let passes = batcher.step(decoder, &requests)?;
    let mut waiting: HashMap<usize, &mut Dialogue> =
        sequences.into_iter().zip(dialogues.iter_mut().map(|dialogue| &mut **dialogue)).collect();
    let served = passes.iter().flat_map(Pass::sequences).filter_map(|sequence| {
        let dialogue = waiting.remove(&sequence)?;
        Some(Served { sequence, allowed: dialogue.allowed(), dialogue })
    });
    let mut served: Vec<Served<'_>> = served.collect();
    let draws = served.iter_mut().map(Served::draw).collect();
    let drawn = batcher.sample(decoder, &rules.sampling, &passes, draws)?;
    let pairs = served.into_par_iter().zip(drawn).with_min_len(ACCEPTED_TOGETHER);
    pairs.for_each(|(served, drawn)| served.dialogue.accept(drawn, served.allowed, tokenizer, rules));
    Ok(())
}
