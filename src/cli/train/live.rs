//! `train --watch`: the screen of `gift-host watch` in the process that trains. It reads the run directory as any other process
//! would, on a thread of its own; the log is kept while it is up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::super::output::log;
use super::super::{logging, watch};

/// The screen while it is up; taking it down gives the terminal back.
pub(super) struct Live {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Puts the screen up. Leaving it with `q` goes on with plain lines; Ctrl-C interrupts the run as without a screen.
    pub(super) fn start(folder: &Path, interrupt: &Arc<AtomicBool>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (folder, interrupt, flag) = (folder.to_owned(), Arc::clone(interrupt), Arc::clone(&stop));
        logging::hold();
        let thread = std::thread::spawn(move || {
            let left = watch::show_run(&folder, &flag);
            logging::release();
            match left {
                Ok(watch::Left::Interrupted) => super::interrupted(&interrupt),
                Ok(watch::Left::Quit | watch::Left::Stopped) => {}
                Err(problem) => log(&format!("warning: the terminal cannot be used: {problem}")),
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the screen has restored the terminal, and is no reason to lose the run.
            let _ = thread.join();
        }
        logging::release();
    }
}
