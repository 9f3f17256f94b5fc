//! What was saved, tried before it is published: every fallible step comes first, and a failure changes nothing.
//!
//! A file that cannot be used yet may be half written, or gone for the moment that a checkout takes, so a failure is told
//! only when the file has stayed as it is for a while. What works is published at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::config::SettingChange;
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{GameDef, Nest};
use crate::script::{Language, Source, Version, data_hash};

use super::catalog::{Catalog, read_source, same_name};
use super::places::Watches;
use super::settings::{Settings, SettingsFile};
use super::watcher::{Pending, lock};

/// How long a file must stay as it is before its fault is told.
const BROKEN: Duration = Duration::from_millis(200);
/// How long a file must be gone before that is told.
pub(super) const GONE: Duration = Duration::from_secs(1);
/// What came of a saved file.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new version is compiled and checked; the next rollout uses it.
    Ready {
        /// What it is: a game's name, or the file of a nest or reward script.
        name: String,
        /// Its version.
        version: Version,
    },
    /// A new game is compiled and checked; it joins when the nest names it.
    Offered {
        /// Its name.
        name: String,
        /// Its version.
        version: Version,
    },
    /// Settings that the next rollout uses.
    Settings {
        /// What changed.
        changes: Vec<SettingChange>,
    },
    /// Something saved was not taken; what is in service stays.
    Rejected {
        /// What is wrong, with what stays in service.
        problem: Diagnostic,
    },
    /// A file is gone, or changes are noticed late; what is in service stays.
    Warned {
        /// What the author should know.
        problem: Diagnostic,
    },
}

/// What is watched beside the scripts of the catalog.
#[derive(Default)]
pub struct Also {
    /// Folders whose new games join the run at once.
    pub open_folders: Vec<PathBuf>,
    /// The file of settings.
    pub settings: Option<SettingsFile>,
}

/// What a script looks like from outside.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Nothing was tried yet.
    Untried,
    Missing,
    /// It is there and cannot be read as a script.
    Unusable(String),
    /// Version of text and modules, and hashes of the data files.
    Found(Version, BTreeMap<PathBuf, Option<String>>),
}

/// A script file as it was last tried.
#[derive(Debug)]
struct Watched {
    tried: State,
    /// What is not told yet, when the file was written, and since when it is so. A file that is written all the time may
    /// look the same whenever it is looked at.
    waiting: Option<(State, Option<SystemTime>, Instant)>,
    /// The text that could not be stopped, while that waits to be told: each try costs a thread.
    stuck: Option<(Version, Box<Diagnostic>)>,
    /// The data files whose content matters.
    data: BTreeSet<PathBuf>,
    /// A file beside the games that is none of them and has not changed since the run began.
    is_bystander: bool,
}

impl Watched {
    fn new(tried: State, is_bystander: bool) -> Self {
        Self { tried, waiting: None, stuck: None, data: BTreeSet::new(), is_bystander }
    }
}

/// The scripts and settings as last seen.
pub(super) struct Candidates {
    catalog: Catalog,
    scripts: BTreeMap<PathBuf, Watched>,
    open_folders: Vec<PathBuf>,
    /// Games that join without being named.
    joining: BTreeSet<String>,
    settings: Option<Settings>,
    watches: Watches,
    has_complained: bool,
    report: Box<dyn Fn(&Event) + Send>,
}

impl Candidates {
    pub(super) fn new(catalog: &Catalog, also: Also, watches: Watches, report: Box<dyn Fn(&Event) + Send>) -> Self {
        let in_service = |source: &Source| {
            let files = source.data_files().into_values();
            let data: BTreeMap<_, _> = files.map(|file| (file.path, Some(file.hash))).collect();
            let paths = data.keys().cloned().collect();
            let watched = Watched::new(State::Found(source.code_version(), data), false);
            (source.path.clone(), Watched { data: paths, ..watched })
        };
        let mut candidates = Self {
            catalog: catalog.clone(),
            scripts: catalog.sources().map(in_service).collect(),
            open_folders: also.open_folders,
            joining: BTreeSet::new(),
            settings: also.settings.map(Settings::new),
            watches,
            has_complained: false,
            report,
        };
        candidates.discover(true);
        candidates
    }

