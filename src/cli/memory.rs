//! `gift-host model memory`: what training a model takes, predicted and measured.

use std::io::Write;

use serde_json::json;

use super::ExitStatus;
use super::model;
use super::output::peak_memory;
use crate::config::OptimizerStates;
use crate::diag::Diagnostic;
use crate::policy::{
    AdamWStep, AdapterConfig, DecoderConfig, MemoryPlan, Projection, Sequence, SequenceLoss, StepSize, Target,
    TokenGradient, TokenScore, rollout_memory, training_memory,
};
use crate::seed::Seed;

#[derive(Debug, clap::Args)]
pub(super) struct MemoryArgs {
    /// `tiny`, a folder with a model, a run, a GGUF file, or a name on the Hub
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Sequences of a step
    #[arg(long, default_value_t = 8)]
    sequences: usize,
    /// Tokens of each sequence
    #[arg(long, default_value_t = 512)]
    tokens: usize,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, std::num::NonZero::get))]
    threads: usize,
    /// Rank of the adapter of `lora`
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Keep only the inputs of layers for the backward pass, as `optimizer.gradient_checkpointing` does
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Take one step on random tokens and compare the process' peak with the prediction
    #[arg(long, value_enum, value_name = "METHOD")]
    measure: Option<Method>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    Full,
    #[value(name = "8bit")]
    EightBit,
    Lora,
}

impl Method {
    const ALL: [Self; 3] = [Self::Full, Self::EightBit, Self::Lora];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::EightBit => "8bit",
            Self::Lora => "lora",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Full => "all weights trained",
            Self::EightBit => "all weights trained, optimizer states in 8 bits",
            Self::Lora => "an adapter trained",
        }
    }

    fn states(self) -> OptimizerStates {
        if self == Self::EightBit { OptimizerStates::EightBit } else { OptimizerStates::F32 }
    }

    fn plan(self, config: &DecoderConfig, rank: usize, size: StepSize) -> MemoryPlan {
        let adapter = adapter(rank);
        training_memory(config, Some(&adapter).filter(|_| self == Self::Lora), self.states(), size)
    }
}

fn adapter(rank: usize) -> AdapterConfig {
    let targets = Projection::ALL.to_vec();
    AdapterConfig { rank, alpha: 2.0 * rank as f64, targets, dora: false, root_scaling: false, dropout: 0.0 }
}

/// Raises every sampled token a little.
struct Likelihood;

impl SequenceLoss for Likelihood {
    fn gradient(&self, _index: usize, _scores: &[TokenScore], out: &mut [TokenGradient]) {
        for out in out {
            out.log_prob = -1e-3;
        }
    }
}

/// Prints the predictions, and the measured peak if one is asked for.
pub(super) fn run(args: &MemoryArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let &MemoryArgs { sequences, tokens, threads, gradient_checkpointing, .. } = args;
    let size = StepSize { sequences, tokens, threads, gradient_checkpointing };
    let model = model::load(&args.source, Seed::new(0))?;
    let config = model.config.clone();
    if args.sequences == 0 || args.threads == 0 || !(2..=config.max_positions).contains(&args.tokens) {
        let problem = Diagnostic::error("cli::memory", "there is no such step")
            .expected(format!("at least 1 sequence and thread, and 2 to {} tokens", config.max_positions))
            .found(format!("{} sequences of {} tokens, {} threads", args.sequences, args.tokens, args.threads));
        return Err(Box::new(problem).into());
    }
    let adapted = adapter(args.rank);
    if let Err(problem) = adapted.validate(&config) {
        let problem = Diagnostic::error("cli::memory", "there is no such adapter").found(problem.to_string());
        return Err(Box::new(problem).into());
    }
    let measured = match args.measure {
        None => None,
        Some(method) => {
            super::train::use_threads(args.threads);
            measure(model, method, &adapted, size)?;
            Some((method, peak_memory().unwrap_or(0)))
        }
    };
    let plans = Method::ALL.map(|method| (method, method.plan(&config, args.rank, size)));
    let rollout = rollout_memory(&config, size);
    if args.json {
        let entry = |plan: &MemoryPlan| {
            json!({"peak": plan.peak(), "loading": plan.loading, "weights": plan.weights, "optimizer": plan.optimizer,
                   "activations": plan.activations})
        };
        let mut document = json!({"rollout": entry(&rollout)});
        for (method, plan) in &plans {
            document[method.name()] = entry(plan);
        }
        if let Some((method, bytes)) = measured {
            document["measured"] = json!({"method": method.name(), "peak": bytes});
        }
        writeln!(out, "{document:#}")?;
        return Ok(ExitStatus::Done);
    }
    let gigabytes = |bytes: usize| format!("{:.2} GB", bytes as f64 / 1e9);
    let how = if gradient_checkpointing { ", with gradient checkpointing" } else { "" };
    writeln!(out, "{sequences} sequences of {tokens} tokens, {threads} threads, on a CPU in 32 bits{how}:")?;
    writeln!(out, "{:<8} {:>9}  sampled at once", "rollout", gigabytes(rollout.peak()))?;
    for (method, plan) in plans {
        let rank = if method == Method::Lora { format!(" of rank {}", args.rank) } else { String::new() };
        writeln!(out, "{:<8} {:>9}  {}{rank}", method.name(), gigabytes(plan.peak()), method.about())?;
    }
    if let Some((method, bytes)) = measured {
        writeln!(out, "measured {:>9}  {}", gigabytes(bytes as usize), method.name())?;
    }
    Ok(ExitStatus::Done)
}

/// One training step on random tokens.
fn measure(mut model: model::Model, method: Method, adapter: &AdapterConfig, size: StepSize) -> anyhow::Result<()> {
    let vocab_size = model.config.vocab_size;
    if method == Method::Lora {
        let tensors = adapter.initial(&model.config, &model.weights, Seed::new(1))?;
        model.adapter = Some((adapter.clone(), tensors));
    }
    let mut decoder = model::place(&model, "cpu", "f32")?;
    drop(model);
    decoder.set_gradient_checkpointing(size.gradient_checkpointing);
    let mut stream = Seed::new(2).stream();
    let tokens: Vec<Vec<u32>> =
        (0..size.sequences).map(|_| (0..size.tokens).map(|_| stream.index(vocab_size) as u32).collect()).collect();
    let targets: Vec<Target> = (1..size.tokens as u32).map(|position| Target { position, allowed: None }).collect();
    let sequences: Vec<Sequence<'_>> = tokens.iter().map(|tokens| Sequence { tokens, targets: &targets }).collect();
    decoder.accumulate(&sequences, 1.0, &Likelihood)?;
    decoder.step(&AdamWStep {
        learning_rate: 1e-5,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        step: 1,
        gradient_scale: 1.0,
        states: method.states(),
    })?;
    Ok(())
}
