//! The script versions of a run: `scripts/HASH.lua` holds the text, `scripts/HASH.json` what it is and what it loads,
//! `scripts/data/HASH.jsonl` a data file that it opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{Language, Source, Version};

use super::files::{Error, create_folder, read_text, write_bytes, write_text};

/// A script version, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredScript {
    /// The file it came from.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Its language.
    pub language: Language,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    path: PathBuf,
    language: Language,
    /// The text of each module that the script loads.
    modules: BTreeMap<String, String>,
    /// The data files that its version covers, by the name that the script uses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<String, StoredData>,
}

#[derive(Serialize, Deserialize)]
struct StoredData {
    path: PathBuf,
    hash: String,
}

/// A version that was read back.
#[derive(Clone, Debug)]
pub struct LoadedScript {
    /// The script, with the data that its version covers.
    pub source: Source,
    /// Data files that have changed since and were too large to be stored: the script sees them as they are now, and its
    /// version will say so.
    pub changed_data: Vec<PathBuf>,
}

/// Where the content of a data file is stored; the extension tells how to read it.
fn data_copy(folder: &Path, path: &Path, hash: &str) -> PathBuf {
    let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
    folder.join("data").join(format!("{hash}.{extension}"))
}

/// Stores a version below the run directory, once.
///
/// # Errors
/// [`Error::Io`].
pub fn store_script(run: &Path, source: &Source) -> Result<StoredScript, Error> {
    let folder = run.join("scripts");
    create_folder(&folder)?;
    let manifest = folder.join(format!("{}.json", source.version));
    if !manifest.exists() {
        write_text(&folder.join(format!("{}.{}", source.version, source.language.extension())), &source.text)?;
        let modules = source.modules.iter().map(|(name, text)| (name.clone(), text.to_string())).collect();
        let mut data = BTreeMap::new();
        let files = source.data_files();
        for (name, hash) in &source.data {
            let Some(file) = files.get(name).filter(|file| file.hash == *hash) else { continue };
            let copy = data_copy(&folder, &file.path, hash);
            if let Some(content) = file.content().filter(|_| !copy.exists()) {
                create_folder(&folder.join("data"))?;
                write_bytes(&copy, content)?;
            }
            data.insert(name.clone(), StoredData { path: file.path.clone(), hash: hash.clone() });
        }
        let content = Manifest { path: source.path.clone(), language: source.language, modules, data };
        write_text(&manifest, &(serde_json::to_string_pretty(&content).unwrap_or_default() + "\n"))?;
    }
    Ok(StoredScript { path: source.path.clone(), version: source.version.clone(), language: source.language })
}

/// A stored version as text, for people to read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredText {
    /// The file it came from.
    pub path: PathBuf,
    /// The script.
    pub text: String,
    /// The text of each module that it loads.
    pub modules: BTreeMap<String, String>,
    /// The hash of each data file that its version covers, by the name that the script uses.
    pub data: BTreeMap<String, String>,
}

/// The text that a run stored under a version's hash, with nothing compiled or compared.
///
/// # Errors
/// [`Error::Io`] if it is not there.
pub fn stored_text(run: &Path, hash: &str) -> Result<StoredText, Error> {
    // A hash comes from a file that may be damaged; it names a file here and no other.
    let hash: String = hash.chars().filter(char::is_ascii_alphanumeric).collect();
    let path = run.join("scripts").join(format!("{hash}.json"));
    let damaged = |error: serde_json::Error| Error::Io { action: "read", path: path.clone(), source: error.into() };
    let manifest: Manifest = serde_json::from_str(&read_text(&path)?).map_err(damaged)?;
    let text = read_text(&path.with_extension(manifest.language.extension()))?;
    let data = manifest.data.into_iter().map(|(name, data)| (name, data.hash)).collect();
    Ok(StoredText { path: manifest.path, text, modules: manifest.modules, data })
}

/// What a run stored under a version.
///
/// # Errors
/// A [`Diagnostic`] if there is nothing, or it cannot be read.
pub fn find_script(run: &Path, version: &Version) -> Result<StoredScript, Box<Diagnostic>> {
    let path = run.join("scripts").join(format!("{version}.json"));
    let problem = |found: String| {
        Box::new(
            Diagnostic::error("checkpoint::script", format!("the run holds no script version {version}"))
                .at(SourceSpan::file(&path))
                .found(found)
                .help("the folder `scripts` of a run holds every version that it used; bring the file back"),
        )
    };
    let text = read_text(&path).map_err(|error| problem(error.to_string()))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
    Ok(StoredScript { path: manifest.path, version: version.clone(), language: manifest.language })
}

/// Reads a stored version back and checks that it still has its hash.
///
/// # Errors
/// A [`Diagnostic`] if a file is missing or was changed.
pub fn load_script(run: &Path, script: &StoredScript) -> Result<LoadedScript, Box<Diagnostic>> {
    let folder = run.join("scripts");
    let text_path = folder.join(format!("{}.{}", script.version, script.language.extension()));
    let manifest_path = folder.join(format!("{}.json", script.version));
    let problem = |path: &Path, message: String| {
        Box::new(
            Diagnostic::error("checkpoint::script", format!("a stored script version is not usable: {message}"))
                .at(SourceSpan::file(path))
                .expected(format!("version {} of `{}`", script.version.short(), script.path.display()))
                .help("start a new run with `--model` set to the checkpoint and the scripts that you have"),
        )
    };
    let text = read_text(&text_path).map_err(|error| problem(&text_path, error.to_string()))?;
    let manifest = read_text(&manifest_path).map_err(|error| problem(&manifest_path, error.to_string()))?;
    let manifest: Manifest =
        serde_json::from_str(&manifest).map_err(|error| problem(&manifest_path, error.to_string()))?;
    let modules = manifest.modules.into_iter().map(|(name, text)| (name, Arc::from(text))).collect();
    let source = Source::new(&manifest.path, manifest.language, &text, modules);
    let hashes = manifest.data.iter().map(|(name, data)| (name.clone(), data.hash.clone())).collect();
    let found = source.version_with(&hashes);
    if found != script.version {
        return Err(problem(&text_path, format!("its text now has the version {}", found.short())));
    }
    let mut changed_data = Vec::new();
    for (name, StoredData { path, hash }) in manifest.data {
        // The file itself first: if it did not change, its rows are shared with whoever opens it.
        let pin = |content: &Path| source.pin_data(&name, &path, content, &hash);
        if !pin(&path) && !pin(&data_copy(&folder, &path, &hash)) {
            changed_data.push(path);
        }
    }
    Ok(LoadedScript { source: source.with_opened_data(), changed_data })
}
