//! A model as a folder: weights and tokenizer in Hugging Face's layout, or an adapter in PEFT's. What the model came with and
//! this program has no use for is kept.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::files::{self, Error, read_text, write_text};
use super::{describe, earlier};
use crate::diag::{Diagnostic, SourceSpan};
use crate::policy::{
    AdapterConfig, Decoder, DecoderConfig, NamedTensor, TensorKind, Tokenizer, read_adapter, read_weights,
    write_adapter, write_safetensors,
};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER: &str = "adapter_model.safetensors";

/// Where a model came from: what its checkpoints keep beside weights and tokenizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// Its `config.json`, with fields that this program does not read; `None` for a model that had none.
    pub config: Option<Map<String, Value>>,
    /// What names the weights under an adapter: a folder, a file, or a name on the Hub.
    pub base: String,
}

impl Origin {
    /// The origin of a model in a folder.
    pub fn of_folder(folder: &Path) -> Self {
        let text = read_text(&folder.join(CONFIG)).ok();
        Self { config: text.and_then(|text| serde_json::from_str(&text).ok()), base: String::new() }
    }

    /// The text of a checkpoint's `config.json`: every field that the model came with, and those of ours that it lacks. Its
    /// numbers are stored in 32 bits whatever they were before.
    pub fn config_text(&self, config: &DecoderConfig, tokenizer: &Tokenizer) -> String {
        let ours: Map<String, Value> = serde_json::from_str(&config.to_hugging_face()).unwrap_or_default();
        let mut fields = self.config.clone().unwrap_or_default();
        let has_rope = fields.contains_key("rope_parameters");
        for (name, value) in ours {
            // Newer files have the rotary settings in one object, and both forms together would be read in two ways.
            let is_said = has_rope && (name == "rope_theta" || name == "rope_scaling");
            if !is_said && !fields.contains_key(&name) {
                fields.insert(name, value);
            }
        }
        for (name, id) in tokenizer.special_ids() {
            fields.entry(name).or_insert_with(|| id.into());
        }
        fields.entry("eos_token_id").or_insert_with(|| ends(tokenizer));
        if fields.remove("dtype").is_some() {
            fields.insert("dtype".to_owned(), json!("float32"));
            fields.remove("torch_dtype");
        } else {
            fields.insert("torch_dtype".to_owned(), json!("float32"));
        }
        format!("{:#}\n", Value::Object(fields))
    }
}

fn ends(tokenizer: &Tokenizer) -> Value {
    match tokenizer.ends() {
        [only] => json!(only),
        several => json!(several),
    }
}

/// Writes weights (with an adapter added to them), configuration and tokenizer in Hugging Face's layout.
///
/// # Errors
/// [`Error`] with the path.
pub fn save_model(folder: &Path, decoder: &dyn Decoder, tokenizer: &Tokenizer, origin: &Origin) -> Result<(), Error> {
    save_weights(folder, decoder.config(), &decoder.merged_weights()?, tokenizer, origin)
}

/// As [`save_model`], from weights that no decoder holds.
///
/// # Errors
/// [`Error`] with the path.
pub fn save_weights(
    folder: &Path,
    config: &DecoderConfig,
    weights: &[NamedTensor],
    tokenizer: &Tokenizer,
    origin: &Origin,
) -> Result<(), Error> {
    write_text(&folder.join(CONFIG), &origin.config_text(config, tokenizer))?;
    save_tokenizer(folder, tokenizer)?;
    let metadata = [("format".to_owned(), "pt".to_owned())];
    write_safetensors(&folder.join(WEIGHTS), weights, &metadata)?;
    Ok(())
}

/// Writes an adapter in PEFT's layout, with the tokenizer beside it.
///
/// # Errors
/// [`Error`] with the path.
pub fn save_adapter(
    folder: &Path,
    adapter: &AdapterConfig,
    tensors: &[NamedTensor],
    tokenizer: &Tokenizer,
    origin: &Origin,
) -> Result<(), Error> {
    write_text(&folder.join(ADAPTER_CONFIG), &adapter.to_peft(&origin.base))?;
    save_tokenizer(folder, tokenizer)?;
    write_adapter(&folder.join(ADAPTER), tensors)?;
    Ok(())
}

/// What the run trained: all weights, or the adapter.
pub(super) fn save_trained(
    folder: &Path,
    decoder: &dyn Decoder,
    tokenizer: &Tokenizer,
    origin: &Origin,
) -> Result<(), Error> {
    match decoder.adapter() {
        Some(adapter) => save_adapter(folder, adapter, &decoder.tensors(TensorKind::Adapter)?, tokenizer, origin),
        None => save_model(folder, decoder, tokenizer, origin),
    }
}

