//! A problem that an author or a user can mend: what is wrong, where, what was expected, what was found, how to fix it.
//! Uses nothing else of the crate. Failures of the host itself are `Error`s of their rooms, not diagnostics.

use std::fmt;
use std::path::PathBuf;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SourceSpan {
    /// The file as the user named it.
    pub file: PathBuf,
    /// Line, from 1; 0 if only the file is known.
    pub line: u32,
    /// Column in characters, from 1; 0 if unknown.
    pub column: u32,
}

impl SourceSpan {
    /// The file as a whole.
    pub fn file(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }

    /// One line of a file.
    pub fn line(file: impl Into<PathBuf>, line: u32) -> Self {
        Self { file: file.into(), line, column: 0 }
    }
}

impl fmt::Display for SourceSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.line > 0 && self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What was asked cannot be done.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// A problem with its place, what was expected and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable name, `room::problem`.
    pub code: &'static str,
    /// One line, lower case, no full stop.
    pub message: String,
    /// Where, if a file is to blame.
    pub place: Option<SourceSpan>,
    /// What the contract asks for.
    pub expected: Option<String>,
    /// What was there instead.
    pub found: Option<String>,
    /// The edit that mends it.
    pub help: Option<String>,
    /// More facts: the author's stack, what stays in service.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error with a code and a message; the other parts are added with the methods below.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            expected: None,
            found: None,
            help: None,
            notes: Vec::new(),
        }
    }

    /// A warning; see [`Diagnostic::error`].
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, place: SourceSpan) -> Self {
        self.place = Some(place);
        self
    }

    /// Adds what was expected.
    #[must_use]
    pub fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(text.into());
        self
    }

    /// Adds what was found.
    #[must_use]
    pub fn found(mut self, text: impl Into<String>) -> Self {
        self.found = Some(text.into());
        self
    }

    /// Adds the fix.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n  --> {place}")?;
        }
        for (label, text) in [("expected:", &self.expected), ("found:   ", &self.found), ("help:    ", &self.help)] {
            if let Some(text) = text {
                write!(f, "\n  {label} {}", text.replace('\n', "\n            "))?;
            }
        }
        for note in &self.notes {
            write!(f, "\nnote: {}", note.replace('\n', "\n      "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_drawn_with_place_expectation_and_fix() {
        let diagnostic = Diagnostic::error("game::missing_reward", "`step` gave no reward to seat 2")
            .at(SourceSpan::line("games/spy.lua", 87))
            .expected("a number for each of the 4 seats")
            .found("{ 1, nil, 0, 0 }")
            .help("write `reward[2] = 0` if seat 2 scores nothing this turn")
            .note("`spy` keeps serving version 3f9c1a2");
        let drawn = "error[game::missing_reward]: `step` gave no reward to seat 2\n  --> games/spy.lua:87\n  \
                     expected: a number for each of the 4 seats\n  found:    { 1, nil, 0, 0 }\n  help:     write \
                     `reward[2] = 0` if seat 2 scores nothing this turn\nnote: `spy` keeps serving version 3f9c1a2";
        assert_eq!(diagnostic.to_string(), drawn);
    }
}
