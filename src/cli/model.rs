//! `--model` and `--device`: from names to a decoder.

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Origin};
use toml::Table;

use crate::config::{AnswerFormat, Constrain, LANGUAGE_MODEL, ObservationKind, RunConfig};
use crate::diag::{Diagnostic, SourceSpan};
use crate::opponent::LoadedModel;
use crate::policy::{
    self, AdapterConfig, CandleDecoder, CpuDecoder, Decoder, DecoderConfig, Error, HubName, NamedTensor,
    ReplicatedDecoder, Tokenizer, initial_weights, prefers_quantized, read_gguf, read_quantized, reduction,
};
use crate::seed::Seed;

use super::hub;
use super::output::log;

/// The shape and the weights that `--model` names.
pub(crate) struct Model {
    /// The shape.
    pub(crate) config: DecoderConfig,
    /// The weights; those under the adapter if there is one.
    pub(crate) weights: Vec<NamedTensor>,
    /// An adapter and its tensors.
    pub(crate) adapter: Option<(AdapterConfig, Vec<NamedTensor>)>,
    /// The tokenizer.
    pub(crate) tokenizer: Tokenizer,
    /// The folder or file that it was read from; `None` for the built-in model with its first, random weights.
    pub(crate) folder: Option<PathBuf>,
    /// What its checkpoints keep.
    pub(crate) origin: Origin,
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

    /// The same model with the adapter added to its weights.
    ///
    /// # Errors
    /// A [`Diagnostic`] if they do not fit each other.
    pub(crate) fn merged(mut self) -> Result<Self, Box<Diagnostic>> {
        if let Some((adapter, tensors)) = self.adapter.take() {
            let folder = self.folder.clone().unwrap_or_default();
            let merged = adapter.merge(&self.config, &mut self.weights, &tensors);
            merged.map_err(|error| unusable(&folder, &error))?;
        }
        Ok(self)
    }
}

/// What a model's name stands for; nothing is read to tell.
enum Source<'a> {
    /// The built-in model.
    BuiltIn,
    /// A file of llama.cpp's.
    Gguf(&'a Path),
    /// A name on the Hub.
    Hub(HubName),
    /// A folder in Hugging Face's layout; of a run its newest checkpoint. It may not be there.
    Folder(PathBuf),
}

impl<'a> Source<'a> {
    fn of(name: &'a str) -> Self {
        let path = Path::new(name);
        if name == "tiny" {
            return Self::BuiltIn;
        }
        if is_gguf(path) {
            return Self::Gguf(path);
        }
        // What is there is meant, and what would be beside things that are there (`runs/NAEM`); a name on the Hub is what is
        // left.
        let is_here = path.exists() || path.parent().is_some_and(Path::is_dir);
        match HubName::parse(name).filter(|_| !is_here) {
            Some(hub) => Self::Hub(hub),
            None => Self::Folder(checkpoint::find(path).unwrap_or_else(|| path.to_owned())),
        }
    }
}

/// Reads or makes the model; an adapter is added to its base.
///
/// # Errors
/// A [`Diagnostic`] for a folder or file that holds no usable model.
pub(crate) fn load(name: &str, seed: Seed) -> Result<Model, Box<Diagnostic>> {
    load_apart(name, seed)?.merged()
}

