//! The container of a GGUF file (version 3): metadata by key, the shapes and places of tensors, then their bytes, each from a
//! multiple of [`ALIGNMENT`] on. Little-endian throughout. Tensors are made and written one at a time, so that an export needs
//! no second copy of the model.

use std::io::{Result, Write};

/// Tensors begin at multiples of this, in bytes.
const ALIGNMENT: u64 = 32;

/// A value of the metadata.
pub(super) enum Meta {
    Number(u32),
    Float(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Kinds(Vec<i32>),
}

/// A tensor to come: its name, shape (outermost first), the number of its type and its size in bytes.
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) kind: u32,
    pub(super) size: u64,
}

/// Writes everything before the tensors' bytes.
pub(super) fn write_header(out: &mut dyn Write, metadata: &[(String, Meta)], tensors: &[TensorInfo]) -> Result<()> {
    let mut header = Vec::new();
    header.extend(b"GGUF");
    header.extend(3_u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        add_text(&mut header, key);
        add_value(&mut header, value);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        add_text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        // The innermost size comes first.
        tensor.shape.iter().rev().for_each(|&size| header.extend((size as u64).to_le_bytes()));
        header.extend(tensor.kind.to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += tensor.size.next_multiple_of(ALIGNMENT);
    }
    pad(&mut header);
    out.write_all(&header)
}

/// Writes the bytes of a tensor, filled up to where the next one begins.
pub(super) fn write_tensor(out: &mut dyn Write, mut bytes: Vec<u8>) -> Result<()> {
    pad(&mut bytes);
    out.write_all(&bytes)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize((bytes.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
}

fn add_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

fn add_value(bytes: &mut Vec<u8>, value: &Meta) {
    // The numbers of the types in the format.
    const NUMBER: u32 = 4;
    const SIGNED: u32 = 5;
    const FLOAT: u32 = 6;
    const FLAG: u32 = 7;
    const TEXT: u32 = 8;
    const LIST: u32 = 9;
    match value {
        Meta::Number(number) => {
            bytes.extend(NUMBER.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Meta::Float(number) => {
            bytes.extend(FLOAT.to_le_bytes());
            bytes.extend(number.to_le_bytes());
        }
        Meta::Flag(flag) => {
            bytes.extend(FLAG.to_le_bytes());
            bytes.push(u8::from(*flag));
        }
        Meta::Text(text) => {
            bytes.extend(TEXT.to_le_bytes());
            add_text(bytes, text);
        }
        Meta::Texts(texts) => {
            bytes.extend([LIST, TEXT].map(u32::to_le_bytes).concat());
            bytes.extend((texts.len() as u64).to_le_bytes());
            for text in texts {
                add_text(bytes, text);
            }
        }
        Meta::Kinds(kinds) => {
            bytes.extend([LIST, SIGNED].map(u32::to_le_bytes).concat());
            bytes.extend((kinds.len() as u64).to_le_bytes());
            for kind in kinds {
                bytes.extend(kind.to_le_bytes());
            }
        }
    }
}
