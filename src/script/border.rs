//! What both engines need at the border between host and script: how deep and how large a value may be, and how a value
//! that may not cross is told to its author.

use std::fmt::Write as _;

use super::Limits;
use crate::diag::{Diagnostic, SourceSpan};

/// Longest reason of a refusal, in bytes: it stands in front of the next observation.
const MAX_REASON_BYTES: usize = 1000;

/// The reason of a `gift.illegal`, cut to a bounded length.
pub(super) fn reason(text: &str) -> String {
    if text.len() <= MAX_REASON_BYTES {
        return text.to_owned();
    }
    let end = (0..=MAX_REASON_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// The diagnostic with the line of `text` where the function begins.
pub(super) fn begins_at(diagnostic: Diagnostic, function: &str, mut place: SourceSpan, text: &str) -> Diagnostic {
    let line = (place.line as usize).checked_sub(1).and_then(|index| text.lines().nth(index));
    if let Some((before, _)) = line.and_then(|line| line.split_once(function)).filter(|_| !function.is_empty()) {
        place.column = before.chars().count() as u32 + 1;
    }
    let label = if function.is_empty() { String::new() } else { format!("`{function}` begins here") };
    diagnostic.at(place).snippet_from(text).label(label)
}

/// An amount of memory as messages show it.
pub(super) fn size(bytes: usize) -> String {
    const MEBIBYTE: usize = 1 << 20;
    match bytes {
        0..MEBIBYTE => format!("{bytes} bytes"),
        _ if bytes.is_multiple_of(MEBIBYTE) => format!("{} MiB", bytes / MEBIBYTE),
        _ => format!("{:.1} MiB", bytes as f64 / MEBIBYTE as f64),
    }
}

/// Why a value may not cross.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Where in the value, innermost part first, each as written in a script: `.board`, `[3]`.
    path: Vec<String>,
    problem: String,
    help: &'static str,
}

impl Refusal {
    /// A refusal of the value itself; its containers add where it is with [`Refusal::inside_field`].
    pub(super) fn new(problem: impl Into<String>, help: &'static str) -> Self {
        Self { path: Vec::new(), problem: problem.into(), help }
    }

    /// Adds the field that the refused value stands in.
    #[must_use]
    pub(super) fn inside_field(mut self, name: &str) -> Self {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        self.path.push(if plain { format!(".{name}") } else { format!("[{name:?}]") });
        self
    }

    /// Adds the place in a list that the refused value stands in, counted as the language counts.
    #[must_use]
    pub(super) fn inside_item(mut self, index: usize) -> Self {
        self.path.push(format!("[{index}]"));
        self
    }

    /// The refusal as one sentence about `what`.
    pub(super) fn message(&self, what: &str) -> String {
        /// Parts of the path that are shown: as deep as the limit is not readable.
        const SHOWN: usize = 6;
        let mut message = what.to_owned();
        for (at, part) in self.path.iter().rev().enumerate() {
            if at < SHOWN {
                message.push_str(part);
            } else if at == SHOWN {
                message.push('…');
            }
        }
        let _ = write!(message, " {}", self.problem);
        message
    }

    /// The refusal as a diagnostic about `what`, a result or a field of the script at `place`.
    pub(super) fn diagnostic(&self, what: &str, place: SourceSpan) -> Box<Diagnostic> {
        Box::new(
            Diagnostic::error("script::value", self.message(what))
                .at(place)
                .expected("numbers, strings, booleans, lists and maps with string keys")
                .help(self.help),
        )
    }
}

/// Counts the parts of a value that crosses.
pub(super) struct Meter<'a> {
    limits: &'a Limits,
    values: usize,
    depth: usize,
    text_bytes: usize,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, values: 0, depth: 0, text_bytes: 0 }
    }

    /// Counts one value.
    pub(super) fn value(&mut self) -> Result<(), Refusal> {
        self.values += 1;
        if self.values > self.limits.max_values {
            let problem = format!("is among more than {} values", self.limits.max_values);
            return Err(Refusal::new(problem, "keep less in the value; compute what can be computed again"));
        }
        Ok(())
    }

    /// Enters a list or map; [`Meter::leave`] ends it.
    pub(super) fn enter(&mut self) -> Result<(), Refusal> {
        self.depth += 1;
        if self.depth > self.limits.max_depth {
            let problem = format!("is nested deeper than {}", self.limits.max_depth);
            return Err(Refusal::new(problem, "keep the parts in one flat list and refer to them by index"));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Checks the length of a text, and of all texts so far: a script holds a text once and can name it a hundred thousand
    /// times, but a copy is made of each.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.limits.max_text_bytes {
            let problem = format!("is a string of {bytes} bytes, more than {}", size(self.limits.max_text_bytes));
            return Err(Refusal::new(problem, "shorten the string"));
        }
        self.text_bytes += bytes;
        if self.text_bytes > self.limits.max_total_text_bytes {
            let problem = format!("is among strings of more than {} together", size(self.limits.max_total_text_bytes));
            return Err(Refusal::new(problem, "keep less text in the value: a row's number instead of the row"));
        }
        Ok(())
    }
}
