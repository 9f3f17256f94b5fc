//! Rhai's errors as diagnostics: the author's file and line, and what went wrong.

use std::path::PathBuf;
use std::sync::Arc;

use ::rhai::{EvalAltResult, ParseError, Position};

use super::budget::Excess;
use crate::diag::{Diagnostic, Frame, SourceSpan};
use crate::script::{Limits, Source};

/// Longest text of a script or module.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// Frames of the author's stack that a diagnostic shows.
const MAX_FRAMES: usize = 8;
/// What mends most texts that do not parse.
const SYNTAX_HELP: &str = "look for a missing bracket, comma, semicolon or quote here or in the lines above";

/// What `gift.illegal` throws. A script that catches it takes the refusal back.
#[derive(Clone)]
pub(super) struct Illegal(pub(super) String);

/// The reason, if the error is a refusal by `gift.illegal`.
pub(super) fn illegal(error: &EvalAltResult) -> Option<String> {
    match error.unwrap_inner() {
        EvalAltResult::ErrorRuntime(thrown, _) => thrown.read_lock::<Illegal>().map(|illegal| illegal.0.clone()),
        _ => None,
    }
}

/// The name of a module in messages.
pub(super) fn module_name(name: &str) -> String {
    format!("scripts/lib/{name}.rhai")
}

/// The files of a script, to place Rhai's errors. The script comes first.
pub(super) struct Sources {
    script: PathBuf,
    name: String,
    texts: Vec<(PathBuf, Arc<str>)>,
}

impl Sources {
    pub(super) fn new(source: &Source) -> Self {
        let modules = source.modules.iter().map(|(name, text)| (module_name(name).into(), Arc::clone(text)));
        let texts = std::iter::once((source.path.clone(), Arc::clone(&source.text))).chain(modules).collect();
        Self { script: source.path.clone(), name: source.path.display().to_string(), texts }
    }

    /// The script's name inside the engine.
    pub(super) fn script_name(&self) -> &str {
        &self.name
    }

    /// The script as a whole.
    pub(super) fn whole(&self) -> SourceSpan {
        SourceSpan::file(&self.script)
    }

    /// Where a function of the script begins, found by its name: Rhai does not tell.
    pub(super) fn defined_at(&self, function: &str) -> SourceSpan {
        let begins = |line: &str| {
            let line = line.trim_start();
            let after = line.strip_prefix("private ").unwrap_or(line).strip_prefix("fn ").unwrap_or(line);
            let rest = after.trim_start().strip_prefix(function).map(str::trim_start);
            rest.is_some_and(|rest| rest.starts_with('(') || (rest.starts_with(':') && !rest.starts_with("::")))
        };
        match self.texts.first().and_then(|(_, text)| text.lines().position(begins)) {
            Some(index) => SourceSpan::line(&self.script, index as u32 + 1),
            None => self.whole(),
        }
    }

    /// Refuses texts whose compilation could take long.
    pub(super) fn check_sizes(&self) -> Result<(), Box<Diagnostic>> {
        match self.texts.iter().find(|(_, text)| text.len() > MAX_SOURCE_BYTES) {
            None => Ok(()),
            Some((file, _)) => Err(Box::new(
                Diagnostic::error("script::syntax", format!("the script is longer than {MAX_SOURCE_BYTES} bytes"))
                    .at(SourceSpan::file(file))
                    .help("keep data in a file and read it with `gift.dataset`"),
            )),
        }
    }

    /// An engine that could not be set up.
    pub(super) fn engine_failure(&self, error: &std::io::Error) -> Box<Diagnostic> {
        let message = format!("the engine cannot be set up: {error}");
        Box::new(Diagnostic::error("script::engine", message).at(self.whole()))
    }

    /// A field that is called but is no function.
    pub(super) fn not_a_function(&self, name: &str, found: &str) -> Box<Diagnostic> {
        Box::new(
            Diagnostic::error("script::runtime", format!("`{name}` is not a function"))
                .at(self.whole())
                .expected("a closure in the map that the script ends with, or a top-level `fn`")
                .found(found),
        )
    }

    /// A text that does not parse.
    pub(super) fn syntax(&self, error: &ParseError) -> Box<Diagnostic> {
        let message = lower_first(&error.0.to_string());
        let place = span(&self.name, error.1);
        Box::new(
            Diagnostic::error("script::syntax", message)
                .at(place)
                .snippet_from(self.text(&self.name))
                .help(SYNTAX_HELP),
        )
    }

    /// A call whose time was over. Rhai forgets where it was.
    pub(super) fn timeout(&self, function: &str, limits: &Limits) -> Box<Diagnostic> {
        let message = format!("the script ran longer than {:?}{}", limits.call, inside(function));
        Box::new(
            Diagnostic::error("script::timeout", message)
                .at(self.whole())
                .help("look for a loop that does not end; search less deep, or keep what can be computed once"),
        )
    }

    /// A call that held too much. Rhai forgets where it was.
    pub(super) fn excess(&self, function: &str, excess: Option<Excess>, limits: &Limits) -> Box<Diagnostic> {
        let what = match excess {
            Some(Excess::Nesting) => "the script nests values or closures too deep".to_owned(),
            Some(Excess::LeftBehind) => {
                format!("calls of the script have left more than {} bytes of memory behind", limits.memory_bytes)
            }
            _ => format!("the script needs more than {} bytes of memory", limits.memory_bytes),
        };
        let help = if excess == Some(Excess::LeftBehind) {
            "look for a closure that captures the variable it is kept in: it holds itself and is never freed"
        } else {
            "look for a list, a string or a closure that keeps growing"
        };
        Box::new(Diagnostic::error("script::memory", format!("{what}{}", inside(function))).at(self.whole()).help(help))
    }

