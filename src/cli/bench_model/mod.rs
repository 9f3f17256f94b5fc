//! `gift-host bench rollout` and `bench update`: tokens a second of the model alone, on given sizes and without games, next to
//! what the machine could do at best.

mod floor; // what the machine can do: copies and multiply-adds a second
mod rollout; // prompts and sampling
mod shapes; // sizes of well-known models
mod table; // the figures as text
mod update; // one optimizer step
mod work; // tokens, bytes and operations of a measurement

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::checkpoint::Origin;
use crate::config::OptimizerStates;
use crate::diag::Diagnostic;
use crate::policy::{
    Decoder, DecoderConfig, NamedTensor, Sampling, StepSize, Tokenizer, initial_weights, rollout_memory,
    training_memory,
};
use crate::seed::Seed;

use super::output::processor_seconds;
use super::{ExitStatus, model};
use floor::Floor;

pub(crate) use rollout::{RolloutArgs, run as rollout};
pub(crate) use update::{UpdateArgs, run as update};

/// Tokens of all sequences together: more is a slip of the hand, and would take all of the memory before anything is measured.
const MAX_TOKENS: usize = 100_000_000;
/// Threads, of which no machine has more.
const MAX_THREADS: usize = 1024;

/// Flags that both measurements share.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// The sizes of a model, with random weights
    #[arg(long, value_name = "SHAPE", default_value = "tiny", value_parser = shapes::NAMES, conflicts_with = "model")]
    shape: String,
    /// A model in place of `--shape`: a folder or a GGUF file
    #[arg(long, value_name = "DIR|FILE.gguf")]
    model: Option<String>,
    /// Sequences
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: usize,
    /// Groups; the sequences of a group have the same prompt
    #[arg(long, default_value_t = 1, value_name = "N")]
    groups: usize,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 200, value_name = "N")]
    prompt: usize,
    /// Sampled tokens of a sequence in a turn
    #[arg(long, default_value_t = 64, value_name = "N")]
    new: usize,
    /// Threads; all of the machine if left out
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
    /// `auto`, `cpu`, `cuda[:N]`, or several as `cuda:0,1`
    #[arg(long, default_value = "auto")]
    device: String,
    /// `auto`, `f32` or `bf16`
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// Measurements, after a short one that is not counted; the median is printed
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Seed of the weights, the prompts and the sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the model (Hugging Face's layout) and `tokens.json` to a folder, for another program to compute the same: prompts,
    /// sampled tokens and their log-probabilities
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A model on its device, and what the table says of it.
struct Subject {
    name: String,
    decoder: Box<dyn Decoder>,
    tokenizer: Tokenizer,
    threads: usize,
    load_before: Option<f64>,
}

impl ModelArgs {
    /// That the machine has room for the weights on a CPU, and for what training takes beside them.
    fn check_memory(&self, config: &DecoderConfig, is_trained: bool) -> Result<(), Box<Diagnostic>> {
        let is_on_cpu = self.device == "cpu" || !cfg!(feature = "cuda");
        let size = StepSize { sequences: 1, tokens: 1, threads: 1, gradient_checkpointing: true };
        let plan = if is_trained {
            training_memory(config, None, OptimizerStates::F32, size)
        } else {
            rollout_memory(config, size)
        };
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        match super::machine::memory_bytes() {
            Some(bytes) if is_on_cpu && plan.peak() as u64 > bytes => {
                let problem = Diagnostic::error("cli::bench", "the machine has no room for this model")
                    .expected(format!("{:.0} GiB for `--shape {}`", gib(plan.peak() as u64), self.shape))
                    .found(format!("{:.0} GiB", gib(bytes)))
                    .help("a smaller shape, or a device with `--device cuda` in a build with CUDA");
                Err(Box::new(problem))
            }
            _ => Ok(()),
        }
    }

    /// The model, after the checks of the sizes.
    fn subject(&self, context: usize, is_trained: bool) -> Result<Subject, Box<Diagnostic>> {
        let load_before = load_average();
        let sizes = [self.batch, self.groups, self.prompt, self.new, self.rounds];
        if sizes.contains(&0) || self.groups > self.batch || !self.batch.is_multiple_of(self.groups) {
            return Err(Box::new(
                Diagnostic::error("cli::bench", "these sizes cannot be measured")
                    .expected("numbers of at least 1, and `--groups` that divides `--batch`")
                    .found(format!(
                        "--batch {} --groups {} --prompt {} --new {} --rounds {}",
                        self.batch, self.groups, self.prompt, self.new, self.rounds
                    )),
            ));
        }
        if self.batch.saturating_mul(context) > MAX_TOKENS {
            let problem = Diagnostic::error("cli::bench", "these are too many tokens to measure")
                .expected(format!("sequences of at most {MAX_TOKENS} tokens together"))
                .found(format!("--batch {} of {context} tokens each", self.batch))
                .help("fewer or shorter sequences; a few seconds of work measure as well as an hour");
            return Err(Box::new(problem));
        }
        let threads = self.threads.map_or(0, std::num::NonZeroUsize::get);
        if threads > MAX_THREADS {
            let problem = Diagnostic::error("cli::bench", "no machine has so many threads")
                .expected(format!("`--threads` of at most {MAX_THREADS}"))
                .found(threads.to_string());
            return Err(Box::new(problem));
        }
        super::train::use_threads(threads);
        let threads = rayon::current_num_threads();
        let seed = Seed::new(self.seed);
        let (name, mut model) = if let Some(name) = &self.model {
            (name.clone(), model::load(name, seed)?)
        } else {
            let config = shapes::config(&self.shape);
            self.check_memory(&config, is_trained)?;
            let weights: Vec<NamedTensor> = initial_weights(&config, seed.child("weights", 0));
            let (adapter, origin) = (None, Origin::default());
            let model = model::Model { config, weights, tokenizer: Tokenizer::Bytes, folder: None, adapter, origin };
            (self.shape.clone(), model)
        };
        if self.model.is_none() {
            // Random weights know no longest context.
            model.config.max_positions = model.config.max_positions.max(context);
        } else if context > model.config.max_positions {
            return Err(Box::new(
                Diagnostic::error("cli::bench", "the sequences are longer than the model's context")
                    .expected(format!("at most {} tokens", model.config.max_positions))
                    .found(format!("{context} tokens")),
            ));
        }
        let decoder = model::place(&model, &self.device, &self.dtype)?;
        Ok(Subject { name, decoder, tokenizer: model.tokenizer, threads, load_before })
    }

    /// One prompt a group, `[groups][prompt]`.
    fn prompts(&self, vocab_size: usize) -> Vec<Vec<u32>> {
        let mut stream = Seed::new(self.seed).child("prompts", 0).stream();
        let mut token = || stream.index(vocab_size) as u32;
        (0..self.groups).map(|_| (0..self.prompt).map(|_| token()).collect()).collect()
    }

    fn group_of(&self, sequence: usize) -> usize {
        sequence / (self.batch / self.groups)
    }

    fn dtype_name(&self) -> &'static str {
        if self.dtype == "bf16" { "bf16" } else { "f32" }
    }

    /// What was measured, for people.
    fn headline(&self, subject: &Subject) -> String {
        format!(
            "{}, {:.1} M parameters, {} on {}, {} threads",
            subject.name,
            subject.decoder.config().parameter_count() as f64 / 1e6,
            self.dtype_name(),
            subject.decoder.device(),
            subject.threads,
        )
    }

    /// What was measured, for programs.
    fn setting(&self, subject: &Subject, floor: &Floor) -> Json {
        json!({
            "model": subject.name,
            "parameters": subject.decoder.config().parameter_count(),
            // For another program to make a model of the same sizes.
            "config": serde_json::from_str::<Json>(&subject.decoder.config().to_hugging_face()).unwrap_or_default(),
            "device": subject.decoder.device(),
            "dtype": self.dtype_name(),
            "threads": subject.threads,
            "batch": self.batch,
            "groups": self.groups,
            "prompt": self.prompt,
            "new": self.new,
            "copy_bytes_per_s": floor.copied_bytes,
            "flops": floor.operations,
            "load_average": { "before": subject.load_before, "after": load_average() },
            "peak_memory_bytes": super::output::peak_memory(),
        })
    }
}

/// How tokens are drawn: any token at temperature 1.
const SAMPLING: Sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

/// Sequences that another program can compute again.
struct Sample<'a> {
    prompts: &'a [Vec<u32>],
    sequences: &'a [Vec<u32>],
    /// Positions from which on the tokens are scored.
    start: usize,
    log_probs: &'a [Vec<f32>],
    extra: Json,
}

fn save(folder: &Path, subject: &Subject, sample: &Sample<'_>) -> anyhow::Result<()> {
    crate::checkpoint::create_folder(folder)?;
    crate::checkpoint::save_model(folder, subject.decoder.as_ref(), &subject.tokenizer, &Origin::default())?;
    let mut json = json!({
        "prompts": sample.prompts,
        "sequences": sample.sequences,
        "start": sample.start,
        "log_probs": sample.log_probs,
    });
    if let (Some(json), Json::Object(extra)) = (json.as_object_mut(), &sample.extra) {
        json.extend(extra.clone());
    }
    crate::checkpoint::replace_text(&folder.join("tokens.json"), &json.to_string())?;
    Ok(())
}

/// The load of the machine over the last minute, where the system tells.
fn load_average() -> Option<f64> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, whose absence is no error")]
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The value in the middle; of an even number, the lower one.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
}
