//! `--model` and `--device`: from names to a decoder.

use std::path::Path;

use crate::checkpoint;
use crate::config::{Constrain, ObservationKind, RunConfig};
use crate::diag::{Diagnostic, SourceSpan};
use crate::opponent::LoadedModel;
use crate::policy::{
    CandleDecoder, CpuDecoder, Decoder, DecoderConfig, Error, NamedTensor, Tokenizer, initial_weights, read_gguf,
};
use crate::seed::Seed;

use super::output::log;

/// The shape and the weights that `--model` names.
pub(crate) struct Model {
    /// The shape.
    pub(crate) config: DecoderConfig,
    /// The weights.
    pub(crate) weights: Vec<NamedTensor>,
    /// The tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// The folder or file that it was read from; `None` for the built-in model with its first, random weights.
    pub(crate) folder: Option<std::path::PathBuf>,
}

impl Model {
    /// One line that says what is measured.
    pub(crate) fn describe(&self) -> String {
        let millions = self.config.parameter_count() as f64 / 1e6;
        match &self.folder {
            Some(folder) => format!("model: {}, {millions:.1} M parameters", folder.display()),
            None => format!(
                "model: tiny, untrained: its {millions:.1} M parameters are random; `--model runs/NAME` measures a trained one"
            ),
        }
    }
}

/// Reads or makes the model.
///
/// # Errors
/// A [`Diagnostic`] for a folder or file that holds no usable model.
pub(crate) fn load(name: &str, seed: Seed) -> Result<Model, Box<Diagnostic>> {
    if name == "tiny" {
        let tokenizer = Tokenizer::Bytes;
        let config = DecoderConfig::tiny(tokenizer.vocabulary_size());
        let weights = initial_weights(&config, seed.child("weights", 0));
        return Ok(Model { config, weights, tokenizer, folder: None });
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        let (config, weights, tokenizer) = read_gguf(path).map_err(|error| unusable(path, &error))?;
        return Ok(Model { config, weights, tokenizer, folder: Some(path.to_owned()) });
    }
    let folder = match checkpoint::find(path) {
        Some(checkpoint) => checkpoint,
        None => path.to_owned(),
    };
    let (config, weights) = checkpoint::load_model(&folder)?;
    let tokenizer = Tokenizer::read(&folder, &config).map_err(|error| unusable(&folder, &error))?;
    if matches!(tokenizer, Tokenizer::Bytes) && config.vocab_size != tokenizer.vocabulary_size() {
        return Err(Box::new(
            Diagnostic::error(
                "model::tokenizer",
                format!("the model in `{}` does not fit its tokenizer", folder.display()),
            )
            .expected(format!("a vocabulary of {} ids, as the built-in tokenizer has", tokenizer.vocabulary_size()))
            .found(format!("a vocabulary of {}", config.vocab_size))
            .help("take another checkpoint of the run: `config.json` or `tokenizer.json` was changed in this one"),
        ));
    }
    Ok(Model { config, weights, tokenizer, folder: Some(folder) })
}

/// Tells what the user should know of a model with a tokenizer of its own, and of settings that do not suit it.
pub(crate) fn tell_notes(model: &Model, config: &RunConfig) {
    for note in model.tokenizer.notes() {
        log(&format!("note: {note}"));
    }
    let is_tiny = matches!(model.tokenizer, Tokenizer::Bytes);
    let decode = &config.decode;
    if !is_tiny && (decode.observation == ObservationKind::Brief || decode.constrain == Constrain::Legal) {
        log(
            "warning: `decode` has the settings of the tiny model: short observations, or answers sampled among the legal ones. \
             A model that knows language is trained with `--set decode.observation=full --set decode.constrain=off --set \
             decode.format=think` and a small `optimizer.learning_rate`; `configs/smollm2.toml` has all of this",
        );
    }
}

