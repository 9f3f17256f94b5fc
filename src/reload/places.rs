//! Which folders tell that a file may have changed, and the watching of them.
//!
//! A path leads through folders and links, each of which can be replaced: an editor renames a file into place, a checkout
//! replaces a folder, a deployment points a link elsewhere. So every name along the way is of interest, in the folder that
//! holds it, and a folder that was replaced is watched anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use notify::{RecursiveMode, Watcher as _};

/// Links that are followed along one path.
const MAX_LINKS: usize = 40;

/// What the events are compared with.
#[derive(Default)]
struct Interest {
    /// Paths that decide what is read.
    names: BTreeSet<PathBuf>,
    /// Folders in which every name counts.
    folders: BTreeSet<PathBuf>,
}

impl Interest {
    fn concerns(&self, event: &notify::Event) -> bool {
        // Reading a file is an event of its own on some systems; it must not wake the reader again.
        if event.kind.is_access() {
            return false;
        }
        let counts = |path: &PathBuf| {
            self.names.contains(path) || path.parent().is_some_and(|folder| self.folders.contains(folder))
        };
        event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(counts)
    }
}

/// The watched folders.
pub(super) struct Watches {
    watcher: notify::RecommendedWatcher,
    interest: Arc<Mutex<Interest>>,
    watched: BTreeMap<PathBuf, Identity>,
}

impl Watches {
    /// Nothing is watched yet; `wake` is called for every event that may concern what is watched.
    pub(super) fn new(wake: impl Fn() + Send + 'static) -> notify::Result<Self> {
        let interest: Arc<Mutex<Interest>> = Arc::default();
        let shared = Arc::clone(&interest);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let interest = shared.lock().unwrap_or_else(PoisonError::into_inner);
            // An error may hide an event.
            if event.map_or(true, |event| interest.concerns(&event)) {
                wake();
            }
        })?;
        Ok(Self { watcher, interest, watched: BTreeMap::new() })
    }

    /// Watches these files, and every name in these folders. Called before the files are read, so that no change falls
    /// between. Returns why a folder cannot be watched; others are.
    pub(super) fn update(&mut self, files: &BTreeSet<PathBuf>, folders: &BTreeSet<PathBuf>) -> Option<notify::Error> {
        let mut problem = None;
        // A folder that appears while this goes on holds names that were not seen: look until nothing is new.
        for _ in 0..4 {
            let mut names = BTreeSet::new();
            for path in files.iter().chain(folders) {
                add_trail(path, &mut names, MAX_LINKS);
            }
            let inside: BTreeSet<PathBuf> = folders.iter().map(|folder| absolute(folder)).collect();
            let holders = names.iter().filter_map(|name| name.parent()).map(Path::to_owned);
            let wanted: BTreeSet<PathBuf> = holders.chain(inside.iter().cloned()).collect();
            {
                let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
                *interest = Interest { names, folders: inside };
            }
            let mut is_stable = true;
            self.watched.retain(|folder, _| {
                let is_wanted = wanted.contains(folder);
                if !is_wanted {
                    let _ = self.watcher.unwatch(folder);
                }
                is_wanted
            });
            for folder in wanted {
                let identity = Identity::of(&folder);
                if self.watched.get(&folder) == identity.as_ref() {
                    continue;
                }
                if self.watched.remove(&folder).is_some() {
                    let _ = self.watcher.unwatch(&folder);
                }
                let Some(identity) = identity else { continue };
                match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.watched.insert(folder, identity);
                        is_stable = false;
                    }
                    // Folders far above may be closed to us; what changes there is found without an event.
                    Err(error) if folders.contains(&folder) || files.iter().any(|file| holds(&folder, file)) => {
                        problem = Some(error);
                    }
                    Err(_) => {}
                }
            }
            if is_stable {
                break;
            }
        }
        problem
    }
}

fn holds(folder: &Path, file: &Path) -> bool {
    folder.is_dir() && absolute(file).parent() == Some(folder)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Adds every path whose change may change what `path` leads to: itself, the folders above, and the same for the targets
/// of links along the way.
fn add_trail(path: &Path, names: &mut BTreeSet<PathBuf>, links: usize) {
    let path = absolute(path);
    let mut at = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        at.push(component);
        names.insert(at.clone());
        if let Ok(target) = at.read_link()
            && links > 0
        {
            let target = at.parent().unwrap_or(Path::new("/")).join(target).join(components.as_path());
            return add_trail(&target, names, links - 1);
        }
    }
}

/// Tells a folder from another that later has its name: device, number, and when it was made, since numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64, Option<SystemTime>);

impl Identity {
    #[cfg(unix)]
    fn of(folder: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Self(metadata.dev(), metadata.ino(), metadata.created().ok()))
    }

    #[cfg(not(unix))]
    fn of(folder: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(folder).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Self(0, 0, metadata.created().ok()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_trail_goes_through_links_to_what_they_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("v1/games")).unwrap();
        std::fs::write(root.join("v1/x.lua"), "").unwrap();
        std::os::unix::fs::symlink("v1", root.join("current")).unwrap();
        std::os::unix::fs::symlink("../x.lua", root.join("v1/games/x.lua")).unwrap();
        let mut names = BTreeSet::new();
        add_trail(&root.join("current/games/x.lua"), &mut names, MAX_LINKS);
        for name in ["current", "v1", "v1/games", "v1/games/x.lua", "v1/games/../x.lua"] {
            assert!(names.contains(&root.join(name)), "{name}: {names:?}");
        }
        // A link that leads to itself ends.
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        add_trail(&root.join("loop/x"), &mut names, MAX_LINKS);
    }
}
