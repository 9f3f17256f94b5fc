//! mlua's errors as diagnostics: the author's file and line, what went wrong, and how to mend it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::Lua;
use mlua::function::FunctionInfo;

use super::hints;
use super::trace::Level;
use crate::diag::{Diagnostic, Frame, SourceSpan};
use crate::script::border::size;
use crate::script::modules::explain_missing;
use crate::script::{Language, Limits, Source};

/// Longest text of a script or module.
const MAX_SOURCE_BYTES: usize = 1 << 20;

/// Longest name that Luau shows in full before a line number.
const MAX_NAME_BYTES: usize = 200;

/// Frames of the author's stack that a diagnostic shows.
const MAX_FRAMES: usize = 8;

/// What `gift.illegal` raises. A script that catches it with `pcall` takes the refusal back.
#[derive(Debug)]
pub(super) struct Illegal(pub(super) String);

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "illegal: {}", self.0)
    }
}

impl std::error::Error for Illegal {}

/// The reason, if the error is a refusal by `gift.illegal`.
pub(super) fn illegal(error: &mlua::Error) -> Option<String> {
    match error {
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => illegal(cause),
        mlua::Error::ExternalError(error) => error.downcast_ref::<Illegal>().map(|illegal| illegal.0.clone()),
        _ => None,
    }
}

/// How the message about a module that is not there begins; its name and a backtick end it.
pub(super) const NO_MODULE: &str = "there is no module `";

/// Names the outermost call, if it is there and has no name of its own, by what the host called.
fn called_as(mut problem: Box<Diagnostic>, function: &str) -> Box<Diagnostic> {
    if problem.stack.len() < MAX_FRAMES
        && !function.is_empty()
        && let Some(frame) = problem.stack.last_mut()
    {
        frame.function.get_or_insert_with(|| function.to_owned());
    }
    problem
}

/// The name of a module in messages.
pub(super) fn module_name(name: &str) -> String {
    format!("scripts/lib/{name}.lua")
}

/// The message without its place in our own part of the library, which stands between the author and the machine's.
fn without_prelude(message: &str) -> &str {
    let rest = message.strip_prefix("prelude:").and_then(|rest| rest.split_once(": "));
    rest.filter(|(line, _)| line.chars().all(|c| c.is_ascii_digit())).map_or(message, |(_, rest)| rest)
}

/// A text that Luau knows by a name.
struct Text {
    name: String,
    file: PathBuf,
    written: Arc<str>,
}

/// The texts of a script, to turn the places in Luau's messages back into files and lines. The script comes first.
pub(super) struct Sources {
    texts: Vec<Text>,
}

/// A line of one of the author's texts that was running.
#[derive(Clone, Debug)]
struct Call {
    text: usize,
    line: u32,
    function: Option<String>,
}

impl Call {
    fn is_at(&self, other: &Self) -> bool {
        (self.text, self.line) == (other.text, other.line)
    }
}

/// An error taken apart.
struct Told {
    code: &'static str,
    message: String,
    /// The line that the message names, if it names one.
    named: Option<Call>,
    /// From the innermost outwards.
    calls: Vec<Call>,
}

impl Told {
    /// The line to blame.
    fn place(&self) -> Option<&Call> {
        self.named.as_ref().or(self.calls.first())
    }
}

impl Sources {
    pub(super) fn new(source: &Source) -> Self {
        let shown = source.path.display().to_string();
        let name = if shown.len() > MAX_NAME_BYTES { "script.lua".to_owned() } else { shown };
        let script = Text { name, file: source.path.clone(), written: Arc::clone(&source.text) };
        let module = |(name, text): (&String, &Arc<str>)| {
            let name = module_name(name);
            Text { file: PathBuf::from(&name), name, written: Arc::clone(text) }
        };
        Self { texts: std::iter::once(script).chain(source.modules.iter().map(module)).collect() }
    }

