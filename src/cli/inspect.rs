//! `gift-host model`: what a model is, and what it says of a text.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::config::OptimizerStates;
use crate::diag::Diagnostic;
use crate::policy::{Chunk, Decoder, MemoryPlan, StepSize, Tokenizer, rollout_memory, training_memory};
use crate::seed::Seed;

use super::ExitStatus;
use super::memory;
use super::model::{self, Model};

/// Flags of `gift-host model`.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Print the shape, the tokenizer and what an observation is put into
    Info(InfoArgs),
    /// Print the most probable next tokens after each token of a text
    Logits(LogitsArgs),
    /// Print how much memory sampling and training take, or measure it
    Memory(memory::MemoryArgs),
}

#[derive(Debug, clap::Args)]
struct InfoArgs {
    /// `tiny`, a folder with a model, a run, a GGUF file, or a name on the Hub
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct LogitsArgs {
    /// `tiny`, a folder with a model, a run, a GGUF file, or a name on the Hub
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The text; no special tokens are added
    #[arg(long, value_name = "TEXT", conflicts_with = "file", required_unless_present = "file")]
    text: Option<String>,
    /// A file with the text
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Tokens to print at each position
    #[arg(long, default_value_t = 5, value_name = "K")]
    top: usize,
    /// `auto`, `cpu`, `cuda[:N]`, or several as `cuda:0,1`
    #[arg(long, default_value = "auto")]
    device: String,
    /// `auto`, `f32` or `bf16`
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is asked for.
pub(crate) fn run(args: &ModelArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    match &args.part {
        Part::Info(args) => info(args, out),
        Part::Logits(args) => logits(args, out),
        Part::Memory(args) => memory::run(args, out),
    }
}

fn info(args: &InfoArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let Model { config, tokenizer, folder, adapter, .. } = model::load_apart(&args.source, Seed::new(0))?;
    let adapter = adapter.map(|(adapter, _)| adapter);
    let quoted = |tokens: &[u32]| {
        let texts: Vec<String> = tokens.iter().map(|&id| format!("{:?} ({id})", tokenizer.token_text(id))).collect();
        texts.join(", ")
    };
    let whole = |tokens: &[u32]| tokens.iter().map(|&id| tokenizer.token_text(id)).collect::<String>();
    let (first, later) = (tokenizer.prompt("OBSERVATION", true), tokenizer.prompt("OBSERVATION", false));
    if args.json {
        let document = json!({
            "source": folder.map_or_else(|| args.source.clone(), |folder| folder.display().to_string()),
            "family": config.family.model_type(),
            "parameters": config.parameter_count(),
            "adapter": adapter.as_ref().map(|adapter| json!({
                "rank": adapter.rank, "alpha": adapter.alpha, "dora": adapter.dora,
                "parameters": adapter.parameter_count(&config),
                "targets": adapter.targets.iter().map(|target| target.name()).collect::<Vec<_>>(),
            })),
            "layers": config.layer_count,
            "hidden_size": config.hidden_size,
            "heads": config.head_count,
            "kv_heads": config.kv_head_count,
            "context": config.max_positions,
            "vocabulary": config.vocab_size,
            "tokens": tokenizer.vocabulary_size(),
            "ends": tokenizer.ends(),
            "first_prompt": whole(&first),
            "later_prompt": whole(&later),
            "notes": tokenizer.notes(),
        });
        writeln!(out, "{document:#}")?;
        return Ok(ExitStatus::Done);
    }
    let tokens = match tokenizer {
        Tokenizer::Bytes => "built in, a byte is a token".to_owned(),
        Tokenizer::Text(_) => format!("the model's own, {} tokens", tokenizer.vocabulary_size()),
    };
    let millions = config.parameter_count() as f64 / 1e6;
    let rows = [
        ("family", format!("{}, {millions:.1} M parameters", config.family.model_type())),
        (
            "shape",
            format!(
                "{} layers of width {}, {} heads ({} for keys and values) of width {}, feed-forward {}",
                config.layer_count,
                config.hidden_size,
                config.head_count,
                config.kv_head_count,
                config.head_dim,
                config.intermediate_size
            ),
        ),
        ("context", format!("{} tokens", config.max_positions)),
        (
            "vocabulary",
            format!(
                "{} ids, {} last projection",
                config.vocab_size,
                if config.tied_embeddings { "tied" } else { "own" }
            ),
        ),
        ("tokenizer", tokens),
        ("answer ends", quoted(tokenizer.ends())),
        ("first turn", format!("{:?}", whole(&first))),
        ("later turn", format!("{:?}", whole(&later))),
    ];
    let size =
        StepSize { sequences: 8, tokens: config.max_positions.min(512), threads: 2, gradient_checkpointing: false };
    let gigabytes = |plan: MemoryPlan| format!("{:.2} GB", plan.peak() as f64 / 1e9);
    let (sampling, training) =
        (rollout_memory(&config, size), training_memory(&config, adapter.as_ref(), OptimizerStates::F32, size));
    let memory = format!(
        "{} to sample, {} to train, for {} sequences of {} tokens on two threads; more with `model memory`",
        gigabytes(sampling),
        gigabytes(training),
        size.sequences,
        size.tokens
    );
    if let Some(adapter) = &adapter {
        let millions = adapter.parameter_count(&config) as f64 / 1e6;
        writeln!(out, "{:<12} {}; {millions:.2} M parameters", "adapter", adapter.describe())?;
    }
    for (name, value) in rows {
        writeln!(out, "{name:<12} {value}")?;
    }
    writeln!(out, "{:<12} {memory}", "memory")?;
    for note in tokenizer.notes() {
        writeln!(out, "{:<12} {note}", "note")?;
    }
    Ok(ExitStatus::Done)
}

fn logits(args: &LogitsArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let text = match (&args.text, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => crate::checkpoint::read_text(file)?,
        (None, None) => String::new(),
    };
    let model = model::load(&args.source, Seed::new(0))?;
    let tokens = model.tokenizer.encode(&text);
    if tokens.is_empty() || tokens.len() > model.config.max_positions || args.top == 0 {
        let problem = Diagnostic::error("cli::text", "there is nothing to compute")
            .expected(format!("a text of 1 to {} tokens, and `--top` of at least 1", model.config.max_positions))
            .found(format!("{} tokens, and `--top {}`", tokens.len(), args.top));
        return Err(Box::new(problem).into());
    }
    let decoder = model::place(&model, &args.device, &args.dtype)?;
    let positions = most_probable(decoder.as_ref(), &tokens, args.top)?;
    let name = |id: u32| model.tokenizer.token_text(id);
    if args.json {
        let entry = |(&id, top): (&u32, &Vec<(u32, f64)>)| {
            let top: Vec<_> =
                top.iter().map(|&(id, logprob)| json!({ "id": id, "token": name(id), "logprob": logprob })).collect();
            json!({ "id": id, "token": name(id), "top": top })
        };
        let positions: Vec<_> = tokens.iter().zip(&positions).map(entry).collect();
        writeln!(out, "{:#}", json!({ "positions": positions }))?;
        return Ok(ExitStatus::Done);
    }
    for (&id, top) in tokens.iter().zip(&positions) {
        let top: Vec<String> = top.iter().map(|&(id, logprob)| format!("{:?} {logprob:.3}", name(id))).collect();
        writeln!(out, "{:<16} {}", format!("{:?}", name(id)), top.join("  "))?;
    }
    Ok(ExitStatus::Done)
}

/// After each token, the most probable ids that may follow, with their log-probabilities in nats.
fn most_probable(
    decoder: &dyn Decoder,
    tokens: &[u32],
    count: usize,
) -> Result<Vec<Vec<(u32, f64)>>, crate::policy::Error> {
    let mut cache = decoder.new_cache();
    let next = |token: &u32| {
        let row = decoder.extend(&mut [Chunk { cache: &mut cache, tokens: std::slice::from_ref(token) }])?; // [vocab]
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        let normalizer = f64::from(largest) + sum.ln();
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        let count = count.min(order.len());
        let by_logit = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        order.select_nth_unstable_by(count - 1, by_logit);
        order.truncate(count);
        order.sort_unstable_by(by_logit);
        Ok(order.into_iter().map(|id| (id, f64::from(row[id as usize]) - normalizer)).collect())
    };
    tokens.iter().map(next).collect()
}
