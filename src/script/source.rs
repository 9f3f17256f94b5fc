//! A script's text with all that it loads, and its version. Reading files happens here, once; afterwards a [`Source`] is
//! self-contained and can be stored, sent to other threads and compiled again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Error;
use super::data::{DataFile, DataFiles};
use super::library::Dataset;
use super::modules::{library_folders, module_file, module_names};
use crate::diag::{Diagnostic, SourceSpan};

/// Largest file that is read as a script. One that is larger than an engine takes is refused by that, with a better message.
const MAX_READ_BYTES: u64 = 8 << 20;

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

/// The first 16 hexadecimal digits of the SHA-256 of a script's text, of every module that it loads and of the data files
/// that it opened when it was checked.
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
#[derive(Clone, Debug)]
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
    /// The hash of the text, the modules and the data files.
    pub version: Version,
    /// The hashes of the data files that `version` covers, by the name that the script uses.
    pub data: BTreeMap<String, String>,
    /// What the script has opened; shared by all clones.
    pub(super) opened: DataFiles,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        // Covers text, modules and data.
        self.version == other.version && self.path == other.path && self.language == other.language
    }
}

impl Source {
    /// A source from text in memory; `modules` are what `require` (Rhai: `import`) may load.
    pub fn new(path: &Path, language: Language, text: &str, modules: BTreeMap<String, Arc<str>>) -> Self {
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Self {
            name,
            path: path.to_owned(),
            language,
            text: text.into(),
            version: version_of(text, &modules, &BTreeMap::new()),
            modules,
            data: BTreeMap::new(),
            opened: DataFiles::default(),
        }
    }

    /// The version of text and modules, whatever the data files hold.
    pub fn code_version(&self) -> Version {
        self.version_with(&BTreeMap::new())
    }

    /// The version that text and modules have together with data files of these hashes, by name.
    pub fn version_with(&self, data: &BTreeMap<String, String>) -> Version {
        version_of(&self.text, &self.modules, data)
    }

    /// The same source, its version covering the data files that were opened so far. Called once the script was tried.
    #[must_use]
    pub fn with_opened_data(mut self) -> Self {
        self.data = self.opened.files().into_iter().map(|(name, file)| (name, file.hash)).collect();
        self.version = version_of(&self.text, &self.modules, &self.data);
        self
    }

    /// The data files that the script has opened so far, by the name that it uses.
    pub fn data_files(&self) -> BTreeMap<String, DataFile> {
        self.opened.files()
    }

    /// Data files that the script asked for and that could not be read.
    pub fn missed_files(&self) -> BTreeSet<PathBuf> {
        self.opened.missed()
    }

    /// Opens what another source of the same text has opened, as those files are now.
    pub fn open_again(&self, other: &Self) {
        for (name, file) in other.data_files() {
            // What cannot be opened is told when the script asks for it.
            let _ = self.opened.open(&name, &file.path);
        }
    }

    /// Gives a data file the rows of `content`, a copy of what `path` held, if that copy has this hash; false if not.
    /// The script then sees these rows whatever `path` holds by now.
    pub fn pin_data(&self, name: &str, path: &Path, content: &Path, hash: &str) -> bool {
        self.opened.pin(name, path, content, hash)
    }

    /// The module files that were found, for those who watch them.
    pub fn module_files(&self) -> Vec<PathBuf> {
        let folders = library_folders(&self.path);
        self.modules.keys().filter_map(|name| module_file(&folders, self.language, name)).collect()
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
            if let Some(file) = module_file(&folders, language, &name) {
                let module = read_text(&file)?;
                wanted.extend(module_names(&module));
                modules.insert(name, module.into());
            }
        }
        Ok(Self::new(path, language, &text, modules))
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    read_bounded(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// The text of a regular file of a bounded size: a pipe or a device in its place would be read for ever.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("expected a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_READ_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_READ_BYTES {
        return Err(std::io::Error::other(format!("expected at most {MAX_READ_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn version_of(text: &str, modules: &BTreeMap<String, Arc<str>>, data: &BTreeMap<String, String>) -> Version {
    let mut hash = Sha256::new();
    hash.update(text.as_bytes());
    let mut add = |name: &str, content: &str| {
        // Lengths keep the boundary between texts in the hash.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content.as_bytes());
    };
    for (name, module) in modules {
        add(name, module);
    }
    for (name, content) in data {
        add(&format!("data:{name}"), content);
    }
    Version(first_digits(hash))
}

/// The first 16 hexadecimal digits of a hash.
pub(super) fn first_digits(hash: Sha256) -> String {
    let first = hash.finalize().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
}

/// The hash of a data file as it is now; `None` if it cannot be read.
pub fn data_hash(path: &Path) -> Option<String> {
    Dataset::current_hash(path)
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

    /// Rows change with a version only, and a version tells which rows it played with.
    #[test]
    fn a_version_keeps_the_rows_it_opened_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("rows.jsonl");
        let source = || Source::new(&folder.path().join("x.lua"), Language::Lua, "a", BTreeMap::new());
        let open = |source: &Source| source.opened.open("rows.jsonl", &file).expect("rows").len();
        std::fs::write(&file, "1\n").expect("a file");
        let first = source();
        assert_eq!((open(&first), first.clone().with_opened_data().version == first.version), (1, false));
        let first = first.with_opened_data();
        std::fs::write(&file, "1\n2\n").expect("a file");
        assert_eq!(open(&first), 1);
        let second = source();
        assert_eq!(open(&second), 2);
        let second = second.with_opened_data();
        assert_ne!(first.version, second.version);
        assert_eq!(first.code_version(), second.code_version());
        assert_eq!(source().with_opened_data().version, source().version, "no data, no other version");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_of_a_scripts_size_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.lua");
        let reason = || match Source::read(&path, Language::Lua) {
            Err(Error::Read { source, .. }) => source.to_string(),
            Ok(source) => panic!("{source:?}"),
        };
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        assert_eq!(reason(), "expected a regular file");
        std::fs::remove_file(&path).expect("a removal");
        std::fs::write(&path, vec![b' '; MAX_READ_BYTES as usize + 1]).expect("a file");
        assert!(reason().starts_with("expected at most"));
        std::fs::write(&path, [255]).expect("a file");
        assert!(reason().contains("utf-8"), "{}", reason());
    }
}