    /// Reads everything and publishes what is new and passes. With `patience`, what fails is told only when it stays so.
    /// Returns when to look again if something waits for that.
    pub(super) fn look(&mut self, pending: &Mutex<Pending>, patience: bool) -> Option<Duration> {
        self.update_watches();
        self.discover(false);
        // Games first: a nest may name one that was saved with it.
        let mut paths: Vec<PathBuf> = self.scripts.keys().cloned().collect();
        paths.sort_by_key(|path| self.is_nest(path));
        let waits: Vec<Duration> = paths.iter().filter_map(|path| self.look_at(path, pending, patience)).collect();
        let settings = self.settings.as_mut().and_then(|settings| settings.look(pending, patience, &*self.report));
        // What was tried may have opened further files.
        self.update_watches();
        waits.into_iter().chain(settings).min()
    }

    fn update_watches(&mut self) {
        let mut files: BTreeSet<PathBuf> = self.scripts.keys().cloned().collect();
        files.extend(self.scripts.values().flat_map(|watched| watched.data.iter().cloned()));
        files.extend(self.catalog.sources().flat_map(Source::module_files));
        files.extend(self.settings.iter().map(|settings| settings.path().to_owned()));
        let libraries = self.catalog.sources().filter_map(|source| {
            let folder = folder_of(&source.path);
            let start = folder.canonicalize().unwrap_or(folder);
            let all = start.ancestors().map(|above| above.join("scripts").join("lib")).collect::<Vec<_>>();
            all.into_iter().find(|library| library.is_dir())
        });
        let folders: BTreeSet<PathBuf> = self.game_folders().into_iter().chain(libraries).collect();
        if let Some(error) = self.watches.update(&files, &folders)
            && !std::mem::replace(&mut self.has_complained, true)
        {
            let problem = Diagnostic::warning("reload::watch", "some folders cannot be watched")
                .found(error.to_string())
                .note("changes there are noticed within two seconds");
            (self.report)(&Event::Warned { problem });
        }
    }

    fn game_folders(&self) -> BTreeSet<PathBuf> {
        let games = self.catalog.games.iter().chain(&self.catalog.offered);
        games.map(|game| folder_of(&game.source.path)).chain(self.open_folders.iter().cloned()).collect()
    }

