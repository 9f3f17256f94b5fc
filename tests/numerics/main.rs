//! Arithmetic against plain `f64` loops, stored values of other programs, finite differences and properties. The scripts
//! that made the stored values stand beside them in `data/`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adapter;
mod advantage;
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
mod shared;
