//! The figures of a measurement as text and as JSON.

use std::io::Write;

use serde_json::{Value as Json, json};

use super::median;

/// One line: so many tokens, how long they took in each round, and how long they would take at best.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) tokens: usize,
    pub(super) seconds: Vec<f64>,
    pub(super) floor: f64,
    /// Processor time of each round, where it is known.
    pub(super) processor_seconds: Vec<Option<f64>>,
}

impl Line {
    /// Tokens a second in the median round.
    pub(super) fn rate(&self) -> f64 {
        self.tokens as f64 / median(&self.seconds)
    }

    /// The share of the floor that is reached, at most 1 if the floor holds.
    fn share(&self) -> f64 {
        self.floor / median(&self.seconds)
    }

    pub(super) fn json(&self) -> Json {
        json!({
            "tokens": self.tokens,
            "seconds": median(&self.seconds),
            "rounds": self.seconds,
            "tokens_per_s": self.rate(),
            "floor_s": self.floor,
            "share_of_floor": self.share(),
            "processor_seconds": self.processor_seconds,
        })
    }
}

/// Prints the lines under a head.
pub(super) fn print(out: &mut dyn Write, lines: &[Line]) -> std::io::Result<()> {
    writeln!(out, "{:<10} {:>9} {:>10} {:>10} {:>10} {:>8}", "", "tokens", "seconds", "tokens/s", "floor s", "share")?;
    // With one new token a turn, nothing is left to decode.
    for line in lines.iter().filter(|line| line.tokens > 0) {
        writeln!(
            out,
            "{:<10} {:>9} {:>10.3} {:>10.1} {:>10.3} {:>6.0} %",
            line.name,
            line.tokens,
            median(&line.seconds),
            line.rate(),
            line.floor,
            100.0 * line.share(),
        )?;
    }
    Ok(())
}