fn save_tokenizer(folder: &Path, tokenizer: &Tokenizer) -> Result<(), Error> {
    // A model that came with settings of its own keeps them, as they are among its tokenizer's files.
    let generation = json!({"eos_token_id": ends(tokenizer), "do_sample": true, "temperature": 1.0});
    write_text(&folder.join("generation_config.json"), &format!("{generation:#}\n"))?;
    for (name, content) in tokenizer.files() {
        files::write_bytes(&folder.join(&*name), &content)?;
    }
    Ok(())
}

fn unusable(folder: &Path, path: &Path, message: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::error("model::unusable", message).at(SourceSpan::file(path)).help(match earlier(folder) {
        Some(earlier) => format!("it may have been cut off; an earlier checkpoint is `{}`", earlier.display()),
        None => "if it is a checkpoint, take another one of the run; this one may have been cut off".to_owned(),
    }))
}

/// Reads a model in Hugging Face's layout.
///
/// # Errors
/// A [`Diagnostic`] that names the file and what is wrong with it.
pub fn load_model(folder: &Path) -> Result<(DecoderConfig, Vec<NamedTensor>), Box<Diagnostic>> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Err(Box::new(
            Diagnostic::error("model::missing", format!("no model in `{}`", folder.display()))
                .expected("a folder with `config.json` and `model.safetensors`, such as a checkpoint of a run, or a file `NAME.gguf`")
                .found(match (folder.is_dir(), folder.exists()) {
                    (true, _) => "a folder without `config.json`",
                    (false, true) => "a file that does not end in `.gguf`",
                    (false, false) => "nothing of that name",
                })
                .help("a run's are in `runs/NAME/checkpoints/`; `--model tiny` is the built-in one"),
        ));
    }
    let config = DecoderConfig::read(&path).map_err(|error| unusable(folder, &path, describe(&error)))?;
    let path = folder.join(WEIGHTS);
    let weights = read_weights(folder, &config).map_err(|error| unusable(folder, &path, describe(&error)))?;
    Ok((config, weights))
}

/// The settings of the adapter in a folder of PEFT's layout, and the model that it names as its base; `None` if the folder
/// holds no adapter.
///
/// # Errors
/// A [`Diagnostic`] that names the file and what is wrong with it.
pub fn load_adapter_config(folder: &Path) -> Result<Option<(AdapterConfig, Option<String>)>, Box<Diagnostic>> {
    let path = folder.join(ADAPTER_CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(&path).map_err(|error| unusable(folder, &path, describe(&error)))?;
    let found = AdapterConfig::from_peft(&text, &path).map_err(|error| unusable(folder, &path, describe(&error)))?;
    Ok(Some(found))
}

/// The tensors of the adapter in a folder of PEFT's layout.
///
/// # Errors
/// A [`Diagnostic`] that names the file and what is wrong with it: also if the tensors do not fit the model.
pub fn load_adapter(
    folder: &Path,
    adapter: &AdapterConfig,
    config: &DecoderConfig,
) -> Result<Vec<NamedTensor>, Box<Diagnostic>> {
    let path = folder.join(ADAPTER);
    read_adapter(&path, adapter, config).map_err(|error| unusable(folder, &path, describe(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_nobody_reads_are_kept() {
        let config = DecoderConfig::tiny(264);
        let mut original: Map<String, Value> = serde_json::from_str(&config.to_hugging_face()).unwrap();
        original.remove("rope_theta");
        original.insert("rope_parameters".to_owned(), json!({"rope_theta": 10000.0, "rope_type": "default"}));
        original.insert("transformers_version".to_owned(), json!("5.0.0"));
        original.insert("dtype".to_owned(), json!("bfloat16"));
        original.insert("eos_token_id".to_owned(), json!([1, 2]));
        let origin = Origin { config: Some(original.clone()), base: String::new() };
        let text = origin.config_text(&config, &Tokenizer::Bytes);
        let mut found: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(found.remove("dtype"), Some(json!("float32")));
        original.remove("dtype");
        original.remove("torch_dtype");
        assert_eq!(found, original);
        assert_eq!(DecoderConfig::from_hugging_face(&text, Path::new("config.json")).unwrap(), config);
        let fresh = Origin::default().config_text(&config, &Tokenizer::Bytes);
        assert_eq!(DecoderConfig::from_hugging_face(&fresh, Path::new("config.json")).unwrap(), config);
    }
}
