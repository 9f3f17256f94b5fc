//! Rhai's errors as diagnostics: the author's file and line, and what went wrong.

use std::path::PathBuf;
use std::sync::Arc;

use ::rhai::{EvalAltResult, ParseError, Position};

use super::budget::Excess;
use super::hints;
use crate::diag::{Diagnostic, Frame, SourceSpan};
use crate::script::border::{begins_at, size};
use crate::script::modules::explain_missing;
use crate::script::{Language, Library, Limits, Source};

/// Longest text of a script or module.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// Frames of the author's stack that a diagnostic shows.
const MAX_FRAMES: usize = 8;
/// What mends most texts that do not parse.
const SYNTAX_HELP: &str = "look for a missing bracket, comma, semicolon or quote here or in the lines above";

/// What `gift.illegal` throws. A script that catches it takes the refusal back.
#[derive(Clone)]
pub(super) struct Illegal(pub(super) String);

/// What ends a call that is over where it next reads a variable, so that the place is known.
#[derive(Clone)]
pub(super) struct Stopped;

/// Whether the error tells that the call was stopped at a variable.
pub(super) fn is_stop(error: &EvalAltResult) -> bool {
    matches!(error.unwrap_inner(), EvalAltResult::ErrorRuntime(thrown, _) if thrown.is::<Stopped>())
}

/// Whether Rhai has forgotten where the error was: it does where the host's own limits are passed.
pub(super) fn lacks_place(error: &EvalAltResult) -> bool {
    let inner = error.unwrap_inner();
    let is_limit = matches!(
        inner,
        EvalAltResult::ErrorStackOverflow(_)
            | EvalAltResult::ErrorDataTooLarge(..)
            | EvalAltResult::ErrorTooManyVariables(_)
            | EvalAltResult::ErrorTooManyModules(_)
    );
    is_limit && inner.position().is_none()
}

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
    /// The names after `gift.`.
    gift: Vec<String>,
}

impl Sources {
    pub(super) fn new(source: &Source, library: &Library) -> Self {
        let functions = library.functions().iter().map(|function| function.name);
        let mut gift: Vec<String> = functions.chain(["dataset", "illegal", "json", "log"]).map(str::to_owned).collect();
        gift.sort_unstable();
        let modules = source.modules.iter().map(|(name, text)| (module_name(name).into(), Arc::clone(text)));
        let texts = std::iter::once((source.path.clone(), Arc::clone(&source.text))).chain(modules).collect();
        Self { script: source.path.clone(), name: source.path.display().to_string(), texts, gift }
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
                Diagnostic::error("script::syntax", format!("the script is longer than {}", size(MAX_SOURCE_BYTES)))
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
        let problem = Diagnostic::error("script::syntax", message).at(place).snippet_from(self.text(&self.name));
        let before =
            problem.snippet.as_ref().map(|snippet| snippet.text.chars().take(snippet.start).collect::<String>());
        let is_colon = before.is_some_and(|before| before.ends_with("rng") || before.ends_with("gift"));
        Box::new(problem.help(if is_colon { "write a dot: `rng.int(1, 6)`, `gift.mean(list)`" } else { SYNTAX_HELP }))
    }

    /// A call whose time was over; `error` is what it ended with.
    pub(super) fn timeout(&self, function: &str, error: Option<&EvalAltResult>, limits: &Limits) -> Box<Diagnostic> {
        let message = format!("the script ran longer than {:?}", limits.call);
        let help = "look for a loop that does not end; search less deep, or keep what can be computed once";
        Box::new(self.placed(Diagnostic::error("script::timeout", message).help(help), function, error))
    }

    /// A call that held too much; `error` is what it ended with.
    pub(super) fn excess(
        &self,
        function: &str,
        excess: Option<Excess>,
        error: Option<&EvalAltResult>,
        limits: &Limits,
    ) -> Box<Diagnostic> {
        let memory = size(limits.memory_bytes);
        let what = match excess {
            Some(Excess::Nesting) => "the script nests values or closures too deep".to_owned(),
            Some(Excess::LeftBehind) => format!("calls of the script have left more than {memory} of memory behind"),
            _ => format!("the script needs more than {memory} of memory"),
        };
        let help = if excess == Some(Excess::LeftBehind) {
            "look for a closure that captures the variable it is kept in: it holds itself and is never freed"
        } else {
            "look for a list, a string or a closure that keeps growing"
        };
        Box::new(self.placed(Diagnostic::error("script::memory", what).help(help), function, error))
    }

