//! `gift-host bench update`: one optimizer step of GRPO on random sequences, forward, backward and AdamW.

use std::io::Write;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::config::{Loss, Optimizer};
use crate::policy::{Decoder, Sequence, Target};
use crate::seed::Seed;
use crate::train::{Batch, BatchItem, Learner, UpdateContext, UpdateStats};

use super::floor::Floor;
use super::table::{Line, print};
use super::work::{Work, seen};
use super::{ExitStatus, ModelArgs, Sample, median, processor_seconds, save};

/// Flags of `gift-host bench update`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    model: ModelArgs,
}

/// Sequences to train on, which all have the same targets.
pub(super) struct Trained<'a> {
    pub(super) sequences: &'a [Vec<u32>],
    pub(super) targets: &'a [Target],
    /// Log-probabilities of the targets, nats.
    pub(super) log_probs: &'a [Vec<f32>],
}

/// What the updates took and said.
pub(super) struct Measured {
    pub(super) line: Line,
    /// The first update's, from the model's first weights.
    pub(super) first: UpdateStats,
    /// Share of the machine's rate of multiply-adds that the operations of the model alone take: nothing is counted twice that is
    /// computed again in the backward pass.
    pub(super) matrix_share: f64,
}

impl Measured {
    /// Adds the figures to those of a report.
    pub(super) fn put(&self, fields: &mut serde_json::Map<String, Json>) {
        fields.insert("grad_norm".to_owned(), json!(self.first.grad_norm));
        fields.insert("loss".to_owned(), json!(self.first.loss));
        fields.insert("kl_rollout_train".to_owned(), json!(self.first.kl_rollout_train));
        fields.insert("ratio_deviation".to_owned(), json!(self.first.ratio_deviation));
        fields.insert("share_of_matrix_rate".to_owned(), json!(self.matrix_share));
        fields.insert(self.line.name.to_owned(), self.line.json());
    }
}

/// Advantages as a group of two kinds of rewards has them.
fn advantage(sequence: usize) -> f32 {
    if sequence.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// Takes a step that is not counted and one for each round.
pub(super) fn measure(
    args: &ModelArgs,
    decoder: &mut dyn Decoder,
    trained: &Trained<'_>,
    floor: &Floor,
) -> anyhow::Result<Measured> {
    let items =
        trained.sequences.iter().zip(trained.log_probs).enumerate().map(|(index, (tokens, log_probs))| BatchItem {
            tokens,
            targets: trained.targets,
            old_log_probs: log_probs,
            advantage: advantage(index),
            truncated: false,
        });
    let items = Batch { items: items.collect() };
    let loss = Loss { entropy_coefficient: 0.0, ..Loss::default() };
    let optimizer = Optimizer { learning_rate: 1e-6, warmup_updates: 0, minibatch: 0, ..Optimizer::default() };
    let mut learner = Learner::new(&loss, &optimizer);
    let context = UpdateContext {
        iteration: 1,
        iterations: 1,
        temperature: 1.0,
        max_pass_tokens: optimizer.max_pass_tokens,
        seed: Seed::new(args.seed),
    };
    let mut update = |decoder: &mut dyn Decoder| -> anyhow::Result<(f64, UpdateStats)> {
        let started = Instant::now();
        let stats = learner.update(decoder, None, &items, &context)?;
        Ok((started.elapsed().as_secs_f64(), stats))
    };
    // The first update starts from the saved weights: another program can compare its gradient.
    let (_, first) = update(decoder)?;
    super::super::output::reset_peak_memory();
    let mut round = |_| -> anyhow::Result<(f64, Option<f64>)> {
        let before = processor_seconds();
        let (seconds, _) = update(decoder)?;
        Ok((seconds, processor_seconds().zip(before).map(|(after, before)| after - before)))
    };
    let rounds = (0..args.rounds).map(&mut round).collect::<anyhow::Result<Vec<_>>>()?;
    let (seconds, processor_seconds): (Vec<f64>, Vec<Option<f64>>) = rounds.into_iter().unzip();
    let width = if args.dtype_name() == "bf16" { 2 } else { 4 };
    let work = Work::of(decoder.config(), width);
    // A group's prompt need be computed once; the backward pass takes twice the operations of the forward pass.
    let ModelArgs { batch, groups, prompt, .. } = *args;
    let length = trained.sequences.first().map_or(0, Vec::len);
    let own = length.saturating_sub(prompt + 1);
    let rows = (groups * prompt + batch * own) as f64;
    let positions = groups as f64 * seen(0, prompt) + batch as f64 * seen(prompt, own);
    let operations = 3.0 * work.operations(rows, positions, (batch * trained.targets.len()) as f64);
    let least = floor.seconds(0.0, operations) + floor.seconds(work.step_bytes(), 0.0);
    let matrix_share = floor.seconds(0.0, operations) / median(&seconds);
    let line = Line { name: "update", tokens: batch * length, seconds, floor: least, processor_seconds };
    Ok(Measured { line, first, matrix_share })
}

/// Measures and prints.
pub(crate) fn run(args: &UpdateArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let ModelArgs { batch, groups, prompt, new, .. } = args.model;
    let mut subject = args.model.subject(prompt.saturating_add(new), true)?;
    let vocab_size = subject.decoder.config().vocab_size;
    let prompts = args.model.prompts(vocab_size);
    let mut stream = Seed::new(args.model.seed).child("answers", 0).stream();
    let sequences: Vec<Vec<u32>> = (0..batch)
        .map(|sequence| {
            let mut tokens = prompts[args.model.group_of(sequence)].clone();
            tokens.extend((0..new).map(|_| stream.index(vocab_size) as u32));
            tokens
        })
        .collect();
    let target = |position: usize| Target { position: position as u32, allowed: None };
    let targets: Vec<Target> = (prompt..prompt + new).map(target).collect();
    let scored: Vec<_> = sequences.iter().map(|tokens| Sequence { tokens, targets: &targets }).collect();
    let scores = subject.decoder.score(&scored, 1.0)?;
    let log_probs: Vec<Vec<f32>> =
        scores.iter().map(|scores| scores.iter().map(|score| score.log_prob).collect()).collect();
    if let Some(folder) = &args.model.save {
        let advantages: Vec<f32> = (0..batch).map(advantage).collect();
        let extra = json!({ "advantages": advantages });
        let sample = Sample { prompts: &prompts, sequences: &sequences, start: prompt, log_probs: &log_probs, extra };
        save(folder, &subject, &sample)?;
    }
    let floor = Floor::measure(&subject.decoder.device(), args.model.dtype_name())?;
    let trained = Trained { sequences: &sequences, targets: &targets, log_probs: &log_probs };
    let measured = measure(&args.model, subject.decoder.as_mut(), &trained, &floor)?;
    if args.model.json {
        let mut report = args.model.setting(&subject, &floor);
        if let Some(fields) = report.as_object_mut() {
            measured.put(fields);
        }
        writeln!(out, "{report:#}")?;
        return Ok(ExitStatus::Done);
    }
    writeln!(out, "{}", args.model.headline(&subject))?;
    writeln!(out, "{batch} sequences, {groups} prompts of {prompt} tokens, {new} trained tokens each")?;
    print(out, &[measured.line])?;
    let peak = super::super::output::peak_memory().map_or(f64::NAN, |bytes| bytes as f64 / f64::from(1 << 30));
    writeln!(
        out,
        "machine: copies {:.1} GB/s, {:.0} GFLOP/s; memory: {peak:.2} GiB at most",
        floor.copied_bytes / 1e9,
        floor.operations / 1e9,
    )?;
    Ok(ExitStatus::Done)
}
