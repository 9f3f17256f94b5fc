//! A model's own tokenizer: Hugging Face's `tokenizer.json`, the tokens that end an answer, and the chat template. The files
//! are kept as they were read, so that a checkpoint is a whole folder again.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::super::{Error, Pieces};
use super::pieces;
use super::template::Turns;

/// The files that belong to a tokenizer, where a model has them.
const FILES: [&str; 10] = [
    TOKENIZER,
    SETTINGS,
    GENERATION,
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.json",
];
pub(in crate::policy) const TOKENIZER: &str = "tokenizer.json";
pub(in crate::policy) const SETTINGS: &str = "tokenizer_config.json";
pub(in crate::policy) const GENERATION: &str = "generation_config.json";
pub(in crate::policy) const TEMPLATE: &str = "chat_template.jinja";
/// Read for its `eos_token_id`, and not kept: a checkpoint has its own.
const CONFIG: &str = "config.json";

/// Name and content.
type File = (String, Vec<u8>);

/// A model's own tokenizer.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: tokenizers::Tokenizer,
    vocabulary_size: usize,
    ends: Vec<u32>,
    /// Texts of special tokens, which an observation must not spell.
    special: Vec<String>,
    /// Ids under their names in `config.json`.
    special_ids: Vec<(&'static str, u32)>,
    turns: Option<Turns>,
    /// The chat template, and the special tokens by the names that it may use.
    template: Option<String>,
    named: Vec<(&'static str, String)>,
    /// What stands before all observations where there is no template.
    preface: String,
    notes: Vec<String>,
    files: Vec<File>,
    /// Made when an answer is first sampled among listed ones.
    pieces: OnceLock<Pieces>,
}

/// The tokenizer's files of a folder, and `config.json`.
pub(super) fn read_files(folder: &Path) -> Result<Vec<File>, Error> {
    let mut files = Vec::new();
    for name in FILES.into_iter().chain([CONFIG]) {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(content) => files.push((name.to_owned(), content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { path, source }),
        }
    }
    Ok(files)
}

impl TextTokenizer {
    /// A tokenizer from its files. `place` is the folder or file that they are from, for messages.
    ///
    /// # Errors
    /// [`Error::Format`] for a missing or unusable file, ids beyond the model's vocabulary, no token that ends an answer, or
    /// a chat template that this version cannot follow.
    pub(in crate::policy) fn new(place: &Path, files: Vec<File>, model_vocabulary: usize) -> Result<Self, Error> {
        let refuse = |name: &str, message: String| {
            let path = if place.is_dir() { place.join(name) } else { place.to_owned() };
            Error::Format { path, message }
        };
        let find = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, content)| content.as_slice());
        let json = |name: &str| match find(name) {
            None => Ok(Map::new()),
            Some(content) => serde_json::from_slice(content).map_err(|error| refuse(name, error.to_string())),
        };
        let content = find(TOKENIZER).ok_or_else(|| {
            let more = if find("tokenizer.model").is_some() || find("vocab.json").is_some() {
                "; transformers makes it from the older files there: `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
            } else {
                ""
            };
            refuse(TOKENIZER, format!("the model has no `tokenizer.json`{more}"))
        })?;
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(content).map_err(|error| refuse(TOKENIZER, error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| refuse(TOKENIZER, error.to_string()))?;
        let vocabulary_size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if vocabulary_size > model_vocabulary {
            let message = format!("it has ids up to {}, the model only {model_vocabulary} ids", vocabulary_size - 1);
            return Err(refuse(TOKENIZER, message));
        }
        let settings = json(SETTINGS)?;
        let map = json("special_tokens_map.json")?;
        let named = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let named: Vec<(&'static str, String)> = named
            .into_iter()
            .filter_map(|name| Some((name, token_name(settings.get(name)).or_else(|| token_name(map.get(name)))?)))
            .collect();
        let id_of = |name: &str| {
            named.iter().find(|(found, _)| *found == name).and_then(|(_, text)| tokenizer.token_to_id(text))
        };
        let special_ids = [("bos_token_id", "bos_token"), ("pad_token_id", "pad_token")]
            .into_iter()
            .filter_map(|(field, name)| Some((field, id_of(name)?)))
            .collect();
        let mut notes = Vec::new();
        let template = template(find(TEMPLATE), &settings, &json("chat_template.json")?);
        let turns = template.as_ref().map(|template| Turns::new(template, &named, "")).transpose();
        let turns = turns.map_err(|message| refuse(SETTINGS, message))?;
        if turns.is_none() {
            notes.push("the model has no chat template: observations are put before it as plain text".to_owned());
        }
        if turns.as_ref().is_some_and(|turns| turns.drops_thoughts) {
            notes.push(
                "the chat template leaves out the thoughts of earlier turns; here they stay, as the tokens that were sampled"
                    .to_owned(),
            );
        }
        let special: Vec<String> = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        let mut ends = Vec::new();
        // First what the template ends an answer with: of several end tokens, the one that the model's own turns have.
        let turn_end = turns.as_ref().and_then(|turns| {
            let after = &turns.later.before;
            special.iter().filter(|token| after.starts_with(token.as_str())).max_by_key(|token| token.len())
        });
        ends.extend(turn_end.and_then(|token| tokenizer.token_to_id(token)));
        ends.extend(id_of("eos_token"));
        for name in [GENERATION, CONFIG] {
            ends.extend(ids(json(name)?.get("eos_token_id")));
        }
        let mut seen = std::collections::BTreeSet::new();
        ends.retain(|&id| (id as usize) < model_vocabulary && seen.insert(id));
        if ends.is_empty() {
            return Err(refuse(
                GENERATION,
                "no token ends an answer; expected `eos_token_id` here or in `config.json`, or `eos_token` in \
                 `tokenizer_config.json`"
                    .to_owned(),
            ));
        }
        let files = files.into_iter().filter(|(name, _)| name != CONFIG).collect();
        Ok(Self {
            tokenizer,
            vocabulary_size,
            ends,
            special,
            special_ids,
            turns,
            template,
            named,
            preface: String::new(),
            notes,
            files,
            pieces: OnceLock::new(),
        })
    }

    /// The same with a system prompt at the start of every conversation.
    ///
    /// # Errors
    /// Why the chat template takes none.
    pub(super) fn with_system(mut self, system: &str) -> Result<Self, String> {
        let system = self.without_special_tokens(system);
        match &self.template {
            None => self.preface = format!("{system}\n\n"),
            Some(template) => {
                let turns = Turns::new(template, &self.named, &system)?;
                if !turns.first.before.contains(system.trim()) {
                    return Err("the chat template leaves it out".to_owned());
                }
                self.turns = Some(turns);
            }
        }
        Ok(self)
    }

    pub(super) fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn special_ids(&self) -> Vec<(&'static str, u32)> {
        self.special_ids.clone()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        // It fails only for models that lack tokens for some text, and gives nothing for it then.
        self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    pub(super) fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        self.tokenizer.decode(tokens, skip_special).unwrap_or_default()
    }

    /// What each token spells.
    pub(super) fn pieces(&self) -> &Pieces {
        self.pieces.get_or_init(|| pieces::pieces(&self.tokenizer))
    }

    pub(super) fn prompt(&self, observation: &str, is_first: bool) -> Vec<u32> {
        let observation = self.without_special_tokens(observation);
        let Some(turns) = &self.turns else {
            let before = if is_first { &*self.preface } else { "\n\n" };
            return self.encode(&format!("{before}{observation}\n\n"));
        };
        let mut tokens = self.encode(&turns.compose(&observation, is_first));
        // The answer ended with its end token already.
        if !is_first && tokens.first().is_some_and(|token| self.ends.contains(token)) {
            tokens.remove(0);
        }
        tokens
    }

    /// A text of a game must not end the turn that it stands in: special tokens that it spells are pulled apart.
    fn without_special_tokens(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for token in &self.special {
            let split = token.char_indices().nth(1).map_or(token.len(), |(at, _)| at);
            if split < token.len() && text.contains(token.as_str()) {
                text = text.replace(token.as_str(), &format!("{} {}", &token[..split], &token[split..]));
            }
        }
        text
    }
}

/// The template of a model: its own file, or a field of the settings, which may hold several by name.
fn template(file: Option<&[u8]>, settings: &Map<String, Value>, older: &Map<String, Value>) -> Option<String> {
    if let Some(file) = file {
        return Some(String::from_utf8_lossy(file).into_owned());
    }
    match settings.get("chat_template").or_else(|| older.get("chat_template"))? {
        Value::String(template) => Some(template.clone()),
        Value::Array(list) => {
            let name = |entry: &Value| entry.get("name").and_then(Value::as_str) == Some("default");
            Some(list.iter().find(|entry| name(entry))?.get("template")?.as_str()?.to_owned())
        }
        _ => None,
    }
}

/// A token's text: written out, or in an object with more about it.
fn token_name(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// One id or several.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
