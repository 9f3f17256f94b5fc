//! `gift-host bench rollout`: prompts through the model and tokens out of it, with the batching of a real rollout but without
//! games. Every sequence samples the same number of tokens in every turn.

use std::collections::HashMap;
use std::io::Write;
use std::time::Instant;

use serde_json::json;

use crate::diag::Diagnostic;
use crate::policy::{BatchStats, Batcher, Decoder, Draw, Pass, Request, Target};
use crate::seed::{Seed, Stream};

use super::floor::Floor;
use super::table::{Line, print};
use super::update::{Trained, measure};
use super::work::Work;
use super::{ExitStatus, ModelArgs, SAMPLING, Sample, processor_seconds, save};

/// Sampled tokens of the round that is not counted.
const WARM_UP: usize = 4;

/// Flags of `gift-host bench rollout`.
#[derive(Debug, clap::Args)]
pub(crate) struct RolloutArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Turns; each later one begins with tokens of its own for every sequence
    #[arg(long, default_value_t = 1, value_name = "N")]
    turns: usize,
    /// Tokens that a later turn begins with; those of a prompt if left out
    #[arg(long, value_name = "N")]
    turn_prompt: Option<usize>,
    /// Most tokens of a pass
    #[arg(long, default_value_t = 8192, value_name = "N")]
    max_batch_tokens: usize,
    /// Most memory for keys and values, in MiB; 0: no bound
    #[arg(long, default_value_t = 0, value_name = "N")]
    max_cache_mib: usize,
    /// Then take optimizer steps on what was sampled, one that is not counted and one a round, and tell how far the probabilities
    /// of training are from those of sampling
    #[arg(long)]
    update: bool,
}

impl RolloutArgs {
    fn turn_prompt(&self) -> usize {
        self.turn_prompt.unwrap_or(self.model.prompt)
    }

    /// Tokens of a finished sequence.
    fn context(&self) -> usize {
        let first = self.model.prompt.saturating_add(self.model.new);
        let later = self.turn_prompt().saturating_add(self.model.new);
        first.saturating_add((self.turns.max(1) - 1).saturating_mul(later))
    }

    /// The sampled tokens of a finished sequence.
    fn targets(&self) -> Vec<Target> {
        let first = |turn: usize| self.model.prompt + turn * (self.model.new + self.turn_prompt());
        let positions = (0..self.turns).flat_map(|turn| first(turn)..first(turn) + self.model.new);
        positions.map(|position| Target { position: position as u32, allowed: None }).collect()
    }
}