    /// The diagnostic with the place where the error was and the calls that led there; the line where the function begins
    /// if that is all that is known.
    fn placed(&self, diagnostic: Diagnostic, function: &str, error: Option<&EvalAltResult>) -> Diagnostic {
        let mut calls = Vec::new();
        let found = error.map(|error| unwrap(error, function, &self.name, &mut calls));
        let place = found.map(|(inner, file)| span(file, inner.position())).filter(|place| place.line > 0);
        let Some(place) = place else { return self.begins(diagnostic, function) };
        let text = self.text(&place.file.to_string_lossy());
        let mut diagnostic = diagnostic.at(place).snippet_from(text);
        calls.reverse();
        calls.dedup_by(|next, last| next.place == last.place);
        calls.retain(|frame| frame.place.line > 0);
        calls.truncate(MAX_FRAMES);
        diagnostic.stack = calls;
        diagnostic
    }

    /// The diagnostic with the line where the function begins.
    pub(super) fn begins(&self, diagnostic: Diagnostic, function: &str) -> Diagnostic {
        begins_at(diagnostic, function, self.defined_at(function), self.text(&self.name))
    }

    /// Any other error. Where it was is told by `place` if Rhai has forgotten.
    pub(super) fn fault(
        &self,
        function: &str,
        error: &EvalAltResult,
        place: Option<&EvalAltResult>,
        limits: &Limits,
    ) -> Box<Diagnostic> {
        let (code, message, help) = match innermost(error) {
            EvalAltResult::ErrorParsing(error, _) => {
                ("script::syntax", lower_first(&error.to_string()), Some(SYNTAX_HELP))
            }
            EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorTooManyOperations(_) => {
                return self.timeout(function, Some(error), limits);
            }
            EvalAltResult::ErrorDataTooLarge(what, _) => (
                "script::memory",
                match what.as_str() {
                    "Length of string" => format!("the strings are longer than {}", size(limits.max_text_bytes)),
                    _ => format!("{} is over the limit of {}", lower_first(what), limits.max_values),
                },
                Some("look for a list or a string that keeps growing, or that is made too large at once"),
            ),
            EvalAltResult::ErrorTooManyVariables(_) => {
                ("script::memory", "there are too many variables".to_owned(), Some("keep many values in an array"))
            }
            EvalAltResult::ErrorStackOverflow(_) => (
                "script::runtime",
                "stack overflow: calls are nested too deep".to_owned(),
                Some("look for a recursion that does not end"),
            ),
            EvalAltResult::ErrorModuleNotFound(name, _) => {
                let texts = self.texts.iter().map(|(_, text)| &**text);
                let problem = Diagnostic::error("script::runtime", format!("there is no module `{name}`"));
                let problem = explain_missing(problem, &self.script, Language::Rhai, texts, name);
                return Box::new(self.placed(problem, function, Some(error)));
            }
            EvalAltResult::ErrorRuntime(thrown, _) => ("script::runtime", thrown.to_string(), None),
            other => {
                let text = other.to_string();
                // The place is shown on a line of its own.
                let message = text.rsplit_once(" (line ").map_or(text.as_str(), |(message, _)| message);
                ("script::runtime", lower_first(message), None)
            }
        };
        let help = help.map(str::to_owned).or_else(|| hints::help(&message, &self.gift));
        let mut diagnostic = self.placed(Diagnostic::error(code, message), function, place.or(Some(error)));
        diagnostic.help = help;
        if code == "script::syntax" {
            diagnostic.stack.clear();
        }
        Box::new(diagnostic)
    }

    /// The text of a file as messages name it; empty for none of this script.
    pub(super) fn text(&self, file: &str) -> &str {
        self.texts.iter().find(|(path, _)| path.as_os_str() == file).map_or("", |(_, text)| text)
    }
}

/// The innermost error.
fn innermost(mut error: &EvalAltResult) -> &EvalAltResult {
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = error {
        error = inner;
    }
    error
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

fn span(file: &str, position: Position) -> SourceSpan {
    let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
    SourceSpan { file: file.into(), line: line as u32, column: column as u32 }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