fn unusable(place: &Path, error: &Error) -> Box<Diagnostic> {
    let (file, message) = match error {
        Error::Format { path, message } => (path.as_path(), message.clone()),
        Error::Io { path, source } => (path.as_path(), format!("it cannot be read: {source}")),
        other => (place, other.to_string()),
    };
    Box::new(
        Diagnostic::error("model::unusable", message)
            .at(SourceSpan::file(file))
            .expected("a folder in Hugging Face's layout, or a GGUF file, of a Llama, Mistral, Qwen2 or Qwen3 model"),
    )
}

/// Puts a model on a device.
///
/// # Errors
/// A [`Diagnostic`] for a device or type of number that this build or machine does not have.
pub(crate) fn place(model: &Model, device: &str, dtype: &str) -> Result<Box<dyn Decoder>, Box<Diagnostic>> {
    let failed = |error: crate::policy::Error| {
        Box::new(Diagnostic::error("model::failed", "the model cannot be put on the device").found(error.to_string()))
    };
    let cuda_index = match device {
        "auto" if cfg!(feature = "cuda") => Some(0),
        "auto" | "cpu" => None,
        _ => Some(parse_cuda(device)?),
    };
    let bf16 = match dtype {
        "bf16" => true,
        "auto" | "f32" => false,
        _ => {
            return Err(Box::new(
                Diagnostic::error("cli::dtype", format!("`{dtype}` is no type of number that models can have"))
                    .expected("`auto`, `f32` or `bf16`"),
            ));
        }
    };
    if let Some(index) = cuda_index {
        match open_cuda(index) {
            Ok(device) => {
                let dtype = if bf16 { candle_core::DType::BF16 } else { candle_core::DType::F32 };
                let decoder =
                    CandleDecoder::new(model.config.clone(), &model.weights, device, dtype).map_err(failed)?;
                return Ok(Box::new(decoder));
            }
            Err(problem) if device != "auto" => return Err(problem),
            Err(problem) => log(&format!("no CUDA device, going on on the CPU: {}", problem.message)),
        }
    }
    if bf16 {
        return Err(Box::new(
            Diagnostic::error("cli::dtype", "bf16 needs a CUDA device")
                .expected("`--dtype f32` or `auto` on a CPU")
                .found("`--dtype bf16`")
                .help("leave `--dtype` out, or train with `--device cuda`"),
        ));
    }
    Ok(Box::new(CpuDecoder::new(model.config.clone(), &model.weights).map_err(failed)?))
}

/// Reads models that are opponents, for the device of this configuration.
pub(crate) fn loader(
    config: &RunConfig,
) -> impl Fn(&Path) -> Result<LoadedModel, Box<Diagnostic>> + Send + Sync + 'static {
    let (device, dtype, seed) = (config.device.clone(), config.dtype.clone(), Seed::new(config.seed));
    move |path| {
        let model = load(&path.to_string_lossy(), seed)?;
        let decoder = place(&model, &device, &dtype)?;
        let place = model.folder.unwrap_or_else(|| path.to_owned());
        Ok(LoadedModel { decoder, tokenizer: model.tokenizer, place })
    }
}

fn parse_cuda(device: &str) -> Result<usize, Box<Diagnostic>> {
    let index = match device {
        "cuda" => Some(0),
        _ => device.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
    };
    index.ok_or_else(|| {
        Box::new(
            Diagnostic::error("cli::device", format!("`{device}` is no device"))
                .expected("`auto`, `cpu`, `cuda` or `cuda:N`"),
        )
    })
}

fn open_cuda(index: usize) -> Result<candle_core::Device, Box<Diagnostic>> {
    if !cfg!(feature = "cuda") {
        return Err(Box::new(
            Diagnostic::error("cli::device", "this build has no CUDA")
                .expected("a build with `--features cuda`")
                .found("a build for the CPU")
                .help("use `--device cpu`, or build with `cargo build --release --features cuda`"),
        ));
    }
    candle_core::Device::new_cuda(index).map_err(|error| {
        Box::new(
            Diagnostic::error("cli::device", format!("the CUDA device {index} cannot be opened"))
                .found(error.to_string())
                .help("check `nvidia-smi`, or use `--device cpu`"),
        )
    })
}
