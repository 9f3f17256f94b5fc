//! The compiled scripts of a thread, by version, path, limits and library: an episode finds its script ready, and an
//! episode of an older version keeps finding that one. Not shared between threads: virtual machines stay on theirs.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::data::DataFiles;
use super::{Library, Limits, Script, Source, Version, engine};
use crate::diag::Diagnostic;

/// Most compiled scripts a thread keeps; the one that was not used for longest goes first.
const MAX_SCRIPTS: usize = 32;

struct Entry {
    text: Arc<str>,
    version: Version,
    path: PathBuf,
    /// The rows that it sees.
    opened: DataFiles,
    limits: Limits,
    library: Library,
    script: Rc<dyn Script>,
}

thread_local! {
    /// In order of use, the last used last.
    static SCRIPTS: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Runs `use_it` with the source's script, compiled at the first use by this thread. May be nested, also for one script.
///
/// The thread needs a stack of [`super::STACK_BYTES`]: scripts may recurse through library functions.
///
/// # Errors
/// What [`super::ScriptEngine::compile`] says of the source.
pub fn with_script<R>(
    source: &Source,
    limits: &Limits,
    library: &Library,
    use_it: impl FnOnce(&dyn Script) -> R,
) -> Result<R, Box<Diagnostic>> {
    let matches = |entry: &Entry| {
        // Clones of a source share its text; the names are compared as they are written, not part by part.
        (Arc::ptr_eq(&entry.text, &source.text) || entry.text == source.text)
            && entry.version == source.version
            && entry.path.as_os_str() == source.path.as_os_str()
            && entry.opened.same(&source.opened)
            && entry.limits == *limits
            && entry.library.same(library)
    };
    let found = SCRIPTS.with_borrow_mut(|scripts| {
        let at = scripts.iter().rposition(matches)?;
        let script = Rc::clone(&scripts[at].script);
        if at + 1 < scripts.len() {
            scripts[at..].rotate_left(1);
        }
        Some(script)
    });
    let script = match found {
        Some(script) => script,
        None => compile(source, limits, library)?,
    };
    Ok(use_it(&*script))
}

fn compile(source: &Source, limits: &Limits, library: &Library) -> Result<Rc<dyn Script>, Box<Diagnostic>> {
    let script: Rc<dyn Script> = Rc::from(engine(source.language).compile(source, limits, library)?);
    let entry = Entry {
        text: Arc::clone(&source.text),
        version: source.version.clone(),
        path: source.path.clone(),
        opened: source.opened.clone(),
        limits: limits.clone(),
        library: library.clone(),
        script: Rc::clone(&script),
    };
    let oldest = SCRIPTS.with_borrow_mut(|scripts| {
        scripts.push(entry);
        (scripts.len() > MAX_SCRIPTS).then(|| scripts.remove(0))
    });
    // Closing a virtual machine takes time and must not happen while the list is borrowed.
    drop(oldest);
    Ok(script)
}
