//! A model that is not trained in a seat: `checkpoint:DIR`, or a snapshot of a league. Its prompts and the reading of its
//! answers are those of the learner's seats; its tokens are never trained on.
//!
//! One [`FrozenModel`] serves all seats of all episodes: whoever plays them takes every dialogue that waits for it one token
//! further at a time ([`FrozenModel::advance`]). Each seat of each episode has a dialogue of its own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::form::stop_rule;
use super::lineup::{Answer, Fault, Opponent, Reply, View};
use super::scripted::random_action;
use crate::config::{AnswerFormat, Constrain, ObservationKind, OnInvalid, RunConfig};
use crate::diag::Diagnostic;
use crate::game::told_again;
use crate::policy::{AnswerRules, Batcher, Dialogue, Inference, PrefixCache, Sampling, Tokenizer, advance};
use crate::seed::{Seed, Stream};

/// Bytes that a model keeps of what it computed at earlier positions.
const MAX_KNOWN_BYTES: usize = 64 << 20;

/// Reads a model and puts it on the run's device: its weights, its tokenizer, and where it was found (for a run directory,
/// its newest checkpoint).
pub type ModelLoader = dyn Fn(&Path) -> Result<LoadedModel, Box<Diagnostic>> + Send + Sync;

/// What a [`ModelLoader`] finds.
pub struct LoadedModel {
    /// The model.
    pub decoder: Box<dyn Inference>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The folder or file that was read.
    pub place: std::path::PathBuf,
}

/// How frozen models play.
#[derive(Clone, Debug)]
pub(super) struct FrozenSettings {
    observation: ObservationKind,
    constrain: Constrain,
    format: AnswerFormat,
    rules: AnswerRules,
    invalid_tries: usize,
    on_invalid: OnInvalid,
}

impl FrozenSettings {
    /// The learner's observations and answers, at the temperature and with the patience of `[remote]`.
    pub(super) fn new(config: &RunConfig) -> Self {
        let (decode, rollout, remote) = (&config.decode, &config.rollout, &config.remote);
        Self {
            observation: decode.observation,
            constrain: decode.constrain,
            format: decode.format,
            rules: AnswerRules {
                // Not top-k and the like of the learner: they may change in mid-run, and an opponent must not.
                sampling: Sampling { temperature: remote.temperature as f32, ..Sampling::default() },
                max_new_tokens: rollout.max_new_tokens,
                max_context: if rollout.max_context == 0 { usize::MAX } else { rollout.max_context },
                max_batch_tokens: rollout.max_batch_tokens,
                max_cache_bytes: rollout.max_cache_mib.saturating_mul(1 << 20),
                stop: if decode.stop { stop_rule(decode.format) } else { None },
            },
            invalid_tries: remote.invalid_tries,
            on_invalid: remote.on_invalid,
        }
    }
}

/// A model that plays seats and is not trained.
pub struct FrozenModel {
    name: String,
    decoder: Box<dyn Inference>,
    tokenizer: Tokenizer,
    settings: FrozenSettings,
    /// What it computed at the positions it met last; none where keys and values are bounded.
    known: Option<Arc<Mutex<PrefixCache>>>,
}

impl std::fmt::Debug for FrozenModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrozenModel({})", self.name)
    }
}

impl FrozenModel {
    pub(super) fn new(name: String, loaded: LoadedModel, settings: &FrozenSettings) -> Self {
        let mut settings = settings.clone();
        settings.rules.max_context = settings.rules.max_context.min(loaded.decoder.config().max_positions);
        let is_bounded = settings.rules.max_cache_bytes > 0;
        let known = (!is_bounded).then(|| Arc::new(Mutex::new(PrefixCache::new(MAX_KNOWN_BYTES))));
        Self { name, decoder: loaded.decoder, tokenizer: loaded.tokenizer, settings, known }
    }

    /// What keeps the caches of dialogues with this model.
    pub fn batcher(&self) -> Batcher {
        let batcher = self.settings.rules.batcher();
        match &self.known {
            Some(known) => batcher.with_prefix_cache(Arc::clone(known)),
            None => batcher,
        }
    }

    /// Takes dialogues that wait for this model one token further, in batches.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the model fails.
    pub fn advance(&self, dialogues: &mut [&mut Dialogue], batcher: &mut Batcher) -> Result<(), Box<Diagnostic>> {
        advance(dialogues, batcher, self.decoder.as_ref(), &self.tokenizer, &self.settings.rules).map_err(|error| {
            Box::new(
                Diagnostic::error("model::failed", format!("the model of `{}` failed", self.name))
                    .found(error.to_string())
                    .help(
                        "go on with `--resume`; if the device has too little memory, lower `rollout.max_batch_tokens`",
                    ),
            )
        })
    }
}

/// The passes of frozen models over many episodes, each model with the caches of its dialogues.
#[derive(Debug, Default)]
pub struct ModelPasses(Vec<(Arc<FrozenModel>, Batcher)>);

impl ModelPasses {
    /// Takes every dialogue that waits for a model towards its next token, those of one model together; false if there was
    /// none.
    ///
    /// # Errors
    /// A [`Diagnostic`] if a model fails.
    pub fn advance<'a>(
        &mut self,
        waiting: impl IntoIterator<Item = (&'a Arc<FrozenModel>, &'a mut Dialogue)>,
    ) -> Result<bool, Box<Diagnostic>> {
        let mut by_model: Vec<Vec<&mut Dialogue>> = self.0.iter().map(|_| Vec::new()).collect();
        for (model, dialogue) in waiting {
            if let Some(known) = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, model)) {
                by_model[known].push(dialogue);
            } else {
                self.0.push((Arc::clone(model), model.batcher()));
                by_model.push(vec![dialogue]);
            }
        }
        let is_any = by_model.iter().any(|dialogues| !dialogues.is_empty());
        for ((model, batcher), mut dialogues) in self.0.iter_mut().zip(by_model) {
            model.advance(&mut dialogues, batcher)?;
        }
        Ok(is_any)
    }
}

