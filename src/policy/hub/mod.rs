//! Models by their name on the Hugging Face Hub: downloaded into the cache that Hugging Face's own programs use, and taken
//! from there the next time. Gives a folder in Hugging Face's layout; knows nothing of what is in it beyond file names.
//!
//! Written on the HTTP client that the opponents use: of the crate `hf-hub`, version 1.0 needs an asynchronous runtime and a
//! second HTTP client, and the blocking client of 0.5 waits for a silent server for ever and ends the process on a redirect
//! without a target.

mod cache; // where files lie
mod client; // requests, and what the answers mean

use std::path::{Path, PathBuf};

use cache::Cache;
use client::Client;

/// What a model may have of files, apart from its weights; those that the Hub lists are fetched.
const FILES: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "adapter_config.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: &str = "adapter_model.safetensors";

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The network may not be used, and the cache lacks the model.
    #[error("`HF_HUB_OFFLINE` is set, and the cache lacks {what}")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// There is no such model, revision or file; or it is private, which the Hub does not tell apart.
    #[error("the Hub has no {what}")]
    NotFound {
        /// What is missing.
        what: String,
    },
    /// The Hub wants a token, or does not accept the one that it got.
    #[error("the Hub refuses access to {what}: {why}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The Hub's words.
        why: String,
    },
    /// The Hub cannot be reached or answers something that makes no sense.
    #[error("{what} could not be fetched from {endpoint}: {why}")]
    Network {
        /// What was asked for.
        what: String,
        /// Where.
        endpoint: String,
        /// What went wrong.
        why: String,
    },
    /// The repository has no model that this version reads.
    #[error("{what} has {found}; expected `model.safetensors`, or its index and the files that it names")]
    NoWeights {
        /// The repository.
        what: String,
        /// What is there in their place.
        found: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot access `{path}` in the cache")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// How far a download is, and what there is to know of it.
#[derive(Clone, Copy, Debug)]
pub enum HubEvent<'a> {
    /// A file begins, of so many bytes, so many of which are there already.
    Begin {
        /// Its name.
        file: &'a str,
        /// Its size in bytes.
        size: u64,
        /// Bytes kept from an earlier try.
        kept: u64,
    },
    /// So many more bytes have come.
    More(u64),
    /// The file is complete.
    End,
    /// Something that the user should know.
    Note(&'a str),
}

/// A repository on the Hub, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `ORG/NAME`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl HubName {
    /// Understands `ORG/NAME` or `ORG/NAME@REVISION`; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organization, name) = repository.split_once('/')?;
        let is_word = |word: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c);
            !word.is_empty() && word.len() <= 96 && word.chars().all(fits) && !word.contains("..")
        };
        let is_name = |word: &str| is_word(word, "") && !word.starts_with(['-', '.']) && !word.ends_with(['-', '.']);
        let is_revision = is_word(revision, "/") && !revision.starts_with('/') && !revision.ends_with('/');
        (is_name(organization) && is_name(name) && is_revision)
            .then(|| Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.revision == "main" {
            return f.write_str(&self.repository);
        }
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

/// The folder with the model of this name, fetched if the cache lacks it or has an older version of its branch. Reads
/// `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` as Hugging Face's programs do. If the Hub cannot
/// be reached, what the cache has is taken, with a note.
///
/// # Errors
/// [`HubError`]; its messages hold no token.
pub fn fetch_model(name: &HubName, tell: &mut dyn FnMut(HubEvent<'_>)) -> Result<PathBuf, HubError> {
    let cache = Cache::from_environment(name);
    let cached = cache.snapshot_of(&name.revision).filter(|folder| is_whole(folder));
    // A commit never changes.
    if let Some(folder) = cached.as_ref().filter(|folder| folder.ends_with(&name.revision)) {
        return Ok(folder.clone());
    }
    if is_offline() {
        return cached.ok_or_else(|| HubError::Offline { what: format!("`{name}`") });
    }
    let client = Client::from_environment();
    let listing = match client.listing(name) {
        Err(HubError::Network { endpoint, why, .. }) if cached.is_some() => {
            tell(HubEvent::Note(&format!("{endpoint} cannot be reached ({why}): `{name}` is taken from the cache")));
            return Ok(cached.unwrap_or_default());
        }
        listing => listing?,
    };
    let has = |file: &str| listing.files.iter().any(|listed| listed == file);
    let mut files: Vec<String> = FILES.into_iter().filter(|file| has(file)).map(str::to_owned).collect();
    let folder = cache.snapshot(&listing.commit);
    if has(WEIGHTS) {
        files.push(WEIGHTS.to_owned());
    } else if has(INDEX) {
        client.fetch(name, &listing.commit, INDEX, &cache, tell)?;
        files.extend(shards(&folder, name)?);
    } else if has(ADAPTER) {
        files.push(ADAPTER.to_owned());
    } else {
        let named = |end: &str| listing.files.iter().find(|file| file.ends_with(end)).cloned();
        let found =
            named(".gguf").or_else(|| named(".bin")).map_or("no weights".to_owned(), |file| format!("`{file}`"));
        return Err(HubError::NoWeights { what: format!("`{name}`"), found });
    }
    for file in files {
        client.fetch(name, &listing.commit, &file, &cache, tell)?;
    }
    cache.set_reference(&name.revision, &listing.commit)?;
    Ok(folder)
}

/// The files that the index in a folder names.
fn shards(folder: &Path, name: &HubName) -> Result<Vec<String>, HubError> {
    let named = crate::policy::weights::shards(&folder.join(INDEX)).map_err(|error| HubError::NoWeights {
        what: format!("`{name}`"),
        found: format!("an index that cannot be used ({error})"),
    })?;
    Ok(named.into_iter().collect())
}

/// Whether a folder of the cache has all that a model needs: a download may have been cut off between two files.
fn is_whole(folder: &Path) -> bool {
    let has = |file: &str| folder.join(file).is_file();
    let has_model = || {
        let shards = crate::policy::weights::shards(&folder.join(INDEX));
        has(WEIGHTS) || shards.is_ok_and(|shards| !shards.is_empty() && shards.iter().all(|file| has(file)))
    };
    has("config.json") && has_model() || has("adapter_config.json") && has(ADAPTER)
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text
}

fn is_offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
    ["1", "true", "yes", "on"].contains(&value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        let parse = |text: &str| HubName::parse(text).map(|name| (name.repository, name.revision));
        let name = |repository: &str, revision: &str| Some((repository.to_owned(), revision.to_owned()));
        assert_eq!(parse("Qwen/Qwen2.5-1.5B-Instruct"), name("Qwen/Qwen2.5-1.5B-Instruct", "main"));
        assert_eq!(parse("a/b@refs/pr/1"), name("a/b", "refs/pr/1"));
        for text in ["tiny", "a/b/c", "../b", "a/..", "/a", "a/", "a/b@", "a/b@../c", "runs/a b", "a/.hidden"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
