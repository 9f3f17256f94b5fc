//! What a check is doing, on a terminal and only if it takes a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::{clock, duration};

/// Nothing is shown of a check that is done by then.
const DELAY: Duration = Duration::from_secs(2);

/// A line on standard error that says what is going on; nothing where that is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Duration,
    files: usize,
    done: AtomicUsize,
    /// What was told last.
    doing: Mutex<String>,
}

impl Progress {
    /// How often the line is drawn.
    pub(super) const TICK: Duration = Duration::from_millis(100);

    pub(super) fn new(files: usize) -> Self {
        // Where standard error is no terminal, it draws nothing.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, started: clock(), files, done: AtomicUsize::new(0), doing: Mutex::default() }
    }

    /// Says what is done now.
    pub(super) fn tell(&self, doing: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    /// A file is done.
    pub(super) fn finish_one(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Draws the line, once the check has taken a while.
    pub(super) fn show(&self) {
        let elapsed = clock().saturating_sub(self.started);
        if elapsed >= DELAY {
            self.bar.set_message(self.line(elapsed));
            self.bar.tick();
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let files = match self.files {
            1 => String::new(),
            files => format!("{} of {files} files done; ", self.done.load(Ordering::Relaxed)),
        };
        format!("{files}{doing} ({})", duration(elapsed))
    }

    /// Makes room for other output.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
        self.bar.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_files_and_what_is_done() {
        let progress = Progress::new(3);
        progress.tell("games/a.lua: 7 of 100 random episodes".to_owned());
        progress.finish_one();
        let line = progress.line(Duration::from_secs(65));
        assert_eq!(line, "1 of 3 files done; games/a.lua: 7 of 100 random episodes (1m05s)");
        assert!(Progress::new(1).line(Duration::ZERO).ends_with("(0s)"));
    }
}
