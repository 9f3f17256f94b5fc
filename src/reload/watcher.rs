//! From saved files to checked candidates, on a thread of its own.
//!
//! The folders of the scripts are watched, not the files: editors write beside and rename, and a checkout replaces whole
//! folders. An event only wakes the thread, which reads every script again and compares versions, so no kind of event can
//! be misread; now and then it looks without an event, for file systems that send none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

use crate::diag::Diagnostic;
use crate::game::{GameDef, Nest, RewardScript};
use crate::script::Version;

use super::catalog::{Catalog, read_source};

/// Quiet time after an event before files are read: a save is often several events.
const DEBOUNCE: Duration = Duration::from_millis(30);
/// Time between two looks without an event.
const POLL: Duration = Duration::from_secs(2);

/// What came of a saved script.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new version is compiled and checked; the next rollout uses it.
    Ready {
        /// What it is: a game's name, or the file of a nest or reward script.
        name: String,
        /// Its version.
        version: Version,
    },
    /// A saved version failed; the one in service stays.
    Rejected {
        /// What is wrong, with what stays in service.
        problem: Diagnostic,
    },
}

/// What is ready for the next rollout.
#[derive(Default)]
struct Pending {
    games: BTreeMap<String, Arc<GameDef>>,
    nest: Option<Arc<Nest>>,
    reward: Option<Arc<RewardScript>>,
}

/// Watches the scripts of a catalog until it is dropped.
pub struct Watcher {
    pending: Arc<Mutex<Pending>>,
    // Dropping the file system watcher closes the channel, which ends the thread.
    files: Option<notify::RecommendedWatcher>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching. `report` is called on the watching thread, for every save that changes a script.
    ///
    /// # Errors
    /// A [`Diagnostic`] if the folders cannot be watched.
    pub fn start(catalog: &Catalog, report: Box<dyn Fn(&Event) + Send>) -> Result<Self, Box<Diagnostic>> {
        let problem = |error: notify::Error| {
            Box::new(
                Diagnostic::error("reload::watch", "the scripts' folders cannot be watched")
                    .found(error.to_string())
                    .help("train without reloading: `--set scripts.reload=false`"),
            )
        };
        let (sender, receiver) = channel();
        let wake: Sender<()> = sender;
        let mut files = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event of its own on some systems; it must not wake the reader again.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = wake.send(());
            }
        })
        .map_err(problem)?;
        for folder in folders(catalog) {
            files.watch(&folder, RecursiveMode::NonRecursive).map_err(problem)?;
        }
        let pending = Arc::new(Mutex::new(Pending::default()));
        let shared = Arc::clone(&pending);
        let mut state = Candidates { seen: catalog.versions(), catalog: catalog.clone(), report };
        // What was saved since the versions in service were stored is ready for the first rollout.
        state.look(&shared);
        let thread = std::thread::Builder::new()
            .name("reload".to_owned())
            .stack_size(crate::script::STACK_BYTES)
            .spawn(move || watch(&receiver, &shared, &mut state))
            .map_err(|error| problem(notify::Error::io(error)))?;
        Ok(Self { pending, files: Some(files), thread: Some(thread) })
    }

    /// Puts what is ready in service; returns the names and versions of what changed.
    pub fn take(&self, catalog: &mut Catalog) -> Vec<(String, Version)> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let mut changes = Vec::new();
        for (name, game) in pending.games {
            changes.push((name, game.source.version.clone()));
            catalog.replace_game(game);
        }
        if let Some(nest) = pending.nest {
            changes.extend(nest.source.iter().map(|source| (file_name(&source.path), source.version.clone())));
            catalog.nest = nest;
        }
        if let Some(reward) = pending.reward {
            changes.push((file_name(&reward.source.path), reward.source.version.clone()));
            catalog.reward = Some(reward);
        }
        changes
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(receiver: &Receiver<()>, pending: &Mutex<Pending>, state: &mut Candidates) {
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(()) => {
                // Wait until it has been quiet for a while, but not for ever.
                for _ in 0..20 {
                    match receiver.recv_timeout(DEBOUNCE) {
                        Ok(()) => {}
                        Err(RecvTimeoutError::Timeout) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        state.look(pending);
    }
}

/// The scripts as last seen.
struct Candidates {
    catalog: Catalog,
    seen: BTreeMap<PathBuf, Version>,
    report: Box<dyn Fn(&Event) + Send>,
}

impl Candidates {
    fn look(&mut self, pending: &Mutex<Pending>) {
        for path in self.seen.keys().cloned().collect::<Vec<_>>() {
            // A file that is gone for the moment is being replaced; the version in service stays.
            let Ok(source) = read_source(&path) else { continue };
            if self.seen.get(&path) == Some(&source.version) {
                continue;
            }
            let version = source.version.clone();
            self.seen.insert(path.clone(), version.clone());
            let name = self.name_of(&path);
            let event = match self.compile(&path, source, pending) {
                Ok(()) => Event::Ready { name, version },
                Err(problem) => {
                    let kept =
                        self.catalog.versions().get(&path).map_or_else(String::new, |kept| kept.short().to_owned());
                    Event::Rejected { problem: problem.note(format!("`{name}` keeps serving version {kept}")) }
                }
            };
            (self.report)(&event);
        }
    }

    fn name_of(&self, path: &Path) -> String {
        let game = self.catalog.games.iter().find(|game| game.source.path == path);
        game.map_or_else(|| file_name(path), |game| game.name.clone())
    }

    /// Compiles and checks a source, then leaves it for the next rollout. Every fallible step comes first.
    fn compile(
        &mut self,
        path: &Path,
        source: crate::script::Source,
        pending: &Mutex<Pending>,
    ) -> Result<(), Box<Diagnostic>> {
        let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = self.catalog.games.iter().find(|game| game.source.path == path) {
            let game = self.catalog.compile_game(&source)?;
            if game.name != old.name || game.seats != old.seats {
                return Err(Box::new(
                    Diagnostic::error("reload::identity", "a running game cannot change its name or its seats")
                        .at(crate::diag::SourceSpan::file(path))
                        .expected(format!("`name = \"{}\"` and `seats = {}`", old.name, old.seats))
                        .found(format!("`name = \"{}\"` and `seats = {}`", game.name, game.seats))
                        .help("start a new run for another game"),
                ));
            }
            self.catalog.replace_game(Arc::clone(&game));
            lock().games.insert(game.name.clone(), game);
        } else if self.catalog.nest.source.as_ref().is_some_and(|nest| nest.path == path) {
            let nest = Arc::new(self.catalog.compile_nest(&source)?);
            self.catalog.nest = Arc::clone(&nest);
            lock().nest = Some(nest);
        } else {
            let reward = Arc::new(self.catalog.compile_reward(source)?);
            self.catalog.reward = Some(Arc::clone(&reward));
            lock().reward = Some(reward);
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// The folders that hold the scripts and the modules that they load.
fn folders(catalog: &Catalog) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in catalog.versions().keys() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if folder.is_dir() {
            folders.insert(folder.to_owned());
        }
        let start = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let library = start.ancestors().map(|above| above.join("scripts").join("lib")).find(|library| library.is_dir());
        folders.extend(library);
    }
    folders
}