    /// Every text, with its file.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.texts.iter().map(|text| (text.file.as_path(), &*text.written))
    }

    /// The script's name inside the virtual machine.
    pub(super) fn script_name(&self) -> &str {
        self.texts.first().map_or("", |script| &script.name)
    }

    /// The script as a whole.
    pub(super) fn whole(&self) -> SourceSpan {
        SourceSpan::file(self.texts.first().map_or_else(PathBuf::new, |script| script.file.clone()))
    }

    /// Where a function of the script begins.
    pub(super) fn defined_at(&self, info: &FunctionInfo) -> SourceSpan {
        let text = self.texts.iter().find(|text| info.short_src.as_deref() == Some(&text.name));
        match (text, info.line_defined) {
            (Some(text), Some(line)) => SourceSpan::line(&text.file, line as u32),
            _ => self.whole(),
        }
    }

    /// The text that a place is in.
    pub(super) fn text_at(&self, place: &SourceSpan) -> &str {
        self.texts.iter().find(|text| text.file == place.file).map_or("", |text| &text.written)
    }

    /// The problem with the name of the function that the host called, and whether that shifts its arguments.
    pub(super) fn in_call(&self, problem: Box<Diagnostic>, name: &str, info: &FunctionInfo) -> Box<Diagnostic> {
        let mut problem = called_as(problem, name);
        let place = self.defined_at(info);
        let line = (place.line as usize).checked_sub(1).and_then(|at| self.text_at(&place).lines().nth(at));
        let form = format!(":{name}(");
        let shifted =
            line.and_then(|line| line.split_once("function ")?.1.split_once(&form)).filter(|_| !name.is_empty());
        if let Some((table, _)) = shifted.filter(|_| problem.code == "script::runtime") {
            problem.help = Some(format!(
                "write `function {table}.{name}(` with a dot: the colon puts a `self` before the parameters, so each gets what the one before it should get"
            ));
        }
        problem
    }

    /// The problem with the place and the calls that a second run of the call has shown.
    pub(super) fn traced(&self, problem: Box<Diagnostic>, levels: &[Level]) -> Box<Diagnostic> {
        let mut calls: Vec<Call> = Vec::new();
        for Level { text, line, function } in levels {
            let Some(text) = self.texts.iter().position(|known| known.name == *text) else { continue };
            let call = Call { text, line: *line, function: function.clone() };
            // A recursion in one line counts once.
            if !calls.last().is_some_and(|last| last.is_at(&call)) {
                calls.push(call);
            }
        }
        if calls.is_empty() {
            return problem;
        }
        let told = Told { code: problem.code, message: String::new(), named: None, calls };
        Box::new(self.placed(*problem, &told))
    }

    /// Refuses texts whose compilation could take long.
    pub(super) fn check_sizes(&self) -> Result<(), Box<Diagnostic>> {
        match self.texts.iter().find(|text| text.written.len() > MAX_SOURCE_BYTES) {
            None => Ok(()),
            Some(text) => Err(Box::new(
                Diagnostic::error("script::syntax", format!("the script is longer than {}", size(MAX_SOURCE_BYTES)))
                    .at(SourceSpan::file(&text.file))
                    .help("keep data in a file and read it with `gift.dataset`"),
            )),
        }
    }

    /// A virtual machine that could not be set up.
    pub(super) fn engine_failure(&self, error: &mlua::Error) -> Box<Diagnostic> {
        let message = format!("the virtual machine cannot be set up: {error}");
        Box::new(Diagnostic::error("script::engine", message).at(self.whole()))
    }

    /// A field that is called but is no function.
    pub(super) fn not_a_function(&self, name: &str, found: &str) -> Box<Diagnostic> {
        Box::new(
            Diagnostic::error("script::runtime", format!("`{name}` is not a function"))
                .at(self.whole())
                .expected("a function in the table that the script returns")
                .found(found),
        )
    }

    /// A call whose time was over.
    pub(super) fn timeout(&self, error: Option<&mlua::Error>, limits: &Limits) -> Box<Diagnostic> {
        let message = format!("the script ran longer than {:?}", limits.call);
        let help = "look for a loop that does not end; search less deep, or keep what can be computed once";
        let diagnostic = Diagnostic::error("script::timeout", message).help(help);
        Box::new(match error.map(|error| self.told(error)) {
            Some(told) => self.placed(diagnostic, &told),
            None => diagnostic.at(self.whole()),
        })
    }

    /// Any other error; `expired` is the host's own word on whether the time was over.
    pub(super) fn fault(&self, lua: &Lua, error: &mlua::Error, expired: bool, limits: &Limits) -> Box<Diagnostic> {
        if expired {
            return self.timeout(Some(error), limits);
        }
        let told = self.told(error);
        let mut diagnostic = Diagnostic::error(told.code, told.message.clone());
        if told.code == "script::syntax" {
            // The parser's messages are sentences; ours start in lower case.
            let mut letters = diagnostic.message.chars();
            let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
            diagnostic.message = first + letters.as_str();
        }
        if told.code == "script::memory" {
            diagnostic.message = format!("the script needs more than {} of memory", size(limits.memory_bytes));
            let help = "look for a list or a string that keeps growing, or that is made too large at once";
            diagnostic = diagnostic.help(help);
            // The garbage of the failed call would count against the next one. It fails only where finalizers do.
            let _ = lua.gc_collect();
        } else if let Some(name) = module_not_found(&told.message) {
            let texts = self.texts.iter().map(|text| &*text.written);
            let script = self.texts.first().map_or(Path::new(""), |script| &script.file);
            diagnostic = explain_missing(diagnostic, script, Language::Lua, texts, name);
        } else if let Some(help) =
            hints::help(lua, told.code == "script::syntax", &diagnostic.message, self.line(&told))
        {
            diagnostic = diagnostic.help(help);
        } else if told.code == "script::syntax" {
            diagnostic =
                diagnostic.help("look for a missing bracket, comma, quote or `end` here or in the lines above");
        }
        Box::new(self.placed(diagnostic, &told))
    }

    /// Adds the place, its line and the author's stack.
    fn placed(&self, diagnostic: Diagnostic, told: &Told) -> Diagnostic {
        let frame = |call: &Call| {
            let file = &self.texts.get(call.text)?.file;
            Some(Frame { place: SourceSpan::line(file, call.line), function: call.function.clone() })
        };
        let place = told.place().and_then(|call| Some((frame(call)?.place, &self.texts.get(call.text)?.written)));
        let mut diagnostic = match place {
            Some((place, written)) => diagnostic.at(place).snippet_from(written),
            None => diagnostic.at(self.whole()),
        };
        if told.code != "script::syntax" {
            diagnostic.stack = told.calls.iter().filter_map(frame).take(MAX_FRAMES).collect();
        }
        diagnostic
    }

    /// Takes an error apart.
    fn told(&self, error: &mlua::Error) -> Told {
        match error {
            mlua::Error::CallbackError { traceback, cause } => {
                let mut told = self.told(cause);
                self.add_calls(traceback, &mut told.calls);
                told
            }
            mlua::Error::WithContext { cause, .. } => self.told(cause),
            mlua::Error::BadArgument { to: None, pos, name: None, cause } => {
                let told = self.told(cause);
                Told { message: format!("argument {pos}: {}", told.message), ..told }
            }
            mlua::Error::BadArgument { to: Some(to), name: Some(name), .. } if name == "self" => {
                // The host's only type with methods; its name is that of the type, with a capital.
                let to = to.replace("Rng.", "rng.");
                self.told_text(
                    "script::runtime",
                    &format!("`{to}` was called with a dot, so it has no `rng` to draw from"),
                )
            }
            mlua::Error::FromLuaConversionError { from, to, .. } => {
                let wanted = match to.as_str() {
                    "String" => "a string",
                    "Table" => "a list",
                    other => other,
                };
                self.told_text("script::runtime", &format!("expected {wanted}, found {from}"))
            }
            mlua::Error::SyntaxError { message, .. } => self.told_text("script::syntax", message),
            mlua::Error::MemoryError(message) => self.told_text("script::memory", message),
            mlua::Error::RuntimeError(message) => self.told_text("script::runtime", message),
            other => self.told_text("script::runtime", &other.to_string()),
        }
    }

    /// Takes a message apart: the place before it, the stack after it.
    fn told_text(&self, code: &'static str, text: &str) -> Told {
        let (message, stack) = text.split_once("\nstack traceback:").unwrap_or((text, ""));
        let (mut message, mut named) = (without_prelude(message), Vec::new());
        // An error that passes through a coroutine is given a place by each.
        while let Some((call, rest)) = self.call_at(message) {
            message = rest.trim_start_matches([':', ' ']);
            named.push(call);
        }
        named.reverse();
        let mut calls = Vec::new();
        self.add_calls(stack, &mut calls);
        // The stack is whole if it has the place of the message; a coroutine's has only the part outside.
        if !named.first().is_some_and(|first| calls.iter().any(|call| first.is_at(call))) {
            let outer = std::mem::take(&mut calls);
            calls.clone_from(&named);
            calls.extend(outer);
            calls.dedup_by(|next, last| {
                if last.function.is_none() {
                    last.function.clone_from(&next.function);
                }
                next.is_at(last)
            });
        }
        let code = if message.ends_with("not enough memory") { "script::memory" } else { code };
        // Addresses differ from run to run and tell nothing.
        let message = match message {
            "nil" => "`error` was called without a message",
            table if table.starts_with("table: 0x") => "`error` was called with a table",
            other => other,
        };
        Told { code, message: message.trim().to_owned(), named: named.into_iter().next(), calls }
    }

    /// Adds the author's calls of a stack, innermost first; a recursion in one line counts once.
    fn add_calls(&self, stack: &str, calls: &mut Vec<Call>) {
        for line in stack.lines() {
            let Some((call, rest)) = self.call_at(line.trim_start()) else { continue };
            let function = rest.split_once("function '").and_then(|(_, rest)| rest.strip_suffix('\''));
            let function = function.map(str::to_owned);
            match calls.last_mut().filter(|last| last.is_at(&call)) {
                Some(last) => last.function = last.function.take().or(function),
                None => calls.push(Call { function, ..call }),
            }
        }
    }

    /// The place at the start of a line, and what follows it.
    fn call_at<'a>(&self, line: &'a str) -> Option<(Call, &'a str)> {
        self.texts.iter().enumerate().find_map(|(text, Text { name, .. })| {
            let rest = line.strip_prefix(name.as_str())?.strip_prefix(':')?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            Some((Call { text, line: rest[..digits].parse().ok()?, function: None }, &rest[digits..]))
        })
    }

    /// The line to blame, as it is written.
    fn line(&self, told: &Told) -> &str {
        let line = told
            .place()
            .and_then(|call| self.texts.get(call.text)?.written.lines().nth((call.line as usize).checked_sub(1)?));
        line.unwrap_or_default()
    }
}

/// The name in the message of a `require` that found no module.
fn module_not_found(message: &str) -> Option<&str> {
    message.strip_prefix(NO_MODULE)?.strip_suffix('`')
}