/// Reads or makes the model; an adapter is kept apart from its base.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_apart(name: &str, seed: Seed) -> Result<Model, Box<Diagnostic>> {
    let folder = match Source::of(name) {
        Source::BuiltIn => {
            let tokenizer = Tokenizer::Bytes;
            let config = DecoderConfig::tiny(tokenizer.vocabulary_size());
            let weights = initial_weights(&config, seed.child("weights", 0));
            return Ok(Model { config, weights, adapter: None, tokenizer, folder: None, origin: Origin::default() });
        }
        Source::Gguf(path) => {
            let (config, weights, tokenizer) = read_gguf(path).map_err(|error| unusable(path, &error))?;
            let origin = Origin { config: None, base: absolute(path) };
            return Ok(Model { config, weights, adapter: None, tokenizer, folder: Some(path.to_owned()), origin });
        }
        Source::Hub(hub) => {
            let folder = hub::fetch(&hub)?;
            let model = load_apart(&folder.to_string_lossy(), seed)?;
            let base = if model.adapter.is_some() { model.origin.base } else { name.to_owned() };
            return Ok(Model { origin: Origin { base, ..model.origin }, ..model });
        }
        Source::Folder(folder) => folder,
    };
    if let Some((adapter, base)) = checkpoint::load_adapter_config(&folder)? {
        return load_adapted(&folder, adapter, base, seed);
    }
    let (config, weights) = checkpoint::load_model(&folder)?;
    let tokenizer = Tokenizer::read(&folder, &config).map_err(|error| unusable(&folder, &error))?;
    check_vocabulary(&folder, &config, &tokenizer)?;
    let origin = Origin { base: absolute(&folder), ..Origin::of_folder(&folder) };
    Ok(Model { config, weights, adapter: None, tokenizer, folder: Some(folder), origin })
}

