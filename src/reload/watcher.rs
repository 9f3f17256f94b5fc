//! The thread that looks at what was saved.
//!
//! Folders are watched, not files: editors write beside and rename, and a checkout replaces whole folders. An event only
//! wakes the thread, which reads every script again and compares versions, so no kind of event can be misread; now and then
//! it looks without an event, for file systems that send none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::RunConfig;
use crate::diag::Diagnostic;
use crate::game::{GameDef, Nest, RewardScript};
use crate::script::{Source, Version};

use super::candidates::{Also, Candidates, Event, file_name};
use super::catalog::Catalog;
use super::places::Watches;

/// Quiet time after an event before files are read: a save is often several events.
const DEBOUNCE: Duration = Duration::from_millis(30);
/// Time after which files are read although it is not quiet.
const MAX_DEBOUNCE: Duration = Duration::from_millis(600);
/// Time between two looks without an event.
const POLL: Duration = Duration::from_secs(2);

/// What is ready for the next rollout.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) games: BTreeMap<String, Arc<GameDef>>,
    /// New games, and whether each joins without being named by the nest.
    pub(super) offered: BTreeMap<String, (Arc<GameDef>, bool)>,
    pub(super) nest: Option<Arc<Nest>>,
    pub(super) reward: Option<Arc<RewardScript>>,
    pub(super) settings: Option<RunConfig>,
    pub(super) rejected: Vec<Diagnostic>,
    /// The versions in service by their files: a run may have gone back to an earlier one.
    pub(super) serving: BTreeMap<PathBuf, Version>,
}

impl Pending {
    /// The version of a script that is in service and stays, unless a newer one waits or none was taken yet.
    pub(super) fn serving(&self, path: &Path, name: &str) -> Option<Version> {
        let is_game = self.games.contains_key(name) || self.offered.contains_key(name);
        let is_it = |source: &Source| source.path == path;
        let is_nest = self.nest.as_ref().and_then(|nest| nest.source.as_ref()).is_some_and(is_it);
        let waits = is_game || is_nest || self.reward.as_ref().is_some_and(|reward| is_it(&reward.source));
        self.serving.get(path).filter(|_| !waits).cloned()
    }
}

/// What a run takes over at a rollout boundary.
#[derive(Debug, Default)]
pub struct Taken {
    /// Names and versions of the scripts that were put in service.
    pub versions: Vec<(String, Version)>,
    /// The settings to go on with, if they changed.
    pub settings: Option<RunConfig>,
    /// What was saved since the last time and not taken.
    pub rejected: Vec<Diagnostic>,
}

enum Wake {
    Look,
    Stop,
}

/// Watches the scripts of a catalog until it is dropped.
pub struct Watcher {
    pending: Arc<Mutex<Pending>>,
    sender: Sender<Wake>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching the scripts of a catalog, the modules that they load and the data files that they open. `report` is
    /// called on the watching thread, for every save that changes something.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the system lets nothing be watched.
    pub fn start(catalog: &Catalog, report: Box<dyn Fn(&Event) + Send>) -> Result<Self, Box<Diagnostic>> {
        Self::start_with(catalog, Also::default(), report)
    }

    /// As [`Watcher::start`], with settings and folders of games.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the system lets nothing be watched.
    pub fn start_with(
        catalog: &Catalog,
        also: Also,
        report: Box<dyn Fn(&Event) + Send>,
    ) -> Result<Self, Box<Diagnostic>> {
        let problem = |found: String| {
            Box::new(
                Diagnostic::error("reload::watch", "the scripts' folders cannot be watched")
                    .found(found)
                    .help("train without reloading: `--set scripts.reload=false`"),
            )
        };
        let (sender, receiver) = channel();
        let wake = sender.clone();
        let watches = Watches::new(move || _ = wake.send(Wake::Look)).map_err(|error| problem(error.to_string()))?;
        let pending = Arc::new(Mutex::new(Pending::default()));
        let shared = Arc::clone(&pending);
        let mut candidates = Candidates::new(catalog, also, watches, report);
        // What was saved since the versions in service were stored is ready for the first rollout.
        candidates.look(&shared, false);
        let thread = std::thread::Builder::new()
            .name("reload".to_owned())
            .stack_size(crate::script::STACK_BYTES)
            .spawn(move || watch(&receiver, &shared, &mut candidates))
            .map_err(|error| problem(error.to_string()))?;
        Ok(Self { pending, sender, thread: Some(thread) })
    }

    /// Puts what is ready in service, all at once.
    pub fn take(&self, catalog: &mut Catalog) -> Taken {
        let pending = {
            let mut pending = lock(&self.pending);
            let serving = pending.serving.clone();
            std::mem::replace(&mut *pending, Pending { serving, ..Pending::default() })
        };
        let mut taken = Taken { settings: pending.settings, rejected: pending.rejected, ..Taken::default() };
        for (name, game) in pending.games {
            if catalog.game(&name).is_none_or(|old| old.source == game.source) {
                continue;
            }
            taken.versions.push((name, game.source.version.clone()));
            catalog.replace_game(game);
        }
        for (name, (game, joins)) in pending.offered {
            let version = game.source.version.clone();
            let is_new = catalog.game(&name).is_none_or(|old| old.source != game.source);
            catalog.offer(game);
            let is_played = catalog.games.iter().any(|game| game.name == name);
            if (is_played && is_new) || (joins && catalog.join(&name)) {
                taken.versions.push((name, version));
            }
        }
        let is_other = |old: Option<&Source>, new: &Source| old != Some(new);
        if let Some(nest) = pending.nest {
            let changed = nest.source.iter().filter(|new| is_other(catalog.nest.source.as_ref(), new));
            taken.versions.extend(changed.map(|source| (file_name(&source.path), source.version.clone())));
            catalog.nest = nest;
        }
        if let Some(reward) = pending.reward {
            if is_other(catalog.reward.as_ref().map(|reward| &reward.source), &reward.source) {
                taken.versions.push((file_name(&reward.source.path), reward.source.version.clone()));
            }
            catalog.reward = Some(reward);
        }
        self.note_serving(catalog);
        taken
    }

    /// Notes which versions are in service, for what is told of those that are refused.
    pub fn note_serving(&self, catalog: &Catalog) {
        let serving = catalog.sources().map(|source| (source.path.clone(), source.version.clone())).collect();
        lock(&self.pending).serving = serving;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.sender.send(Wake::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(super) fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(receiver: &Receiver<Wake>, pending: &Mutex<Pending>, candidates: &mut Candidates) {
    let mut wait = POLL;
    loop {
        match receiver.recv_timeout(wait) {
            Ok(Wake::Look) => {
                // Wait until it has been quiet for a while, but not for ever.
                let first = Instant::now();
                while first.elapsed() < MAX_DEBOUNCE {
                    match receiver.recv_timeout(DEBOUNCE) {
                        Ok(Wake::Look) => {}
                        Err(RecvTimeoutError::Timeout) => break,
                        Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        wait = candidates.look(pending, true).map_or(POLL, |soon| soon.min(POLL));
    }
}
