//! The cache of the Hub's files as Hugging Face's programs lay it out: contents under their checksums in `blobs`, links to them
//! by commit and file name in `snapshots`, and the commit of a branch in `refs`.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{HubError, HubName};

/// How often a file that another process is fetching is looked for: in ten minutes.
const LOCK_TRIES: u32 = 3000;
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// The part of the cache that belongs to one repository.
pub(super) struct Cache {
    /// `hub` in Hugging Face's folder.
    hub: PathBuf,
    /// The repository's folder.
    folder: PathBuf,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    move |source| HubError::Io { path, source }
}

/// Hugging Face's folder.
pub(super) fn home() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HF_HOME").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        cache.unwrap_or_default().join("huggingface")
    })
}

impl Cache {
    pub(super) fn from_environment(name: &HubName) -> Self {
        let own = std::env::var_os("HF_HUB_CACHE").filter(|value| !value.is_empty());
        let hub = own.map_or_else(|| home().join("hub"), PathBuf::from);
        let folder = hub.join(format!("models--{}", name.repository.replace('/', "--")));
        Self { hub, folder }
    }

    /// The folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The folder that a branch, tag or commit had when it was last fetched.
    pub(super) fn snapshot_of(&self, revision: &str) -> Option<PathBuf> {
        let reference = fs::read(self.folder.join("refs").join(revision)).ok();
        let commit = match reference {
            Some(bytes) => String::from_utf8(bytes).ok()?.trim().to_owned(),
            None => revision.to_owned(),
        };
        is_commit(&commit).then(|| self.snapshot(&commit)).filter(|folder| folder.is_dir())
    }

    /// Notes the commit of a branch or tag.
    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(io(&path))?;
        fs::write(&path, commit).map_err(io(&path))
    }

    /// Where a content lies, and where it grows while it is fetched.
    pub(super) fn blob(&self, etag: &str) -> (PathBuf, PathBuf) {
        let blobs = self.folder.join("blobs");
        (blobs.join(etag), blobs.join(format!("{etag}.incomplete")))
    }

    /// Opens the growing content, and waits for another process that fetches it.
    pub(super) fn open(&self, etag: &str) -> Result<(File, File), HubError> {
        let (_, growing) = self.blob(etag);
        let locks = self.hub.join(".locks").join(self.folder.file_name().unwrap_or_default());
        for folder in [growing.parent().unwrap_or(&self.folder), &locks] {
            fs::create_dir_all(folder).map_err(io(folder))?;
        }
        let lock_path = locks.join(format!("{etag}.lock"));
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(io(&lock_path))?;
        let mut tries = 0;
        while let Err(error) = lock.try_lock() {
            tries += 1;
            match error {
                fs::TryLockError::Error(source) => return Err(HubError::Io { path: lock_path, source }),
                fs::TryLockError::WouldBlock if tries == LOCK_TRIES => {
                    let source = std::io::Error::other("another process has held it for ten minutes");
                    return Err(HubError::Io { path: lock_path, source });
                }
                fs::TryLockError::WouldBlock => std::thread::sleep(LOCK_PAUSE),
            }
        }
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&growing);
        Ok((file.map_err(io(&growing))?, lock))
    }

    /// The fetched content gets its name.
    pub(super) fn complete(&self, etag: &str) -> Result<(), HubError> {
        let (blob, growing) = self.blob(etag);
        fs::rename(&growing, &blob).map_err(io(&blob))
    }

    /// Forgets a content that turned out wrong.
    pub(super) fn discard(&self, etag: &str) {
        let _ = fs::remove_file(self.blob(etag).1);
    }

    /// Puts a content under its file name into the folder of a commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let folder = self.snapshot(commit);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        let place = folder.join(file);
        // A link into nowhere is there without existing.
        if place.is_file() {
            return Ok(());
        }
        let _ = fs::remove_file(&place);
        link_or_copy(Path::new("../../blobs").join(etag).as_path(), &self.blob(etag).0, &place).map_err(io(&place))
    }

    /// Whether a file of a commit is there.
    pub(super) fn has(&self, commit: &str, file: &str) -> bool {
        self.snapshot(commit).join(file).is_file()
    }
}

#[cfg(unix)]
fn link_or_copy(relative: &Path, _blob: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(relative, place)
}

#[cfg(not(unix))]
fn link_or_copy(_relative: &Path, blob: &Path, place: &Path) -> std::io::Result<()> {
    fs::copy(blob, place).map(|_| ())
}

/// Whether a text is the name of a commit, and so of a folder.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
