//! Text to token ids and back, and from an observation to the tokens that put it before the policy. The tiny model has a
//! tokenizer of its own; all others bring Hugging Face's `tokenizer.json` and a chat template.

mod bytes; // the tiny model's: a byte is a token
mod pieces; // the bytes that tokens spell
mod template; // a chat template, reduced to the text around an observation
mod text; // a model's own tokenizer.json

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

pub use text::TextTokenizer;
pub(super) use text::{GENERATION, SETTINGS, TEMPLATE, TOKENIZER};

use super::{AnswerTrie, DecoderConfig, Error};

/// Text to token ids and back.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// One id a byte, and four special tokens.
    Bytes,
    /// A model's own, from Hugging Face's files.
    Text(Arc<TextTokenizer>),
}

impl Tokenizer {
    /// The tokenizer of a folder in Hugging Face's layout, for a model of this shape. A folder that holds the built-in
    /// tokenizer's file, or none and a model with its vocabulary, gives that one.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] with the file.
    pub fn read(folder: &Path, config: &DecoderConfig) -> Result<Self, Error> {
        let files = text::read_files(folder)?;
        let own = files.iter().find(|(name, _)| name == "tokenizer.json").map(|(_, content)| content.as_slice());
        let is_built_in = match own {
            Some(content) => bytes::files().first().is_some_and(|(_, ours)| ours.as_bytes() == content),
            None => config.vocab_size == bytes::VOCABULARY,
        };
        if is_built_in {
            return Ok(Self::Bytes);
        }
        Ok(Self::Text(Arc::new(TextTokenizer::new(folder, files, config.vocab_size)?)))
    }

    /// Whether a folder holds the built-in tokenizer; `None` where it has no `tokenizer.json` that can be read.
    pub fn is_built_in(folder: &Path) -> Option<bool> {
        let content = std::fs::read(folder.join(TOKENIZER)).ok()?;
        Some(bytes::files().first().is_some_and(|(_, ours)| ours.as_bytes() == content))
    }

    /// The same with a system prompt at the start of every conversation; an empty one changes nothing.
    ///
    /// # Errors
    /// Why this tokenizer's model takes none.
    pub fn with_system(self, system: &str) -> Result<Self, String> {
        match self {
            _ if system.trim().is_empty() => Ok(self),
            Self::Bytes => Err("the built-in model has no place for one".to_owned()),
            Self::Text(text) => Ok(Self::Text(Arc::new(Arc::unwrap_or_clone(text).with_system(system)?))),
        }
    }

    /// Number of ids, unused ones included; the model may have more.
    pub fn vocabulary_size(&self) -> usize {
        match self {
            Self::Bytes => bytes::VOCABULARY,
            Self::Text(text) => text.vocabulary_size(),
        }
    }

    /// The tokens that end an answer, at least one. The first is the one that the model's own turns end with.
    pub fn ends(&self) -> &[u32] {
        match self {
            Self::Bytes => &[bytes::END],
            Self::Text(text) => text.ends(),
        }
    }

    /// The token that ends an answer where the program ends it.
    pub fn end(&self) -> u32 {
        self.ends()[0]
    }

    /// The ids of a text, without special tokens around it.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Self::Bytes => bytes::encode(text),
            Self::Text(tokenizer) => tokenizer.encode(text),
        }
    }

    /// The text of some ids; special and unused ids are left out, bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> String {
        match self {
            Self::Bytes => bytes::decode(tokens),
            Self::Text(text) => text.decode(tokens, true),
        }
    }

    /// The legal answers, to be sampled among, in every way in which the vocabulary spells them.
    pub fn answers<T: AsRef<str>>(&self, answers: &[T]) -> AnswerTrie {
        match self {
            Self::Bytes => AnswerTrie::new(answers.iter().map(|answer| bytes::ids(answer.as_ref())), self.end()),
            Self::Text(text) => AnswerTrie::every_spelling(answers, text.pieces(), self.end()),
        }
    }

    /// The tokens that put an observation before the policy and leave it to answer. They are appended to what the
    /// trajectory holds, never merged with it; `is_first` says that it holds nothing yet.
    pub fn prompt(&self, observation: &str, is_first: bool) -> Vec<u32> {
        match self {
            Self::Bytes => bytes::prompt(observation),
            Self::Text(text) => text.prompt(observation, is_first),
        }
    }

    /// A readable form of one token.
    pub fn token_text(&self, token: u32) -> String {
        match self {
            Self::Bytes => bytes::token_text(token),
            Self::Text(text) => text.decode(&[token], false),
        }
    }

    /// The tokenizer's files in Hugging Face's layout, as name and content; those of a model as they were read.
    pub fn files(&self) -> Vec<(Cow<'_, str>, Cow<'_, [u8]>)> {
        match self {
            Self::Bytes => bytes::files()
                .into_iter()
                .map(|(name, content)| (Cow::Borrowed(name), Cow::Owned(content.into_bytes())))
                .collect(),
            Self::Text(text) => text.files().map(|(name, content)| (name.into(), content.into())).collect(),
        }
    }

    /// Ids of special tokens under their names in `config.json`, beside `eos_token_id`.
    pub fn special_ids(&self) -> Vec<(&'static str, u32)> {
        match self {
            Self::Bytes => Vec::new(),
            Self::Text(text) => text.special_ids(),
        }
    }

    /// What a user should know of this tokenizer, in sentences.
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Bytes => &[],
            Self::Text(text) => text.notes(),
        }
    }
}
