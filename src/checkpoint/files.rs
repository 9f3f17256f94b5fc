//! File access with the path in every error.
#![expect(clippy::disallowed_methods, reason = "the wrappers that other rooms are to use instead")]

use std::io::Write;
use std::path::{Path, PathBuf};

/// The room's failures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read, written or renamed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The policy's tensors cannot be read or written.
    #[error(transparent)]
    Policy(#[from] crate::policy::Error),
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// The text of a file.
///
/// # Errors
/// [`Error::Io`].
pub fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(io("read", path))
}

/// Writes a file and waits until the disk has it.
///
/// # Errors
/// [`Error::Io`].
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    write_bytes(path, text.as_bytes())
}

pub(super) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = std::fs::File::create(path).map_err(io("write", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", path))
}

/// Writes a file beside, then renames it over the old one: whoever reads sees the old text or the new one.
///
/// # Errors
/// [`Error::Io`].
pub fn replace_text(path: &Path, text: &str) -> Result<(), Error> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.partial"));
    write_text(&beside, text)?;
    rename(&beside, path)
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`Error::Io`].
pub fn create_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(io("create", path))
}

/// Removes a folder with all it holds, if it is there.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_folder(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Moves a file or folder to its place, lastingly.
///
/// # Errors
/// [`Error::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(io("rename", from))?;
    // The rename itself must reach the disk; folders cannot be synced everywhere, and then nothing is lost but safety
    // against a power cut.
    if let Some(folder) = to.parent()
        && let Ok(folder) = std::fs::File::open(folder)
    {
        let _ = folder.sync_all();
    }
    Ok(())
}

pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(io("read", folder))?;
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
}
