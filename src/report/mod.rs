//! A finished or running run as a page ([`page`]) or a screen ([`Screen`]). Reads the run directory and nothing else, so that
//! it can look at a run of another process, and takes it as it finds it: half written, resumed, with files missing or
//! damaged. What cannot be read is left out and told. Writes nothing and reads no clock.

mod curves; // metrics.jsonl, also while it grows
mod episodes; // a sample of the stored episodes
mod html; // the page
mod run; // all that a page tells of a run
mod screen; // the screen
mod tokens; // token ids as text
mod versions; // which script version was in service when, and what changed

pub use curves::{Curves, Follower};
pub use html::page;
pub use run::RunView;
pub use screen::Screen;
