//! The `gift` library: what the host offers to every script, the same names in both languages. Plain functions from
//! values to values; the engines wrap them, and add what touches their own values (`illegal`, `log`, `dataset`).
//!
//! Not here: game theory and mathematics. The game room hands those in as [`HostFunction`]s.

mod aggregate; // mean, all, min, product
mod dataset; // JSONL, CSV and Parquet files as rows
mod grid; // boards: their drawing and their free cells
mod json; // json.encode, json.decode
mod template; // `{name}` in a text

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub(super) use dataset::Dataset;
pub(super) use grid::{drawing, has_line};

use super::{Source, Value};

/// Longest text that one `gift.log` passes on, in bytes.
const MAX_LOG_BYTES: usize = 2000;
/// Longest text that a function makes of shorter ones, in bytes, before the limits of a script see it.
const MAX_MADE_BYTES: usize = 8 << 20;

/// A function that scripts call as `gift.NAME(…)`.
#[derive(Clone, Copy, Debug)]
pub struct HostFunction {
    /// The name after `gift.`.
    pub name: &'static str,
    /// The function; an error is the message that the script gets, without the function's name.
    pub call: fn(&[Value]) -> Result<Value, String>,
}

/// What a script may use of the host. Cheap to clone.
#[derive(Clone)]
pub struct Library {
    parts: Arc<Parts>,
}

/// Where the texts of `gift.log` go.
type LogSink = dyn Fn(&str) + Send + Sync;

#[derive(Clone)]
struct Parts {
    functions: Vec<HostFunction>,
    allowed_files: Vec<PathBuf>,
    log: Option<Arc<LogSink>>,
}

/// The functions that need nothing but their arguments.
const PLAIN: [HostFunction; 9] = [
    HostFunction { name: "all", call: aggregate::all },
    HostFunction { name: "clone", call: clone },
    HostFunction { name: "free", call: grid::free },
    HostFunction { name: "grid", call: grid::grid },
    HostFunction { name: "line", call: grid::line },
    HostFunction { name: "mean", call: aggregate::mean },
    HostFunction { name: "min", call: aggregate::min },
    HostFunction { name: "product", call: aggregate::product },
    HostFunction { name: "template", call: template::template },
];

/// The functions below `gift.json`.
pub(super) const JSON: [HostFunction; 2] =
    [HostFunction { name: "encode", call: json::encode }, HostFunction { name: "decode", call: json::decode }];

impl Library {
    /// The standard functions and `functions`.
    pub fn new(functions: Vec<HostFunction>) -> Self {
        let functions = PLAIN.into_iter().chain(functions).collect();
        Self { parts: Arc::new(Parts { functions, allowed_files: Vec::new(), log: None }) }
    }

    /// Lets scripts open these files with `gift.dataset` although they lie outside the script's folder: the paths that
    /// the user named in the settings.
    #[must_use]
    pub fn with_allowed_files(self, files: Vec<PathBuf>) -> Self {
        Self { parts: Arc::new(Parts { allowed_files: files, ..Parts::clone(&self.parts) }) }
    }

    /// Sends the texts of `gift.log` to `log`; without one they are dropped.
    #[must_use]
    pub fn with_log(self, log: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { parts: Arc::new(Parts { log: Some(Arc::new(log)), ..Parts::clone(&self.parts) }) }
    }

    /// Whether both are clones of one library.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    /// The functions that need nothing but their arguments.
    pub(super) fn functions(&self) -> &[HostFunction] {
        &self.parts.functions
    }