/// Measures and prints.
pub(crate) fn run(args: &RolloutArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let sizes = [args.turns, args.turn_prompt.unwrap_or(1), args.max_batch_tokens];
    if sizes.contains(&0) || (args.turns > 1 && args.model.save.is_some()) {
        let (turns, turn_prompt, most) = (args.turns, args.turn_prompt(), args.max_batch_tokens);
        let saved = if args.model.save.is_some() { " --save" } else { "" };
        let problem = Diagnostic::error("cli::bench", "these turns cannot be measured")
            .expected("`--turns`, `--turn-prompt` and `--max-batch-tokens` of at least 1, and with `--save` one turn")
            .found(format!("--turns {turns} --turn-prompt {turn_prompt} --max-batch-tokens {most}{saved}"));
        return Err(Box::new(problem).into());
    }
    let mut subject = args.model.subject(args.context(), args.update)?;
    let decoder = subject.decoder.as_ref();
    // Enough to start the threads and to touch every weight.
    play(args, decoder, (1, args.model.new.min(WARM_UP)))?;
    super::super::output::reset_peak_memory();
    let rounds = (0..args.model.rounds)
        .map(|_| play(args, decoder, (args.turns, args.model.new)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let floor = Floor::measure(&decoder.device(), args.model.dtype_name())?;
    let mut lines = lines(args, decoder, &rounds, floor);
    let Some(last) = rounds.last() else { return Ok(ExitStatus::Done) };
    if let Some(folder) = &args.model.save {
        let prompts = args.model.prompts(decoder.config().vocab_size);
        let (sequences, log_probs) = (&last.sequences[..], &last.log_probs[..]);
        let sample = Sample { prompts: &prompts, sequences, start: args.model.prompt, log_probs, extra: json!({}) };
        save(folder, &subject, &sample)?;
    }
    let update = args.update.then(|| {
        let trained = Trained { sequences: &last.sequences, targets: &args.targets(), log_probs: &last.log_probs };
        measure(&args.model, subject.decoder.as_mut(), &trained, &floor)
    });
    let update = update.transpose()?;
    let (turns, stats) = (&last.turn_seconds, last.stats);
    if args.model.json {
        let mut report = args.model.setting(&subject, &floor);
        if let Some(fields) = report.as_object_mut() {
            fields.insert("turns".to_owned(), args.turns.into());
            fields.insert("cache_bytes".to_owned(), last.cache_bytes.into());
            fields.insert("shared_tokens".to_owned(), stats.shared.into());
            fields.insert("preempted".to_owned(), stats.preempted.into());
            fields.insert("turn_seconds".to_owned(), json!(turns));
            for line in &lines {
                fields.insert(line.name.to_owned(), line.json());
            }
            if let Some(update) = &update {
                update.put(fields);
            }
        }
        writeln!(out, "{report:#}")?;
        return Ok(ExitStatus::Done);
    }
    let ModelArgs { batch, groups, prompt, new, .. } = args.model;
    writeln!(out, "{}", args.model.headline(&subject))?;
    writeln!(out, "{batch} sequences, {groups} prompts of {prompt} tokens, {} turns of {new} new tokens", args.turns)?;
    let agreement = update.as_ref().map(|update| (update.first.kl_rollout_train, update.first.ratio_deviation));
    lines.extend(update.map(|update| update.line));
    print(out, &lines)?;
    if let Some((divergence, deviation)) = agreement {
        writeln!(out, "sampling and training: divergence {divergence:.1e} nats, ratios up to {deviation:.1e} from 1")?;
    }
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let peak = super::super::output::peak_memory().map_or(f64::NAN, |bytes| gib(bytes as f64));
    writeln!(
        out,
        "machine: copies {:.1} GB/s, {:.0} GFLOP/s, load {}",
        floor.copied_bytes / 1e9,
        floor.operations / 1e9,
        subject.load_before.map_or("unknown".to_owned(), |load| load.to_string()),
    )?;
    writeln!(out, "memory: {peak:.2} GiB at most, {:.3} GiB of it keys and values", gib(last.cache_bytes as f64))?;
    writeln!(out, "{} tokens shared, {} caches dropped and computed again", stats.shared, stats.preempted)?;
    Ok(ExitStatus::Done)
}

/// What one round took and made.
struct Round {
    prefill: f64,
    decode: f64,
    processor_seconds: Option<f64>,
    turn_seconds: Vec<f64>,
    sequences: Vec<Vec<u32>>,
    log_probs: Vec<Vec<f32>>,
    stats: BatchStats,
    cache_bytes: usize,
}

/// One sequence while it is played.
struct Player {
    tokens: Vec<u32>,
    log_probs: Vec<f32>,
    stream: Stream,
    left: usize,
}

fn play(args: &RolloutArgs, decoder: &dyn Decoder, (turns, new): (usize, usize)) -> anyhow::Result<Round> {
    let vocab_size = decoder.config().vocab_size;
    let prompts = args.model.prompts(vocab_size);
    let seed = Seed::new(args.model.seed);
    let player = |sequence: usize| Player {
        tokens: prompts[args.model.group_of(sequence)].clone(),
        log_probs: Vec::new(),
        stream: seed.child("sampling", sequence as u64).stream(),
        left: 0,
    };
    let mut players: Vec<Player> = (0..args.model.batch).map(player).collect();
    let mut batcher = Batcher::new(players.len(), args.max_batch_tokens, args.max_cache_mib.saturating_mul(1 << 20));
    let processor_before = processor_seconds();
    let (mut prefill, mut decode, mut turn_seconds) = (0.0, 0.0, Vec::new());
    for turn in 0..turns {
        let started = Instant::now();
        for player in &mut players {
            player.left = new;
            if turn > 0 {
                let text = (0..args.turn_prompt()).map(|_| player.stream.index(vocab_size) as u32);
                player.tokens.extend(text);
            }
        }
        while players.iter().any(|player| player.left > 0) {
            let started = Instant::now();
            let is_prefill = players.iter().any(|player| player.left == new);
            let waiting = players.iter().enumerate().filter(|(_, player)| player.left > 0);
            let requests: Vec<_> =
                waiting.map(|(sequence, player)| Request { sequence, tokens: &player.tokens }).collect();
            let passes = batcher.step(decoder, &requests)?;
            let mut waiting: HashMap<usize, &mut Player> = players.iter_mut().enumerate().collect();
            let served = passes.iter().flat_map(Pass::sequences);
            let mut served: Vec<(usize, &mut Player)> =
                served.filter_map(|sequence| Some((sequence, waiting.remove(&sequence)?))).collect();
            let draw = served.iter_mut().map(|(index, player)| Draw {
                index: *index,
                allowed: None,
                stream: &mut player.stream,
            });
            let drawn = batcher.sample(decoder, &SAMPLING, &passes, draw.collect())?;
            for ((_, player), drawn) in served.into_iter().zip(drawn) {
                player.tokens.push(drawn.token);
                player.log_probs.push(drawn.log_prob);
                player.left -= 1;
            }
            *if is_prefill { &mut prefill } else { &mut decode } += started.elapsed().as_secs_f64();
        }
        turn_seconds.push(started.elapsed().as_secs_f64());
    }
    let processor_seconds = processor_seconds().zip(processor_before).map(|(after, before)| after - before);
    let cache_bytes = batcher.cache_bytes();
    let (sequences, log_probs) = players.into_iter().map(|player| (player.tokens, player.log_probs)).unzip();
    let stats = batcher.stats();
    Ok(Round { prefill, decode, processor_seconds, turn_seconds, sequences, log_probs, stats, cache_bytes })
}

/// Prefill, decode and both together, with their floors.
fn lines(args: &RolloutArgs, decoder: &dyn Decoder, rounds: &[Round], floor: Floor) -> Vec<Line> {
    let width = if args.model.dtype_name() == "bf16" { 2 } else { 4 };
    let work = Work::of(decoder.config(), width);
    let ModelArgs { batch, groups, prompt, new, .. } = args.model;
    let (mut prefill, mut decode) = (0.0, 0.0);
    let mut context = 0;
    for turn in 0..args.turns {
        // The first prompt is one row a group and token; later ones are the sequences' own.
        let (texts, count) = if turn == 0 { (groups, prompt) } else { (batch, args.turn_prompt() + 1) };
        let start = context - usize::from(turn > 0);
        let operations = work.sampling(texts as f64, start, count);
        prefill += floor.seconds(work.bytes((batch * context) as f64), operations);
        context += if turn == 0 { prompt } else { args.turn_prompt() };
        for step in 1..new {
            let positions = (batch * (context + step)) as f64;
            // The first prompt is held once a group.
            let held = positions - ((batch - groups) * prompt) as f64;
            decode += floor.seconds(work.bytes(held), work.operations(batch as f64, positions, batch as f64));
        }
        context += new;
    }
    let asked = batch * (prompt + (args.turns - 1) * args.turn_prompt());
    let seconds = |time: fn(&Round) -> f64| rounds.iter().map(time).collect::<Vec<f64>>();
    vec![
        Line {
            name: "prefill",
            tokens: asked,
            seconds: seconds(|round| round.prefill),
            floor: prefill,
            processor_seconds: Vec::new(),
        },
        Line {
            name: "decode",
            tokens: batch * (new - 1) * args.turns,
            seconds: seconds(|round| round.decode),
            floor: decode,
            processor_seconds: Vec::new(),
        },
        Line {
            name: "rollout",
            tokens: batch * new * args.turns,
            seconds: seconds(|round| round.prefill + round.decode),
            floor: prefill + decode,
            processor_seconds: rounds.iter().map(|round| round.processor_seconds).collect(),
        },
    ]
}
