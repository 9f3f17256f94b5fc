//! The data files that a script has opened. A version of a script keeps the rows that it saw first: whichever thread
//! compiles it later gets the same ones, and a changed file comes into service with a new version only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::library::Dataset;

/// What all copies of one source have opened. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(super) struct DataFiles {
    opened: Arc<Mutex<Opened>>,
}

#[derive(Default)]
struct Opened {
    /// By the name that the script uses.
    files: BTreeMap<String, DataFile>,
    /// Files that were asked for and could not be read.
    missed: BTreeSet<PathBuf>,
}

/// A data file as a script saw it.
#[derive(Clone)]
pub struct DataFile {
    /// The file.
    pub path: PathBuf,
    /// The first 16 hexadecimal digits of the SHA-256 of its content.
    pub hash: String,
    rows: Arc<Dataset>,
}

impl DataFile {
    /// The file's content, if it is small enough to be kept beside the rows.
    pub fn content(&self) -> Option<&[u8]> {
        self.rows.content()
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile").field("path", &self.path).field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl DataFiles {
    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether both are clones of one.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opened, &other.opened)
    }

    /// The rows that go by this name, if it was opened before.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Dataset>> {
        self.lock().files.get(name).map(|file| Arc::clone(&file.rows))
    }

    /// Opens a file under a name; who comes later gets the rows of who came first.
    pub(super) fn open(&self, name: &str, path: &Path) -> Result<Arc<Dataset>, String> {
        let rows = Dataset::open(path).inspect_err(|_| self.miss(path))?;
        Ok(Arc::clone(&self.keep(name, path, rows).rows))
    }

    /// Gives a name the rows of `content`, a copy of what `path` held, if that has this hash; false if not.
    pub(super) fn pin(&self, name: &str, path: &Path, content: &Path, hash: &str) -> bool {
        match Dataset::open(content) {
            Ok(rows) if rows.hash() == hash => {
                self.keep(name, path, rows);
                true
            }
            _ => false,
        }
    }

    fn keep(&self, name: &str, path: &Path, rows: Arc<Dataset>) -> DataFile {
        let file = DataFile { path: path.to_owned(), hash: rows.hash().to_owned(), rows };
        self.lock().files.entry(name.to_owned()).or_insert(file).clone()
    }

    /// Remembers a file that could not be read: the script may work once it is there.
    pub(super) fn miss(&self, path: &Path) {
        self.lock().missed.insert(path.to_owned());
    }

    /// The files that were opened, by name.
    pub(super) fn files(&self) -> BTreeMap<String, DataFile> {
        self.lock().files.clone()
    }

    /// The files that were asked for and could not be read.
    pub(super) fn missed(&self) -> BTreeSet<PathBuf> {
        self.lock().missed.clone()
    }
}

impl fmt::Debug for DataFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.lock().files.iter().map(|(name, file)| (name.clone(), file.hash.clone()))).finish()
    }
}
