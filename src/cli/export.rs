//! `gift-host export`: what a run trained, in the layout of another program.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::diag::{Diagnostic, SourceSpan};
use crate::policy::{Error, GgufType, write_gguf};
use crate::seed::Seed;

use super::ExitStatus;
use super::model::{self, Model};
use super::output::log;

/// Flags of `gift-host export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    /// A run (its newest checkpoint is taken), a checkpoint, or another model that `--model` takes
    #[arg(value_name = "DIR")]
    source: String,
    /// The layout
    #[arg(long, value_enum)]
    format: Format,
    /// The folder or file to write; beside DIR and named after it if left out
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Numbers of a GGUF file: `q8_0` takes half the room of `f16`, which takes half of `f32`
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A folder for transformers, with the adapter added to the weights
    Hf,
    /// The adapter alone, for PEFT
    Peft,
    /// A file for llama.cpp
    Gguf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
        }
    }
}

/// Writes the export and prints its path.
pub(crate) fn run(args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    if args.kind.is_some() && args.format != Format::Gguf {
        let problem = Diagnostic::error("cli::export", "only GGUF files have a type")
            .found("`--type` with another format")
            .help("leave `--type` out, or write `--format gguf`");
        return Err(Box::new(problem).into());
    }
    let kind = args.kind.unwrap_or(Kind::F16);
    let target = match &args.out {
        Some(target) => target.clone(),
        None => beside(&args.source, args.format, kind),
    };
    if target.exists() {
        let problem = Diagnostic::error("cli::export_exists", format!("`{}` is there already", target.display()))
            .expected("a name that is free")
            .help("choose another one with `--out`, or remove it");
        return Err(Box::new(problem).into());
    }
    let model = model::load_apart(&args.source, Seed::new(0))?;
    if args.source == "tiny" {
        log("note: the built-in model is untrained; give a run to export what it learned");
    }
    match args.format {
        Format::Hf => folder(&target, |folder| {
            let Model { config, weights, tokenizer, origin, .. } = model.merged()?;
            Ok(checkpoint::save_weights(folder, &config, &weights, &tokenizer, &origin)?)
        })?,
        Format::Peft => {
            let Some((adapter, tensors)) = &model.adapter else { return Err(no_adapter(&args.source, &model).into()) };
            folder(&target, |folder| {
                Ok(checkpoint::save_adapter(folder, adapter, tensors, &model.tokenizer, &model.origin)?)
            })?;
        }
        Format::Gguf => gguf(&args.source, &target, kind, model)?,
    }
    writeln!(out, "{}", target.display())?;
    Ok(ExitStatus::Done)
}

/// A name beside the source and after it.
fn beside(source: &str, format: Format, kind: Kind) -> PathBuf {
    let source = source.trim_end_matches('/');
    let stem = source.strip_suffix(".gguf").unwrap_or(source);
    PathBuf::from(match format {
        Format::Hf => format!("{stem}-hf"),
        Format::Peft => format!("{stem}-peft"),
        Format::Gguf => format!("{stem}-{}.gguf", kind.name()),
    })
}

/// Fills a folder that appears complete or not at all.
fn folder(target: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = target.with_file_name(format!(".{name}.partial"));
    checkpoint::remove_folder(&beside)?;
    checkpoint::create_folder(&beside)?;
    fill(&beside)?;
    Ok(checkpoint::rename(&beside, target)?)
}

fn gguf(source: &str, target: &Path, kind: Kind, model: Model) -> anyhow::Result<()> {
    let model = model.merged()?;
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        checkpoint::create_folder(parent)?;
    }
    let kind = match kind {
        Kind::F32 => GgufType::F32,
        Kind::F16 => GgufType::F16,
        Kind::Q8 => GgufType::Q8,
    };
    let name = Path::new(source).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let written = write_gguf(target, kind, (&model.config, &model.weights), &model.tokenizer, &name);
    written.map_err(|error| match error {
        Error::Format { message, .. } => anyhow::Error::from(Box::new(
            Diagnostic::error("export::gguf", "the model cannot be written to a GGUF file")
                .at(SourceSpan::file(model.folder.unwrap_or_default()))
                .found(message),
        )),
        other => other.into(),
    })
}

fn no_adapter(source: &str, model: &Model) -> Box<Diagnostic> {
    let place = model.folder.clone().unwrap_or_else(|| source.into());
    Box::new(
        Diagnostic::error("export::no_adapter", "there is no adapter to export")
            .at(SourceSpan::file(place))
            .expected("a checkpoint of a run with `lora.rank` above 0")
            .found("a model all of whose weights were trained")
            .help("write it whole with `--format hf`"),
    )
}
