//! A problem that an author or a user can mend: what is wrong, where, what was expected, what was found, how to fix it.
//! Uses nothing else of the crate. Failures of the host itself are `Error`s of their rooms, not diagnostics.

mod secrets; // keys and passwords out of texts

use std::fmt;
use std::path::PathBuf;

pub use secrets::Secrets;

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

/// The line that a diagnostic points at, as it was in the version that it speaks of: the file may have changed since.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Snippet {
    /// The line's number, from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
    /// The first character that is meant, from 0.
    pub start: usize,
    /// How many characters are meant.
    pub length: usize,
    /// What stands beside the marks; empty for none.
    pub label: String,
}

impl Snippet {
    /// The line of `text` that the place names, marked from the place's column to the end of the word there, or, without
    /// a column, as a whole. `None` if there is no such line, or nothing in it.
    pub fn of(text: &str, place: &SourceSpan) -> Option<Self> {
        let written = text.lines().nth((place.line as usize).checked_sub(1)?)?.trim_end();
        let column = (place.column as usize).checked_sub(1);
        // A tab is shown as four spaces, which moves what follows.
        let column = column.map(|column| column + 3 * written.chars().take(column).filter(|&c| c == '\t').count());
        let characters: Vec<char> = written.replace('\t', "    ").chars().take(MAX_LINE).collect();
        let indent = characters.iter().position(|c| !c.is_whitespace())?;
        let (start, length) = match column.filter(|&at| at < characters.len()) {
            None => (indent, characters.len() - indent),
            Some(start) => {
                let word = characters[start..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                (start, word.max(1))
            }
        };
        Some(Self { line: place.line, text: characters.into_iter().collect(), start, length, label: String::new() })
    }
}

/// One call of the author's stack.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Frame {
    /// The line that was running.
    pub place: SourceSpan,
    /// The function that it is in, if it has a name.
    pub function: Option<String>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{} in `{function}`", self.place),
            None => write!(f, "{}", self.place),
        }
    }
}

/// The longest part of a line that is shown, in characters.
const MAX_LINE: usize = 120;

/// The longest message, in bytes: what a script raises may be as long as its memory allows, and each lost episode keeps one.
const MAX_MESSAGE: usize = 4000;

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
    /// The line at that place.
    pub snippet: Option<Box<Snippet>>,
    /// What the contract asks for.
    pub expected: Option<String>,
    /// What was there instead.
    pub found: Option<String>,
    /// The edit that mends it.
    pub help: Option<String>,
    /// The author's own calls that led there, the innermost first.
    pub stack: Vec<Frame>,
    /// More facts: the episode, what stays in service.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error with a code and a message; the other parts are added with the methods below.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
            message.shrink_to_fit();
        }
        Self {
            severity: Severity::Error,
            code,
            message,
            place: None,
            snippet: None,
            expected: None,
            found: None,
            help: None,
            stack: Vec::new(),
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

    /// Adds the line at the place, taken from the text that the diagnostic speaks of.
    #[must_use]
    pub fn snippet_from(mut self, text: &str) -> Self {
        self.snippet = self.place.as_ref().and_then(|place| Snippet::of(text, place)).map(Box::new);
        self
    }

    /// Adds what stands beside the marks of the snippet, if there is one.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(snippet) = &mut self.snippet {
            snippet.label = text.into();
        }
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
        if let Some(Snippet { line, text, start, length, label }) = self.snippet.as_deref() {
            let (number, gap) = (line.to_string(), " ".repeat(line.to_string().len()));
            let marks = format!("{}{} {label}", " ".repeat(*start), "^".repeat(*length));
            write!(f, "\n {gap} |\n {number} | {text}\n {gap} | {}\n {gap} |", marks.trim_end())?;
        }
        for (label, text) in [("expected:", &self.expected), ("found:   ", &self.found), ("help:    ", &self.help)] {
            if let Some(text) = text {
                write!(f, "\n  {label} {}", text.replace('\n', "\n            "))?;
            }
        }
        for (index, frame) in self.stack.iter().enumerate() {
            write!(f, "\n  {} {frame}", if index == 0 { "stack:   " } else { "         " })?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {}", note.replace('\n', "\n      "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// The candidate that differs least from `word`, if it differs in fewer than half of its letters (Levenshtein distance).
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| {
        let other: Vec<char> = other.chars().collect();
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (i, letter) in word.chars().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, &other_letter) in other.iter().enumerate() {
                let change = diagonal + usize::from(letter != other_letter);
                diagonal = row[j + 1];
                row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
            }
        }
        row[other.len()]
    };
    let best = candidates.into_iter().map(|other| (distance(other), other)).min()?;
    (best.0 * 2 < word.chars().count().max(2)).then_some(best.1)
}

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

    #[test]
    fn a_line_is_shown_with_marks_and_the_stack_below() {
        let text = "local a = 1\n\tlocal b = a.c.d\n";
        let place = SourceSpan { file: "x.lua".into(), line: 2, column: 0 };
        let frame = |line, function: &str| Frame {
            place: SourceSpan::line("x.lua", line),
            function: Some(function.to_owned()).filter(|name| !name.is_empty()),
        };
        let mut diagnostic =
            Diagnostic::error("script::runtime", "bad").at(place.clone()).snippet_from(text).label("this").help("look");
        diagnostic.stack = vec![frame(2, "f"), frame(9, "")];
        let drawn = "error[script::runtime]: bad\n  --> x.lua:2\n   |\n 2 |     local b = a.c.d\n   |     \
                     ^^^^^^^^^^^^^^^ this\n   |\n  help:     look\n  stack:    x.lua:2 in `f`\n            x.lua:9";
        assert_eq!(diagnostic.to_string(), drawn);
        let word = Snippet::of(text, &SourceSpan { column: 7, line: 1, ..place.clone() }).unwrap();
        assert_eq!((word.start, word.length), (6, 1));
        for line in [0, 3, 4] {
            assert_eq!(Snippet::of(text, &SourceSpan { line, ..place.clone() }), None);
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let diagnostic = Diagnostic::error("script::runtime", format!("a{}", "ä".repeat(1_000_000)));
        assert_eq!(diagnostic.message.len(), 3999 + "…".len());
        assert!(diagnostic.message.capacity() < 5000, "the rest is given back");
    }

    #[test]
    fn the_closest_word_is_close() {
        assert_eq!(closest("brif", ["brief", "bot"]), Some("brief"));
        assert_eq!(closest("weather", ["brief", "bot"]), None);
    }
}
