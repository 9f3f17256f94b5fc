//! Arithmetic against plain `f64` loops, stored values of other programs, finite differences and properties. The scripts
//! that made the stored values stand beside them in `data/`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

mod adapter;
mod advantage;
mod ahead;
mod answer;
mod chat;
mod decoder;
mod emulator;
mod fused;
mod loss;
mod nash;
mod optimizer;
mod pages;
mod pytorch;
mod rates;
mod replicas;
mod shared;

/// The repository where the tests run, which need not be where they were built.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}