/// A frozen model in one seat of one episode.
pub(super) struct Frozen {
    model: Arc<FrozenModel>,
    dialogue: Option<Dialogue>,
    is_asked: bool,
    /// Answers on this turn that could not be read or were refused; those that could not be read.
    invalid: usize,
    unreadable: usize,
    observation: String,
}

impl Frozen {
    pub(super) fn new(model: Arc<FrozenModel>) -> Self {
        Self { model, dialogue: None, is_asked: false, invalid: 0, unreadable: 0, observation: String::new() }
    }

    fn ask(&mut self, view: &View<'_>, reason: Option<&str>, stream: &mut Stream) -> Result<Reply, Fault> {
        let settings = &self.model.settings;
        let is_brief = settings.observation == ObservationKind::Brief;
        let text = view.game.observe(view.state, view.seat, is_brief)?;
        self.observation = settings.format.asked_for(match reason {
            None => text,
            Some(reason) => told_again(&text, reason, is_brief),
        });
        let tokenizer = &self.model.tokenizer;
        let actions = match settings.constrain {
            Constrain::Off => None,
            Constrain::Legal => view.game.actions(view.state, view.seat)?,
        };
        let spell = || actions.as_ref().map(|all| tokenizer.answers(all));
        if let Some(dialogue) = &mut self.dialogue
            && dialogue.ask(&self.observation, spell(), tokenizer, &settings.rules)
        {
            self.is_asked = true;
            return Ok(Reply::Waiting);
        }
        // At its first turn, or where the context is full: what it saw and said before is then forgotten.
        let mut fresh = Dialogue::new(Seed::new(stream.int(0, i64::MAX) as u64).stream());
        self.is_asked = fresh.ask(&self.observation, spell(), tokenizer, &settings.rules);
        self.dialogue = Some(fresh);
        if self.is_asked {
            return Ok(Reply::Waiting);
        }
        self.invalid = settings.invalid_tries;
        self.unreadable += 1;
        self.give_in(view, "the observation is longer than its context", stream)
    }

    /// Plays what the model wrote, or asks again if that cannot be read.
    fn read(&mut self, view: &View<'_>, text: String, stream: &mut Stream) -> Result<Reply, Fault> {
        let read = view.game.read_answer(view.state, view.seat, &text, self.model.settings.format)?;
        if read.well_formed {
            let invalid = std::mem::take(&mut self.unreadable);
            let observation = std::mem::take(&mut self.observation);
            return Ok(Reply::Answer(Answer { action: read.text, observation, text, invalid }));
        }
        self.unreadable += 1;
        self.invalid += 1;
        if self.invalid >= self.model.settings.invalid_tries {
            return self.give_in(view, "its answers are not in the answer format", stream);
        }
        self.ask(view, Some("it is not in the answer format"), stream)
    }

    /// What comes in place of a valid answer.
    fn give_in(&mut self, view: &View<'_>, reason: &str, stream: &mut Stream) -> Result<Reply, Fault> {
        self.invalid = 0;
        let invalid = std::mem::take(&mut self.unreadable);
        if self.model.settings.on_invalid == OnInvalid::Random {
            let action = random_action(view.game, view.state, view.seat, stream)?;
            return Ok(Reply::Answer(Answer { invalid, ..Answer::plain(action) }));
        }
        let tries = self.model.settings.invalid_tries;
        Err(Fault::Episode(Box::new(
            Diagnostic::error("model::invalid", format!("`{}` gave no valid answer", self.model.name))
                .expected(format!("one within {tries} tries (`remote.invalid_tries`)"))
                .found(reason)
                .help("`--set remote.on_invalid=random` plays a random legal answer instead"),
        )))
    }
}

impl Opponent for Frozen {
    fn act(&mut self, view: &View<'_>, stream: &mut Stream) -> Result<Reply, Fault> {
        if self.is_asked {
            let model = Arc::clone(&self.model);
            let Some(text) = self.dialogue.as_mut().and_then(|dialogue| dialogue.take_answer(&model.tokenizer)) else {
                return Ok(Reply::Waiting);
            };
            self.is_asked = false;
            return self.read(view, text, stream);
        }
        let Some(reason) = view.refusal else {
            self.invalid = 0;
            return self.ask(view, None, stream);
        };
        self.invalid += 1;
        if self.invalid >= self.model.settings.invalid_tries {
            return self.give_in(view, &format!("the last one was refused: {reason}"), stream);
        }
        self.ask(view, Some(reason), stream)
    }

    fn is_ready(&self) -> bool {
        !self.dialogue.as_ref().is_some_and(Dialogue::is_open)
    }

    fn thinking(&mut self) -> Option<(&Arc<FrozenModel>, &mut Dialogue)> {
        let dialogue = self.dialogue.as_mut().filter(|dialogue| dialogue.is_open())?;
        Some((&self.model, dialogue))
    }

    fn max_tries(&self) -> usize {
        // It gives in by itself before that.
        self.model.settings.invalid_tries + 1
    }
}
