//! The ways to read one text: with `1,234` as a number or as a list, with its last word as a unit or as a factor.
//! Builds them all (at most four) once; [`super::compare`] then looks for a pair that agrees.

use super::expression::Expression;
use super::lexer::{self, Kind, Token};
use super::{extract_boxed, parser, units};

/// One way to read a text.
pub(super) struct Reading {
    pub(super) value: Expression,
    /// The unit taken off, if it is a known one
    pub(super) unit: Option<String>,
}

/// A text as words and as mathematics.
pub(super) struct Text {
    wording: String,
    /// The text if it is nothing but words, in lower case
    words: Option<String>,
    pub(super) readings: Vec<Reading>,
}

impl Text {
    /// Reads an answer of at most [`super::MAX_LENGTH`] bytes.
    pub(super) fn read(text: &str) -> Self {
        let text = unwrapped(text);
        let mut readings = Vec::new();
        let mut wording = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let mut words = None;
        if let Some(tokens) = lexer::tokens(text, false) {
            wording = joined(&tokens.list);
            words = only_words(&tokens.list);
            add_readings(&mut readings, &tokens);
            if let Some(joined) = lexer::tokens(text, true).filter(|other| other.list != tokens.list) {
                add_readings(&mut readings, &joined);
            }
        }
        Self { wording, words, readings }
    }

    /// Whether the texts are the same up to spacing, LaTeX spelling and, for words, case.
    pub(super) fn is_same_wording(&self, other: &Self) -> bool {
        self.wording == other.wording || self.words.is_some() && self.words == other.words
    }
}

/// The content of the last box if the text has one, without the delimiters of a formula or of bold text.
fn unwrapped(text: &str) -> &str {
    let text = extract_boxed(text).unwrap_or(text).trim().trim_end_matches('.').trim();
    let without = |text: &'_ str, mark: &str| -> Option<usize> {
        let inner = text.strip_prefix(mark)?.strip_suffix(mark)?;
        (!inner.contains('$')).then_some(mark.len())
    };
    let bold = |text: &str| (text.len() > 4).then(|| without(text, "**")).flatten();
    match without(text, "$$").or_else(|| without(text, "$")).or_else(|| bold(text)) {
        Some(length) => text[length..text.len() - length].trim(),
        None => text,
    }
}

fn add_readings(readings: &mut Vec<Reading>, tokens: &lexer::Tokens) {
    let currency = tokens.has_currency.then(|| "dollar".to_owned());
    if let Some(value) = parser::parse(&tokens.list) {
        readings.push(Reading { value, unit: currency.clone() });
    }
    if let Some((start, unit)) = units::trailing_unit(&tokens.list)
        && let Some(value) = parser::parse(&tokens.list[..start])
    {
        readings.push(Reading { value, unit: unit.or(currency) });
    }
}

/// The tokens written one after the other; a space stays only where digits would run together.
fn joined(tokens: &[Token]) -> String {
    let mut text = String::new();
    let mut after_number = false;
    for token in tokens {
        let is_number = matches!(token.kind, Kind::Number(_));
        if is_number && after_number {
            text.push(' ');
        }
        match &token.kind {
            Kind::Number(part) | Kind::Letters(part) => text.push_str(part),
            // A mark, so that `\text{pi}` and `\pi`, or a word and a product of letters, stay apart.
            Kind::Word(part) => text.extend(["\"", part.as_str(), "\""]),
            Kind::Command(part) => text.extend(["\\", part.as_str(), " "]),
            Kind::Symbol(symbol) => text.push(*symbol),
        }
        after_number = is_number;
    }
    text
}

/// Letters that make a run of them a word rather than a product or a function's name.
const MIN_WORD_LETTERS: usize = 4;

/// The text in lower case if words carry it: nothing but words, where punctuation does not count, or words and numbers
/// (`June 20`), where it does.
fn only_words(tokens: &[Token]) -> Option<String> {
    let has_number = tokens.iter().any(|token| matches!(token.kind, Kind::Number(_)));
    let has_word = tokens.iter().any(|token| match &token.kind {
        Kind::Word(text) => text.len() >= MIN_WORD_LETTERS,
        Kind::Letters(run) => run.len() >= MIN_WORD_LETTERS,
        _ => false,
    });
    if has_number && !has_word {
        return None;
    }
    let mut words: Vec<String> = Vec::new();
    for token in tokens {
        match &token.kind {
            Kind::Letters(text) | Kind::Word(text) => {
                words.extend(text.split_whitespace().map(str::to_lowercase));
            }
            Kind::Number(digits) => words.push(digits.clone()),
            Kind::Symbol(',' | ';') => words.push(",".to_owned()),
            Kind::Symbol('-' | '(' | ')' | '!') if !has_number => {}
            Kind::Symbol('{' | '}') => {}
            Kind::Symbol(symbol) if has_number => words.push(symbol.to_string()),
            _ => return None,
        }
    }
    (!words.is_empty()).then(|| words.join(" "))
}
