//! The script versions of a run: `scripts/HASH.lua` holds the text, `scripts/HASH.json` what it is and what it loads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diag::{Diagnostic, SourceSpan};
use crate::script::{Language, Source, Version};

use super::files::{Error, create_folder, read_text, write_text};

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
        let content = Manifest { path: source.path.clone(), language: source.language, modules };
        write_text(&manifest, &(serde_json::to_string_pretty(&content).unwrap_or_default() + "\n"))?;
    }
    Ok(StoredScript { path: source.path.clone(), version: source.version.clone(), language: source.language })
}

/// Reads a stored version back and checks that it still has its hash.
///
/// # Errors
/// A [`Diagnostic`] if a file is missing or was changed.
pub fn load_script(run: &Path, script: &StoredScript) -> Result<Source, Box<Diagnostic>> {
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
    if source.version != script.version {
        return Err(problem(&text_path, format!("its text now has the version {}", source.version.short())));
    }
    Ok(source)
}
