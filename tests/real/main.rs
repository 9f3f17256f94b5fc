//! Against a real model and public chat templates, which scripts fetch:
//!
//! ```text
//! scripts/fetch-smollm2.sh models
//! scripts/fetch-templates.sh models/templates
//! GIFT_REAL=models cargo test --release --locked --test real
//! ```
//!
//! Without `GIFT_REAL`, or where a file is not there, a test says so and passes.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what was measured or skipped is told")]

mod smollm2;
mod templates;

use std::path::PathBuf;

/// A file below the folder that `GIFT_REAL` names.
fn fetched(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("GIFT_REAL") else {
        eprintln!("skipped: GIFT_REAL names no folder with fetched models (see tests/real/main.rs)");
        return None;
    };
    let path = PathBuf::from(folder).join(name);
    let path = if path.is_absolute() { path } else { PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path) };
    if !path.exists() {
        eprintln!("skipped: `{}` is not there (see tests/real/main.rs)", path.display());
        return None;
    }
    Some(path)
}

/// A file beside the tests.
fn stored(name: &str) -> serde_json::Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/real/data").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("the stored values")).expect("JSON")
}