    /// Finds scripts beside the games. Those that lie there from the start are left alone until they change, but for
    /// folders that were named as a whole.
    fn discover(&mut self, at_start: bool) {
        let known: BTreeSet<PathBuf> = self.scripts.keys().filter_map(|path| path.canonicalize().ok()).collect();
        for folder in self.game_folders() {
            let is_open = self.open_folders.iter().any(|open| same_folder(open, &folder));
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
                let is_script = Language::of(&path).is_some() && path.is_file() && !is_hidden(&path);
                if !is_script || path.canonicalize().is_ok_and(|path| known.contains(&path)) {
                    continue;
                }
                let is_bystander = at_start && !is_open;
                let tried = if is_bystander { state_of(&path, &BTreeSet::new()).0 } else { State::Untried };
                self.scripts.entry(path).or_insert_with(|| Watched::new(tried, is_bystander));
            }
        }
    }

    fn look_at(&mut self, path: &Path, pending: &Mutex<Pending>, patience: bool) -> Option<Duration> {
        self.notice_opened(path);
        let watched = self.scripts.get_mut(path)?;
        let written = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let (state, source) = state_of(path, &watched.data);
        if state == watched.tried {
            watched.waiting = None;
            return None;
        }
        let is_of_the_run = self.catalog.source_of(path).is_some();
        if state == State::Missing && !is_of_the_run {
            self.scripts.remove(path);
            return None;
        }
        let candidate = source.as_ref().ok().cloned();
        let code = candidate.as_ref().map(Source::code_version);
        let stuck = watched.stuck.take().filter(|(version, _)| code.as_ref() == Some(version));
        let (result, patience_for) = match source {
            Ok(source) => match stuck {
                Some((_, problem)) => (Err(problem), BROKEN),
                None => (self.try_source(path, source, pending), BROKEN),
            },
            Err(_) if state == State::Missing => (Err(Box::new(self.gone(path))), GONE),
            Err(problem) => (Err(problem), BROKEN),
        };
        let state = self.state_after(path, state, candidate.as_ref());
        let watched = self.scripts.get_mut(path)?;
        let problem = match result {
            Ok(event) => {
                (watched.tried, watched.waiting, watched.is_bystander) = (state, None, false);
                (self.report)(&event);
                return None;
            }
            Err(problem) => problem,
        };
        let since = match &watched.waiting {
            Some((before, stamp, since)) if *before == state && *stamp == written => *since,
            _ => Instant::now(),
        };
        let left = patience_for.saturating_sub(since.elapsed());
        if patience && !left.is_zero() {
            watched.waiting = Some((state, written, since));
            watched.stuck = code.filter(|_| problem.code == "script::stuck").map(|code| (code, problem));
            return Some(left);
        }
        (watched.tried, watched.waiting) = (state, None);
        self.refuse(path, *problem, pending);
        None
    }

    /// A version in service may open a file long after it was checked; from then on that file is watched as well.
    fn notice_opened(&mut self, path: &Path) {
        let Some(source) = self.catalog.source_of(path) else { return };
        let files = source.data_files();
        let Some(watched) = self.scripts.get_mut(path) else { return };
        for file in files.into_values() {
            if watched.data.insert(file.path.clone())
                && let State::Found(_, data) = &mut watched.tried
            {
                data.insert(file.path, Some(file.hash));
            }
        }
    }

    /// The state that was tried: the data files that a candidate opened, or wanted to, belong to it even if it failed,
    /// since they may be what is wrong with it.
    fn state_after(&mut self, path: &Path, state: State, candidate: Option<&Source>) -> State {
        let (State::Found(code, _), Some(candidate)) = (&state, candidate) else { return state };
        let mut seen: BTreeMap<PathBuf, Option<String>> =
            candidate.data_files().into_values().map(|file| (file.path, Some(file.hash))).collect();
        let in_service = self.catalog.source_of(path).map(Source::data_files).unwrap_or_default();
        for file in candidate.missed_files().into_iter().chain(in_service.into_values().map(|file| file.path)) {
            seen.entry(file).or_insert_with_key(|file| data_hash(file));
        }
        if let Some(watched) = self.scripts.get_mut(path) {
            watched.data = seen.keys().cloned().collect();
        }
        State::Found(code.clone(), seen)
    }

    fn gone(&self, path: &Path) -> Diagnostic {
        Diagnostic::warning("reload::gone", format!("`{}` is gone", path.display()))
            .at(SourceSpan::file(path))
            .expected("the file that the run was started with")
            .help(format!("bring it back to change `{}` again", self.name_of(path)))
    }

    fn refuse(&self, path: &Path, problem: Diagnostic, pending: &Mutex<Pending>) {
        let name = self.name_of(path);
        let problem = match self.catalog.source_of(path) {
            Some(newest) => {
                let version = lock(pending).serving(path, &name).unwrap_or_else(|| newest.version.clone());
                problem.note(format!("`{name}` keeps serving version {}", version.short()))
            }
            None => problem.note(format!("`{}` does not join the run", path.display())),
        };
        if problem.severity == crate::diag::Severity::Warning {
            (self.report)(&Event::Warned { problem });
        } else {
            lock(pending).rejected.push(problem.clone());
            (self.report)(&Event::Rejected { problem });
        }
    }

    fn is_nest(&self, path: &Path) -> bool {
        self.catalog.nest.source.as_ref().is_some_and(|nest| nest.path == path)
    }

    fn name_of(&self, path: &Path) -> String {
        let mut games = self.catalog.games.iter().chain(&self.catalog.offered);
        let game = games.find(|game| game.source.path == path);
        game.map_or_else(|| file_name(path), |game| game.name.clone())
    }

    /// Compiles and checks a source, then leaves it for the next rollout. Every fallible step comes first.
    fn try_source(&mut self, path: &Path, source: Source, pending: &Mutex<Pending>) -> Result<Event, Box<Diagnostic>> {
        if let Some(old) = self.catalog.source_of(path).filter(|old| old.code_version() == source.code_version()) {
            // Only the data changed: what was opened long after the check belongs to the new version too.
            source.open_again(old);
        }
        let mut games = self.catalog.games.iter().chain(&self.catalog.offered);
        if let Some(old) = games.find(|game| game.source.path == path).cloned() {
            let game = self.catalog.compile_game(&source)?;
            check_identity(&old, &game)?;
            return Ok(self.publish_game(game, pending));
        }
        if self.is_nest(path) {
            let nest = Arc::new(self.compile_nest(&source, pending)?);
            let version = nest.source.as_ref().unwrap_or(&source).version.clone();
            self.catalog.nest = Arc::clone(&nest);
            lock(pending).nest = Some(nest);
            return Ok(Event::Ready { name: file_name(path), version });
        }
        if self.catalog.reward.as_ref().is_some_and(|reward| reward.source.path == path) {
            let reward = Arc::new(self.catalog.compile_reward(source)?);
            let version = reward.source.version.clone();
            self.catalog.reward = Some(Arc::clone(&reward));
            lock(pending).reward = Some(reward);
            return Ok(Event::Ready { name: file_name(path), version });
        }
        let game = self.catalog.compile_game(&source)?;
        self.accept_new_game(path, game, pending)
    }

    /// A nest may name a game that lies beside the others since the start and was not asked for so far.
    fn compile_nest(&mut self, source: &Source, pending: &Mutex<Pending>) -> Result<Nest, Box<Diagnostic>> {
        let result = self.catalog.compile_nest(source);
        if !result.as_ref().is_err_and(|problem| problem.code == "nest::unknown_game") {
            return result;
        }
        let bystanders = self.scripts.iter().filter(|(_, watched)| watched.is_bystander).map(|(path, _)| path.clone());
        for path in bystanders.collect::<Vec<_>>() {
            let game = read_source(&path).and_then(|source| self.catalog.compile_game(&source));
            if let Ok(game) = game
                && source.text.contains(&game.name)
                && let Ok(event) = self.accept_new_game(&path, game, pending)
            {
                if let Some(watched) = self.scripts.get_mut(&path) {
                    watched.is_bystander = false;
                }
                (self.report)(&event);
            }
        }
        self.catalog.compile_nest(source)
    }

    fn accept_new_game(
        &mut self,
        path: &Path,
        game: Arc<GameDef>,
        pending: &Mutex<Pending>,
    ) -> Result<Event, Box<Diagnostic>> {
        if let Some(old) = self.catalog.game(&game.name).cloned() {
            if old.source.path.exists() {
                return Err(same_name(&game, &old));
            }
            // The file was given another name.
            check_identity(&old, &game)?;
            self.scripts.remove(&old.source.path);
        } else if self.open_folders.iter().any(|open| same_folder(open, &folder_of(path))) {
            self.joining.insert(game.name.clone());
        }
        let event = self.publish_game(game, pending);
        // A nest that was refused may have named this game.
        let nest = self.catalog.nest.source.as_ref();
        if let Some(nest) = nest
            && let Some(watched) = self.scripts.get_mut(&nest.path)
            && !matches!(&watched.tried, State::Found(code, _) if *code == nest.code_version())
        {
            watched.tried = State::Untried;
        }
        Ok(event)
    }

    fn publish_game(&mut self, game: Arc<GameDef>, pending: &Mutex<Pending>) -> Event {
        let (name, version) = (game.name.clone(), game.source.version.clone());
        if self.catalog.games.iter().any(|other| other.name == name) {
            self.catalog.replace_game(Arc::clone(&game));
            lock(pending).games.insert(name.clone(), game);
            return Event::Ready { name, version };
        }
        let joins = self.joining.contains(&name);
        self.catalog.offer(Arc::clone(&game));
        lock(pending).offered.insert(name.clone(), (game, joins));
        let is_named = self.catalog.nest.stage_names().is_some_and(|stages| stages.contains(&name));
        if joins || is_named { Event::Ready { name, version } } else { Event::Offered { name, version } }
    }
}

fn check_identity(old: &GameDef, new: &GameDef) -> Result<(), Box<Diagnostic>> {
    if new.name == old.name && new.seats == old.seats {
        return Ok(());
    }
    Err(Box::new(
        Diagnostic::error("reload::identity", "a running game cannot change its name or its seats")
            .at(SourceSpan::file(&new.source.path))
            .expected(format!("`name = \"{}\"` and `seats = {}`", old.name, old.seats))
            .found(format!("`name = \"{}\"` and `seats = {}`", new.name, new.seats))
            .help("start a new run for another game"),
    ))
}

/// What a script looks like now, with its source if it can be read.
fn state_of(path: &Path, data: &BTreeSet<PathBuf>) -> (State, Result<Source, Box<Diagnostic>>) {
    match read_source(path) {
        Ok(source) => {
            let data = data.iter().map(|file| (file.clone(), data_hash(file))).collect();
            (State::Found(source.code_version(), data), Ok(source))
        }
        Err(problem) if !path.exists() => (State::Missing, Err(problem)),
        Err(problem) => (State::Unusable(problem.to_string()), Err(problem)),
    }
}

/// Names that editors give to what they write beside a file.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '#']))
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}
