//! Where `tracing` events go: standard error, as the lines that people read or as JSON. Secrets are hidden and control characters
//! spelt out, since texts of scripts and models are among them. While the screen of `train --watch` is up, lines are kept and
//! written when it is gone.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::diag::Secrets;

/// Lines that are kept while the screen is up; the oldest are dropped.
const MAX_HELD: usize = 2000;

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One object a line: `time` (seconds since 1970), `level`, `message` and what else is known
    Json,
}

/// The least severe events that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogLevel {
    /// What ends the command
    Error,
    /// And what should be looked at
    Warn,
    /// And progress
    Info,
    /// And what files are written, and how long parts take
    Debug,
}

/// Starts logging. A second call in one process changes nothing.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let _ =
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(Printer { format }));
}

/// The text with the secrets of this process's environment hidden.
pub(crate) fn without_secrets(text: &str) -> std::borrow::Cow<'_, str> {
    static SECRETS: OnceLock<Secrets> = OnceLock::new();
    let variables =
        || std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    SECRETS.get_or_init(|| Secrets::of(variables())).hide(text)
}

/// The text with control characters (but ends of lines and tabs) spelt out, which could move the cursor or colour the terminal,
/// and those that turn the direction of writing, which could make a text look like another.
pub(crate) fn without_controls(text: &str) -> std::borrow::Cow<'_, str> {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t' || turns(c);
    if !text.contains(is_harmful) {
        return text.into();
    }
    let spelt = |c: char| if is_harmful(c) { c.escape_unicode().to_string() } else { c.to_string() };
    text.chars().map(spelt).collect::<String>().into()
}

/// Lines that wait for the screen to go; none if there is no screen.
static HELD: Mutex<Option<VecDeque<String>>> = Mutex::new(None);

/// Keeps lines from now on.
pub(crate) fn hold() {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// Writes what was kept, and from now on every line at once.
pub(crate) fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.into_iter().flatten().for_each(|line| write(&line));
}

fn write(line: &str) {
    // A closed standard error must not stop a run.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn print(line: String) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lines) = held.as_mut() else { return write(&line) };
    if lines.len() == MAX_HELD {
        lines.pop_front();
    }
    lines.push_back(line);
}

struct Printer {
    format: LogFormat,
}

impl<S: Subscriber> Layer<S> for Printer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = without_secrets(&fields.message);
        let message = without_controls(&message);
        match self.format {
            LogFormat::Text => print(message.into_owned()),
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("time".to_owned(), now().into());
                line.insert("level".to_owned(), level_name(*event.metadata().level()).into());
                line.insert("message".to_owned(), message.into_owned().into());
                line.append(&mut fields.others);
                print(without_secrets(&Value::Object(line).to_string()).into_owned());
            }
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// Seconds since 1970, to the millisecond.
fn now() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "a log says when something happened; nothing depends on it")]
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    time.as_millis() as f64 / 1000.0
}

/// The message of an event and what else it says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, without_controls(&format!("{value:?}")).into_owned().into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(without_controls("a\u{1b}[31mb\r\u{7}\u{9b}2J\n\tc"), "a\\u{1b}[31mb\\u{d}\\u{7}\\u{9b}2J\n\tc");
        assert_eq!(without_controls("a\u{202e}b"), "a\\u{202e}b");
        assert!(matches!(without_controls("plain\n"), std::borrow::Cow::Borrowed(_)));
    }
}
