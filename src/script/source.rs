//! A script's text with all that it loads, and its version. Reading files happens here, once; afterwards a [`Source`] is
//! self-contained and can be stored, sent to other threads and compiled again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Error;
use crate::diag::{Diagnostic, SourceSpan};

/// The language of a script, told by the file's extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Luau: `.lua`, `.luau`.
    Lua,
    /// Rhai: `.rhai`.
    Rhai,
}

impl Language {
    /// The language of a file, or `None` for another extension.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "lua" | "luau" => Some(Self::Lua),
            "rhai" => Some(Self::Rhai),
            _ => None,
        }
    }

    /// The extension that a stored version gets.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Lua => "lua",
            Self::Rhai => "rhai",
        }
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a script's text and of every module that it loads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Version(pub String);

impl Version {
    /// The first seven digits, as messages show them.
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A script's text with all that it loads.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The file's name without folder and extension.
    pub name: String,
    /// The file as the user named it; data files are found relative to its folder.
    pub path: PathBuf,
    /// The language.
    pub language: Language,
    /// The text.
    pub text: Arc<str>,
    /// The text of each module of `scripts/lib` that the script loads, itself or through another module.
    pub modules: BTreeMap<String, Arc<str>>,
    /// The hash of the text and the modules.
    pub version: Version,
}

impl Source {
    /// A source from text in memory; `modules` are what `require` (Rhai: `import`) may load.
    pub fn new(path: &Path, language: Language, text: &str, modules: BTreeMap<String, Arc<str>>) -> Self {
        let mut hash = Sha256::new();
        hash.update(text.as_bytes());
        for (name, module) in &modules {
            // Lengths keep the boundary between texts in the hash.
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update((module.len() as u64).to_le_bytes());
            hash.update(module.as_bytes());
        }
        let first = hash.finalize().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let digits = format!("{first:016x}");
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self { name, path: path.to_owned(), language, text: text.into(), modules, version: Version(digits) }
    }

    /// The diagnostic with the line that it points at, if that line is in this source: as it is in this version, whatever
    /// the file holds by now.
    #[must_use]
    pub fn illustrate(&self, diagnostic: Diagnostic) -> Diagnostic {
        let is_here = diagnostic.place.as_ref().is_some_and(|place| place.file == self.path);
        if is_here && diagnostic.snippet.is_none() { diagnostic.snippet_from(&self.text) } else { diagnostic }
    }

    /// Where the text first gives the field `name` a value; the script as a whole if that cannot be found.
    pub fn place_of_field(&self, name: &str) -> SourceSpan {
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        for (index, line) in self.text.lines().enumerate() {
            let begin = line.match_indices(name).find(|(at, _)| {
                let rest = line[at + name.len()..].trim_start();
                let gives = (rest.starts_with('=') && !rest.starts_with("==")) || rest.starts_with(':');
                gives && !line[..*at].ends_with(in_word) && !line[at + name.len()..].starts_with(in_word)
            });
            if let Some((at, _)) = begin {
                let column = line[..at].chars().count() as u32 + 1;
                return SourceSpan { file: self.path.clone(), line: index as u32 + 1, column };
            }
        }
        SourceSpan::file(&self.path)
    }

    /// Reads a script and the modules that it loads from the nearest `scripts/lib` at or above the script's folder, or
    /// below the working directory.
    ///
    /// # Errors
    /// [`Error::Read`] if the script cannot be read or is not UTF-8. A missing module is no error here: compiling the
    /// script tells with its line.
    pub fn read(path: &Path, language: Language) -> Result<Self, Error> {
        let text = read_text(path)?;
        let mut modules = BTreeMap::new();
        let folders = library_folders(path);
        let mut wanted = module_names(&text);
        while let Some(name) = wanted.pop() {
            if modules.contains_key(&name) {
                continue;
            }
            let extensions: &[&str] = if language == Language::Lua { &["lua", "luau"] } else { &["rhai"] };
            let found = folders
                .iter()
                .flat_map(|folder| extensions.iter().map(|extension| folder.join(format!("{name}.{extension}"))))
                .find(|file| file.is_file());
            if let Some(file) = found {
                let module = read_text(&file)?;
                wanted.extend(module_names(&module));
                modules.insert(name, module.into());
            }
        }
        Ok(Self::new(path, language, &text, modules))
    }
}

#[expect(clippy::disallowed_methods, reason = "the error carries the path")]
fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The folders named `scripts/lib` from the script's folder upwards, then the working directory's.
fn library_folders(path: &Path) -> Vec<PathBuf> {
    let start = path.parent().map(Path::to_owned).unwrap_or_default();
    let start = start.canonicalize().unwrap_or(start);
    let mut folders: Vec<PathBuf> = start.ancestors().map(|folder| folder.join("scripts").join("lib")).collect();
    folders.push(Path::new("scripts").join("lib"));
    folders
}

/// The names in `require("name")` and `import "name"`, as written in the text. A name in a comment is read in vain,
/// which does no harm; a name that is computed is not found, and the script is told so when it asks for it.
fn module_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for keyword in ["require", "import"] {
        for (at, _) in text.match_indices(keyword) {
            let rest = text[at + keyword.len()..].trim_start_matches(['(', ' ', '\t']);
            let Some(quote) = rest.chars().next().filter(|&c| c == '"' || c == '\'') else { continue };
            let name: String = rest[1..].chars().take_while(|&c| c != quote).take(100).collect();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_changes_with_the_text_and_with_every_module() {
        let source = |text: &str, module: &str| {
            let modules = BTreeMap::from([("lib".to_owned(), Arc::from(module))]);
            Source::new(Path::new("games/x.lua"), Language::Lua, text, modules).version
        };
        assert_eq!(source("a", "b"), source("a", "b"));
        assert_ne!(source("a", "b"), source("a2", "b"));
        assert_ne!(source("a", "b"), source("a", "b2"));
    }

    #[test]
    fn module_names_are_found_in_both_languages() {
        let text = "local a = require(\"alpha\")\nlocal b = require 'beta'\nimport \"gamma\" as g;\nrequire(name)";
        assert_eq!(module_names(text), ["alpha", "beta", "gamma"]);
    }
}
