//! Watches the scripts of a run, their data and its settings, compiles and checks what was saved, and publishes it for the
//! next rollout. A version that fails changes nothing: the old one stays in service and the author is told why.

mod candidates; // what was saved, tried before it is published
mod catalog; // the versions in service
mod places; // which folders tell that a file may have changed
mod settings; // settings that change while a run goes on
mod watcher; // the thread that looks

pub use candidates::{Also, Event};
pub use catalog::{Catalog, GameFile, read_source};
pub use settings::SettingsFile;
pub use watcher::{Taken, Watcher};