    /// Passes on the text of a `gift.log`, cut to a bounded length and one line.
    pub(super) fn log(&self, text: &str) {
        if let Some(log) = &self.parts.log {
            let end = (0..=MAX_LOG_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            let cut = if text.len() > MAX_LOG_BYTES { &text[..end] } else { text };
            log(&cut.replace(['\n', '\r'], " "));
        }
    }

    /// The rows of the file that the script calls `name`: those that its version has seen first.
    pub(super) fn dataset(&self, script: &Source, name: &str) -> Result<Arc<Dataset>, String> {
        if let Some(rows) = script.opened.get(name) {
            return Ok(rows);
        }
        let file = self.resolve(&script.path, name).inspect_err(|_| {
            script.opened.miss(&folder_of(&script.path).join(name));
        })?;
        script.opened.open(name, &file).map_err(|cause| format!("`{name}`: {cause}"))
    }

    /// The file that a script may open under this name: one that the user allowed, or one below the script's folder.
    fn resolve(&self, script: &Path, name: &str) -> Result<PathBuf, String> {
        if let Some(allowed) = self.parts.allowed_files.iter().find(|file| file.as_os_str() == name) {
            return allowed.canonicalize().map_err(|cause| format!("cannot open `{name}`: {cause}"));
        }
        let relative = Path::new(name);
        if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!(
                "`{name}` is not below the script's folder; name it from there, like `data/rows.jsonl`"
            ));
        }
        let folder = folder_of(script);
        let file = folder.join(relative);
        let found = file.canonicalize().map_err(|cause| format!("cannot open `{}`: {cause}", file.display()))?;
        // A link may point out of the folder although its name does not.
        let folder = folder.canonicalize().map_err(|cause| format!("cannot open `{}`: {cause}", folder.display()))?;
        let allowed = found.starts_with(&folder)
            || self.parts.allowed_files.iter().any(|file| file.canonicalize().is_ok_and(|file| file == found));
        if allowed { Ok(found) } else { Err(format!("`{name}` leads out of the script's folder")) }
    }
}

fn folder_of(script: &Path) -> &Path {
    script.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Default for Library {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.functions().iter().map(|function| function.name).collect();
        f.debug_struct("Library")
            .field("functions", &names)
            .field("allowed_files", &self.parts.allowed_files)
            .finish_non_exhaustive()
    }
}

/// `gift.clone(value)`: a copy that shares nothing with the value. Crossing the border made the copy already.
fn clone(arguments: &[Value]) -> Result<Value, String> {
    Ok(one(arguments)?.clone())
}

/// The only argument.
fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [value] => Ok(value),
        _ => Err(format!("expected 1 argument, found {}", arguments.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(library: &Library, script: &Path, name: &str) -> Result<Arc<Dataset>, String> {
        let source = Source::new(script, crate::script::Language::Lua, "", std::collections::BTreeMap::new());
        library.dataset(&source, name)
    }

    #[test]
    fn a_script_opens_only_files_below_its_folder_or_allowed_by_the_user() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let games = root.path().join("games");
        std::fs::create_dir_all(games.join("data")).expect("a folder");
        let (inside, outside) = (games.join("data/in.jsonl"), root.path().join("out.jsonl"));
        for file in [&inside, &outside] {
            std::fs::write(file, "{\"a\":1}\n").expect("a file");
        }
        let script = games.join("x.lua");
        let plain = Library::default();
        let outside_name = outside.to_str().expect("UTF-8");
        assert_eq!(rows(&plain, &script, "data/in.jsonl").expect("below the folder").len(), 1);
        assert!(rows(&plain, &script, "../out.jsonl").is_err());
        assert!(rows(&plain, &script, outside_name).is_err());
        let allowed = plain.with_allowed_files(vec![outside.clone()]);
        assert_eq!(rows(&allowed, &script, outside_name).expect("allowed").len(), 1);
        assert!(rows(&allowed, &script, "../out.jsonl").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let games = root.path().join("games");
        std::fs::create_dir_all(&games).expect("a folder");
        std::fs::write(root.path().join("out.jsonl"), "{}\n").expect("a file");
        std::os::unix::fs::symlink(root.path().join("out.jsonl"), games.join("in.jsonl")).expect("a link");
        assert!(rows(&Library::default(), &games.join("x.lua"), "in.jsonl").is_err());
    }

    #[test]
    fn logged_text_is_cut_at_a_character() {
        let seen = Arc::new(std::sync::Mutex::new(String::new()));
        let sink = Arc::clone(&seen);
        let library = Library::default().with_log(move |text| text.clone_into(&mut sink.lock().expect("the sink")));
        library.log(&"ä".repeat(5000));
        assert_eq!(seen.lock().expect("the sink").len(), MAX_LOG_BYTES);
    }
}