    /// Any other error.
    pub(super) fn fault(&self, function: &str, error: &EvalAltResult, limits: &Limits) -> Box<Diagnostic> {
        let mut calls = Vec::new();
        let (inner, file) = unwrap(error, function, &self.name, &mut calls);
        let place = span(file, inner.position());
        let (code, message, help) = match inner {
            EvalAltResult::ErrorParsing(error, _) => {
                ("script::syntax", lower_first(&error.to_string()), Some(SYNTAX_HELP))
            }
            EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorTooManyOperations(_) => {
                return self.timeout(function, limits);
            }
            EvalAltResult::ErrorDataTooLarge(what, _) => (
                "script::memory",
                format!("{} is over the limit{}", lower_first(what), inside(function)),
                Some("look for a list or a string that keeps growing"),
            ),
            EvalAltResult::ErrorTooManyVariables(_) => {
                ("script::memory", "there are too many variables".to_owned(), Some("keep many values in an array"))
            }
            EvalAltResult::ErrorStackOverflow(_) => (
                "script::runtime",
                format!("stack overflow: calls are nested too deep{}", inside(function)),
                Some("look for a recursion that does not end"),
            ),
            EvalAltResult::ErrorModuleNotFound(name, _) => {
                ("script::runtime", format!("there is no module `{name}`"), None)
            }
            EvalAltResult::ErrorRuntime(thrown, _) => ("script::runtime", thrown.to_string(), None),
            other => {
                let text = other.to_string();
                // The place is shown on a line of its own.
                let message = text.rsplit_once(" (line ").map_or(text.as_str(), |(message, _)| message);
                ("script::runtime", lower_first(message), None)
            }
        };
        let text = self.text(file);
        let mut diagnostic = Diagnostic::error(code, message).at(place).snippet_from(text);
        diagnostic.help = help.or_else(|| self::help(&diagnostic.message)).map(str::to_owned);
        if code != "script::syntax" {
            calls.reverse();
            calls.dedup_by(|next, last| next.place == last.place);
            calls.retain(|frame| frame.place.line > 0);
            calls.truncate(MAX_FRAMES);
            diagnostic.stack = calls;
        }
        Box::new(diagnostic)
    }

    /// The text of a file as messages name it; empty for none of this script.
    fn text(&self, file: &str) -> &str {
        self.texts.iter().find(|(path, _)| path.as_os_str() == file).map_or("", |(_, text)| text)
    }
}

/// How to mend what often goes wrong.
fn help(message: &str) -> Option<&'static str> {
    const HELPS: [(&str, &str); 9] = [
        ("`gift.", "see `The library` in `games/README.md`"),
        ("`rng.", "see `Randomness` in `games/README.md`"),
        (
            "variable not found",
            "is it misspelt? Functions see the script's top-level constants, and no variables of other functions",
        ),
        (
            "function not found",
            "is it misspelt, or given values of other kinds? Text becomes a number with `parse_int`, a number text with `to_string`",
        ),
        ("unknown property", "is the field misspelt, or not set in `init`? `state.field ?? 0` gives a default"),
        ("property", "what stands before the `.` is no map: is a field misspelt, or not set in `init`?"),
        ("index", "lists start at 0 and end at `len() - 1`; `\"key\" in map` tells whether a map has a key"),
        ("cannot modify", "functions cannot change top-level constants: keep what changes in the state"),
        ("mismatch", "the value is of another kind than the operation needs: is a `return` forgotten?"),
    ];
    let message = message.to_lowercase();
    HELPS.iter().find(|(said, _)| message.contains(said)).map(|(_, help)| *help)
}

/// The innermost error and its file; the calls around it are added to `calls`, outermost first, the line of the error
/// itself last.
fn unwrap<'a>(
    mut error: &'a EvalAltResult,
    function: &str,
    mut file: &'a str,
    calls: &mut Vec<Frame>,
) -> (&'a EvalAltResult, &'a str) {
    let named = |name: &str| {
        let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_plain.then(|| name.to_owned())
    };
    let mut function = named(function);
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(name, source, inner, position) => {
                calls.push(Frame { place: span(file, *position), function: function.take() });
                file = if source.is_empty() { file } else { source };
                // A closure's name is a hash, which tells nothing.
                function = named(name.rsplit("::").next().unwrap_or(name));
                error = inner;
            }
            EvalAltResult::ErrorInModule(source, inner, position) => {
                calls.push(Frame { place: span(file, *position), function: function.take() });
                file = if source.is_empty() { file } else { source };
                error = inner;
            }
            _ => {
                calls.push(Frame { place: span(file, error.position()), function });
                return (error, file);
            }
        }
    }
}

/// Where the host's call was, for errors that Rhai gives no line.
fn inside(function: &str) -> String {
    if function.is_empty() { String::new() } else { format!(" in `{function}`") }
}

fn span(file: &str, position: Position) -> SourceSpan {
    let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
    SourceSpan { file: file.into(), line: line as u32, column: column as u32 }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
