//! Watches the scripts of a run, compiles and checks what was saved, and publishes it for the next rollout. A version that
//! fails changes nothing: the old one stays in service and the author is told why.

mod catalog; // the versions in service
mod watcher; // from saved files to checked candidates

pub use catalog::{Catalog, GameFile, read_source};
pub use watcher::{Event, Watcher};
