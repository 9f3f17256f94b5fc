//! Settings that are saved while a run goes on: what may change waits for the next rollout, the rest is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::config::{RunConfig, SettingChange, review};
use crate::diag::{Diagnostic, SourceSpan};

use super::candidates::{Event, GONE};
use super::watcher::{Pending, lock};

/// How long settings must stay as they are before they are used: half a file of settings is often valid.
const SETTLED: Duration = Duration::from_millis(100);

/// A file of settings that may change while a run goes on.
pub struct SettingsFile {
    /// The file.
    pub path: PathBuf,
    /// The settings in service.
    pub config: RunConfig,
    /// Reads all settings anew, with what the command line puts over the file.
    pub read: Box<dyn Fn() -> Result<RunConfig, Box<Diagnostic>> + Send>,
}

/// The settings as last seen.
pub(super) struct Settings {
    file: SettingsFile,
    /// The text that was read last; `None` before the first time, and if there was no file.
    tried: Option<String>,
    waiting: Option<(Option<String>, Instant)>,
    /// Values that were refused, so that each is told once.
    refused: BTreeSet<(String, String)>,
}

impl Settings {
    pub(super) fn new(file: SettingsFile) -> Self {
        Self { file, tried: None, waiting: None, refused: BTreeSet::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads the file and leaves what may change for the next rollout. With `patience`, only once the file has stayed as
    /// it is. Returns when to look again if it waits for that.
    pub(super) fn look(
        &mut self,
        pending: &Mutex<Pending>,
        patience: bool,
        report: &dyn Fn(&Event),
    ) -> Option<Duration> {
        #[expect(clippy::disallowed_methods, reason = "why it cannot be read is said by `read`")]
        let text = self.file.path.is_file().then(|| std::fs::read_to_string(&self.file.path).ok()).flatten();
        if text == self.tried {
            self.waiting = None;
            return None;
        }
        let since = match &self.waiting {
            Some((before, since)) if *before == text => *since,
            _ => Instant::now(),
        };
        let left = if text.is_none() { GONE } else { SETTLED }.saturating_sub(since.elapsed());
        if patience && !left.is_zero() {
            self.waiting = Some((text, since));
            return Some(left);
        }
        (self.tried, self.waiting) = (text, None);
        let refuse = |problem: Diagnostic| {
            lock(pending).rejected.push(problem.clone());
            report(&Event::Rejected { problem });
        };
        let wanted = match (self.file.read)() {
            Ok(wanted) => wanted,
            Err(problem) => {
                refuse(problem.note("the settings stay as they are"));
                return None;
            }
        };
        let review = review(&self.file.config, &wanted);
        if !review.changes.is_empty() {
            self.file.config = review.config.clone();
            lock(pending).settings = Some(review.config);
            report(&Event::Settings { changes: review.changes });
        }
        let value = |change: &SettingChange| (change.key.clone(), change.new.clone());
        for (change, reason) in review.refused.iter().filter(|(change, _)| !self.refused.contains(&value(change))) {
            refuse(fixed_setting(&self.file.path, change, reason));
        }
        self.refused = review.refused.iter().map(|(change, _)| value(change)).collect();
        None
    }
}

fn fixed_setting(path: &Path, change: &SettingChange, reason: &str) -> Diagnostic {
    let SettingChange { key, old, new } = change;
    Diagnostic::error("reload::setting", format!("`{key}` cannot change while a run goes on"))
        .at(SourceSpan::file(path))
        .expected(format!("{old}, as in service"))
        .found(new)
        .help("stop the run and resume it with this setting, where `--resume` takes it, or start a new run")
        .note(format!("why: {reason}"))
}
