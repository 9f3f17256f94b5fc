//! GGUF files, as llama.cpp has them, in and out: one file with the shape, the weights and the tokenizer of a model. Used
//! when a model is loaded or exported; no run trains from one.

mod bytes; // the container: metadata, then tensors
mod names; // what both directions know of the names in such files
mod read; // a model from a file
mod write; // a file from a model

pub use read::{prefers_quantized, read_gguf, read_quantized};
pub use write::{GgufType, write_gguf};