/// Whether a name stands for a model that knows language, and not for the built-in one or what it became. Says nothing of
/// whether the model is there and whole.
pub(crate) fn is_language_model(name: &str) -> bool {
    let folder = match Source::of(name) {
        Source::BuiltIn => return false,
        Source::Gguf(_) | Source::Hub(_) => return true,
        Source::Folder(folder) => folder,
    };
    match (Tokenizer::is_built_in(&folder), checkpoint::load_adapter_config(&folder)) {
        (Some(is_built_in), _) => !is_built_in,
        // An adapter without a tokenizer has that of its base.
        (None, Ok(Some((_, Some(base))))) if Path::new(&base) != folder => is_language_model(&base),
        _ => false,
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn check_vocabulary(folder: &Path, config: &DecoderConfig, tokenizer: &Tokenizer) -> Result<(), Box<Diagnostic>> {
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
    Ok(())
}

/// The folder below a run directory that holds the weights under an adapter where nothing else does.
pub(crate) const BASE_FOLDER: &str = "base";

/// An adapter and the model that it belongs to.
fn load_adapted(
    folder: &Path,
    adapter: AdapterConfig,
    base: Option<String>,
    seed: Seed,
) -> Result<Model, Box<Diagnostic>> {
    let problem = |found: String| {
        Box::new(
            Diagnostic::error("model::base", "the model under the adapter is not there")
                .at(SourceSpan::file(folder.join("adapter_config.json")))
                .expected(
                    "`base_model_name_or_path`: a folder or GGUF file with the model that the adapter was trained on",
                )
                .found(found)
                .help("put the model back there, or write its new place into the file"),
        )
    };
    let base = base.ok_or_else(|| problem("no `base_model_name_or_path`".to_owned()))?;
    // A run that was moved as a whole takes its own base along.
    let own = checkpoint::run_of(folder).map(|run| run.join(BASE_FOLDER));
    let beside = folder.join(&base);
    let is_own = Path::new(&base).file_name() == Some(BASE_FOLDER.as_ref());
    let place = if Path::new(&base).exists() {
        base.clone()
    } else if beside.exists() {
        beside.to_string_lossy().into_owned()
    } else if let Some(own) = own.filter(|own| is_own && own.is_dir()) {
        own.to_string_lossy().into_owned()
    } else if HubName::parse(&base).is_some() {
        base.clone()
    } else {
        return Err(problem(format!("`{base}`")));
    };
    if Path::new(&place).join("adapter_config.json").is_file() {
        return Err(problem(format!("`{place}`, which is an adapter itself")));
    }
    let base = load_apart(&place, seed)?;
    let tensors = checkpoint::load_adapter(folder, &adapter, &base.config)?;
    // The tokenizer that was trained with stands beside the adapter.
    let tokenizer = if folder.join("tokenizer.json").is_file() {
        Tokenizer::read(folder, &base.config).map_err(|error| unusable(folder, &error))?
    } else {
        base.tokenizer
    };
    check_vocabulary(folder, &base.config, &tokenizer)?;
    Ok(Model { adapter: Some((adapter, tensors)), tokenizer, folder: Some(folder.to_owned()), ..base })
}

/// A path that stays the same wherever the program is called from.
fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

/// The tokenizer with the run's system prompt.
///
/// # Errors
/// A [`Diagnostic`] if its model takes none.
pub(crate) fn with_system(tokenizer: Tokenizer, config: &RunConfig) -> Result<Tokenizer, Box<Diagnostic>> {
    tokenizer.with_system(&config.decode.system).map_err(|message| {
        Box::new(
            Diagnostic::error("config::system", "`decode.system` cannot be used with this model")
                .expected("a model whose chat template has a place for a system prompt")
                .found(message)
                .help("leave `decode.system` empty; the games' own prompts hold the rules"),
        )
    })
}

/// Tells what the user should know of a model with a tokenizer of its own, and the settings that have other defaults for it.
pub(crate) fn tell_notes(model: &Model, config: &RunConfig, is_training: bool) {
    for note in model.tokenizer.notes() {
        log(&format!("note: {note}"));
    }
    let settings = Table::try_from(config).unwrap_or_default();
    let told = LANGUAGE_MODEL.iter().filter_map(|pair| {
        let (section, key) = pair.split_once('=')?.0.split_once('.')?;
        if !is_training && (section != "decode" && key != "max_new_tokens") {
            return None;
        }
        Some(format!("{section}.{key}={}", settings.get(section)?.get(key)?))
    });
    if !matches!(model.tokenizer, Tokenizer::Bytes) {
        log(&format!("settings: {}", told.collect::<Vec<_>>().join(", ")));
    }
    let decode = &config.decode;
    if decode.constrain == Constrain::Legal && !matches!(decode.format, AnswerFormat::Bare | AnswerFormat::Script) {
        log(
            "warning: where a game lists its legal answers, they are sampled bare (`decode.constrain = \"legal\"`), and none is in \
             the form that `decode.format` asks for; set `decode.format=bare`, or `decode.constrain=off`",
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

/// Puts a model on a device; an adapter is trained there in place of the weights.
///
/// # Errors
/// A [`Diagnostic`] for a device or type of number that this build or machine does not have.
pub(crate) fn place(model: &Model, device: &str, dtype: &str) -> Result<Box<dyn Decoder>, Box<Diagnostic>> {
    let failed = |error: crate::policy::Error| {
        Box::new(Diagnostic::error("model::failed", "the model cannot be put on the device").found(error.to_string()))
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
    let devices = open_all(device)?;
    if devices.iter().all(|device| !device.is_cpu()) {
        let dtype = if bf16 { candle_core::DType::BF16 } else { candle_core::DType::F32 };
        let on = |device: candle_core::Device| match &model.adapter {
            Some((adapter, tensors)) => {
                let adapter = (adapter.clone(), tensors.as_slice());
                CandleDecoder::with_adapter(model.config.clone(), &model.weights, adapter, device, dtype)
            }
            None => CandleDecoder::new(model.config.clone(), &model.weights, device, dtype),
        };
        let mut decoders = devices.into_iter().map(on).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        if decoders.len() > 1 {
            let reduce = reduction(&decoders).map_err(failed)?;
            return Ok(Box::new(ReplicatedDecoder::new(decoders, reduce).map_err(failed)?));
        }
        return Ok(Box::new(decoders.swap_remove(0)));
    }
    if bf16 {
        return Err(Box::new(
            Diagnostic::error("cli::dtype", "bf16 needs a CUDA device")
                .expected("`--dtype f32` or `auto` on a CPU")
                .found("`--dtype bf16`")
                .help("leave `--dtype` out, or train with `--device cuda`"),
        ));
    }
    let config = model.config.clone();
    let decoder = match &model.adapter {
        Some((adapter, tensors)) => CpuDecoder::with_adapter(config, &model.weights, adapter.clone(), tensors),
        None => CpuDecoder::new(config, &model.weights),
    };
    Ok(Box::new(decoder.map_err(failed)?))
}

/// Reads models that are opponents, for the device of this configuration.
pub(crate) fn loader(
    config: &RunConfig,
) -> impl Fn(&Path) -> Result<LoadedModel, Box<Diagnostic>> + Send + Sync + 'static {
    let (device, dtype, seed) = (config.device.clone(), config.dtype.clone(), Seed::new(config.seed));
    let config = config.clone();
    let is_brief = config.decode.observation == ObservationKind::Brief;
    let warn = move |path: &Path, tokenizer: &Tokenizer| {
        if is_brief && !matches!(tokenizer, Tokenizer::Bytes) {
            log(&format!(
                "warning: {} sees the short observations of the tiny model; `--set decode.observation=full` shows it whole \
                 prompts",
                path.display()
            ));
        }
    };
    move |path| {
        let problem = |error: Error| unusable(path, &error);
        if is_gguf(path) {
            let device = open(&device)?;
            if !device.is_cpu() || prefers_quantized(path).map_err(problem)? {
                let (decoder, tokenizer) = read_quantized(path, &device).map_err(problem)?;
                warn(path, &tokenizer);
                let tokenizer = as_opponent(tokenizer, &config)?;
                return Ok(LoadedModel { decoder: Box::new(decoder), tokenizer, place: path.to_owned() });
            }
            log(&format!(
                "opponent {}: widened to f32, in which its matrices multiply faster on a CPU",
                path.display()
            ));
        }
        let model = load(&path.to_string_lossy(), seed)?;
        warn(path, &model.tokenizer);
        let decoder = place(&model, &device, &dtype)?;
        let place = model.folder.unwrap_or_else(|| path.to_owned());
        Ok(LoadedModel { decoder, tokenizer: as_opponent(model.tokenizer, &config)?, place })
    }
}

/// A model that plays against the learner is told what the learner is told, if it has a place for it.
fn as_opponent(tokenizer: Tokenizer, config: &RunConfig) -> Result<Tokenizer, Box<Diagnostic>> {
    if matches!(tokenizer, Tokenizer::Bytes) { Ok(tokenizer) } else { with_system(tokenizer, config) }
}

/// The devices of a list, `cuda:0,1`, or of what [`open`] takes; at least one.
fn open_all(device: &str) -> Result<Vec<candle_core::Device>, Box<Diagnostic>> {
    numbers(device).map_or_else(|| Ok(vec![open(device)?]), |numbers| numbers.into_iter().map(open_cuda).collect())
}

/// The numbers of a list of several devices, each once.
fn numbers(device: &str) -> Option<Vec<usize>> {
    let numbers = device.strip_prefix("cuda:")?.split(',').map(|number| number.parse().ok());
    let numbers = numbers.collect::<Option<Vec<usize>>>()?;
    let is_list = numbers.len() > 1 && (1..numbers.len()).all(|index| !numbers[..index].contains(&numbers[index]));
    is_list.then_some(numbers)
}

/// The device of a name, of a list the first; `auto` is CUDA where the build and the machine have it.
fn open(device: &str) -> Result<candle_core::Device, Box<Diagnostic>> {
    let index = match device {
        "auto" if cfg!(feature = "cuda") => 0,
        "auto" | "cpu" => return Ok(candle_core::Device::Cpu),
        _ => numbers(device).map_or_else(|| parse_cuda(device), |numbers| Ok(numbers[0]))?,
    };
    match open_cuda(index) {
        Err(problem) if device == "auto" => {
            log(&format!("no CUDA device, going on on the CPU: {}", problem.message));
            Ok(candle_core::Device::Cpu)
        }
        opened => opened,
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
                .expected("`auto`, `cpu`, `cuda`, `cuda:N`, or several as `cuda:0,1`"),
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
    policy::open_cuda(index).map_err(|error| {
        Box::new(
            Diagnostic::error("cli::device", format!("the CUDA device {index} cannot be opened"))
                .found(error.to_string())
                .help("check `nvidia-smi`, or use `--device cpu`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_devices_are_a_list_of_different_numbers() {
        assert_eq!(numbers("cuda:0,2"), Some(vec![0, 2]));
        for other in ["cuda", "cuda:1", "cuda:0,0", "cuda:0,", "cuda:0,x", "cpu", "auto", "0,1"] {
            assert_eq!(numbers(other), None, "{other}");
        }
        let refused = open_all("cuda:0,0").unwrap_err();
        assert_eq!(refused.code, "cli::device");
    }
}
