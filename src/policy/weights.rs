//! Weights in and out: random initialization and safetensors files. Used when a model is made, loaded or saved; knows
//! nothing of any backend.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, View};

use super::adapter::PREFIX;
use super::{AdapterConfig, DecoderConfig, Error, NamedTensor, inputs};
use crate::seed::Seed;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Standard deviation of fresh embeddings. Small, because tied embeddings make the logits too: a fresh policy of width 192
/// then has logits of deviation 0.7 and still tries everything.
const EMBEDDING_DEVIATION: f64 = 0.05;

/// Values of a large tensor that come from one stream.
const PART: usize = 1 << 20;

/// Fresh weights: matrices normal with deviation `1 / sqrt(hidden)`, which keeps the size of a normalized input (`LeCun` et
/// al. 1998, section 4.6), norms one, biases
/// zero. GPT-2's fixed 0.02 suits widths above a thousand; at the tiny model's width it leaves
/// attention flat and slows learning by play. Projections that end in the residual stream are scaled by
/// `1 / sqrt(2 layers)`, so that the stream does not grow with depth (Radford et al. 2019, GPT-2, section 2.3). The same
/// seed gives the same weights on every platform.
pub fn initial_weights(config: &DecoderConfig, seed: Seed) -> Vec<NamedTensor> {
    let matrix_deviation = 1.0 / (config.hidden_size as f64).sqrt();
    let residual_scale = 1.0 / (2.0 * config.layer_count as f64).sqrt();
    let tensor = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let count = shape.iter().product();
        if shape.len() == 1 {
            let value = if name.ends_with("_proj.bias") { 0.0 } else { 1.0 };
            return NamedTensor { name, shape, data: vec![value; count] };
        }
        let mut deviation = if name.contains("embed_tokens") { EMBEDDING_DEVIATION } else { matrix_deviation };
        if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            deviation *= residual_scale;
        }
        let seed = seed.child("weights", index as u64);
        let mut data = vec![0.0; count];
        data.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
            let mut stream = if count <= PART { seed } else { seed.child("part", part as u64) }.stream();
            for value in values {
                *value = (stream.normal() * deviation) as f32;
            }
        });
        NamedTensor { name, shape, data }
    };
    // Every tensor has a stream of its own, and so has every part of a large one.
    config.parameters().into_par_iter().enumerate().map(tensor).collect()
}

/// The tensors of a safetensors file as `f32`, sorted by name.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is damaged or holds a type other than `F32`, `F16` and
/// `BF16`.
pub fn read_safetensors(path: &Path) -> Result<Vec<NamedTensor>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        let data = to_f32(&view).ok_or_else(|| {
            refuse(format!("tensor `{name}` has type `{:?}`; expected `F32`, `F16` or `BF16`", view.dtype()))
        })?;
        tensors.push(NamedTensor { name: name.to_owned(), shape: view.shape().to_vec(), data });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The weights of a model in a folder of Hugging Face's layout: `model.safetensors`, or the files that
/// `model.safetensors.index.json` names. Tensors that the shape has no place for are left out where they are known to say
/// nothing more: a last projection beside tied embeddings, and stored rotary frequencies.
///
/// # Errors
/// As [`read_safetensors`]; also [`Error::Format`] for an index that is none, or a folder with weights of another format.
pub fn read_weights(folder: &Path, config: &DecoderConfig) -> Result<Vec<NamedTensor>, Error> {
    let (single, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    let mut tensors = if !single.is_file() && index.is_file() {
        let mut tensors = Vec::new();
        for file in shards(&index)? {
            tensors.extend(read_safetensors(&folder.join(file))?);
        }
        tensors
    } else {
        if !single.is_file() && folder.join("pytorch_model.bin").is_file() {
            let message =
                "the weights are in `pytorch_model.bin`; expected safetensors, which transformers writes with \
                           `save_pretrained`"
                    .to_owned();
            return Err(Error::Format { path: single, message });
        }
        read_safetensors(&single)?
    };
    tensors.retain(|tensor| {
        let is_copy = config.tied_embeddings && tensor.name == "lm_head.weight";
        !is_copy && !tensor.name.ends_with("rotary_emb.inv_freq")
    });
    Ok(tensors)
}

/// The tensors of an adapter from PEFT's file, under our names.
///
/// # Errors
/// As [`read_safetensors`]; also [`Error::Format`] for tensors that are not those of the adapter.
pub fn read_adapter(path: &Path, adapter: &AdapterConfig, config: &DecoderConfig) -> Result<Vec<NamedTensor>, Error> {
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    let mut tensors = read_safetensors(path)?;
    for tensor in &mut tensors {
        if let Some(name) = tensor.name.strip_prefix(PREFIX) {
            tensor.name = name.to_owned();
        }
    }
    adapter.validate(config).map_err(|error| refuse(error.to_string()))?;
    inputs::check_tensors(&adapter.parameters(config), &tensors).map_err(|error| refuse(error.to_string()))?;
    Ok(tensors)
}

/// Writes the tensors of an adapter under PEFT's names.
///
/// # Errors
/// As [`write_safetensors`].
pub fn write_adapter(path: &Path, tensors: &[NamedTensor]) -> Result<(), Error> {
    let rename = |tensor: &NamedTensor| NamedTensor { name: format!("{PREFIX}{}", tensor.name), ..tensor.clone() };
    let tensors: Vec<NamedTensor> = tensors.iter().map(rename).collect();
    write_safetensors(path, &tensors, &[("format".to_owned(), "pt".to_owned())])
}

/// The files that an index names, each once, without any path.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, Error> {
    let refuse = |message: String| Error::Format { path: index.to_owned(), message };
    let bytes = fs::read(index).map_err(|source| Error::Io { path: index.to_owned(), source })?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| refuse("it lacks `weight_map`".to_owned()))?;
    map.values()
        .map(|file| match file.as_str() {
            Some(file) if !file.contains(['/', '\\']) => Ok(file.to_owned()),
            _ => Err(refuse(format!("`weight_map` names {file}, which is no file of this folder"))),
        })
        .collect()
}

/// Writes tensors as `f32`, sorted by name, with `metadata` in the header. The file appears complete or not at all: it is
/// written beside its place, synced and renamed. With at most one entry of metadata the same input gives the same bytes;
/// the format keeps several in no order.
///
/// # Errors
/// [`Error::Io`] if it cannot be written; [`Error::Format`] if a shape does not fit its data or two names are the same.
pub fn write_safetensors(path: &Path, tensors: &[NamedTensor], metadata: &[(String, String)]) -> Result<(), Error> {
    let refuse = |message: String| Error::Format { path: path.to_owned(), message };
    let mut names = BTreeSet::new();
    for tensor in tensors {
        let (name, size) = (&tensor.name, tensor.shape.iter().product::<usize>());
        if size != tensor.data.len() {
            let found = tensor.data.len();
            return Err(refuse(format!("tensor `{name}` of shape {:?} has {found} values", tensor.shape)));
        }
        if !names.insert(name) {
            return Err(refuse(format!("tensor `{name}` is given twice")));
        }
    }
    let header: HashMap<_, _> = metadata.iter().cloned().collect();
    let header = (!header.is_empty()).then_some(header);
    let mut file_name = path.file_name().unwrap_or_default().to_owned();
    file_name.push(".partial");
    let beside = path.with_file_name(file_name);
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), Bytes(tensor)));
    safetensors::serialize_to_file(views, header, &beside).map_err(|error| match error {
        SafeTensorError::IoError(source) => failed(source),
        other => refuse(other.to_string()),
    })?;
    publish(&beside, path).map_err(failed)
}

/// A tensor whose bytes are made when they are written, so that saving a model needs no second copy of it.
struct Bytes<'a>(&'a NamedTensor);

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.data.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

/// Makes a complete file durable and moves it to its place.
fn publish(beside: &Path, path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(beside)?.sync_all()?;
    fs::rename(beside, path)?;
    // The rename itself is lasting only once the folder is synced; not every system lets a folder be opened for that.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(File::open);
    if let Some(Ok(folder)) = folder {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The values of a tensor, or `None` for a type that is not a float of ours.
fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    let (pairs, _) = bytes.as_chunks::<2>();
    match view.dtype() {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()),
        Dtype::BF16 => {
            Some(pairs.iter().map(|&value| f32::from_bits(u32::from(u16::from_le_bytes(value)) << 16)).collect())
        }
        Dtype::F16 => Some(pairs.iter().map(|&value| f16_to_f32(u16::from_le_bytes(value))).collect()),
        _ => None,
    }
}

/// IEEE 754 binary16 to binary32, exactly.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let (exponent, fraction) = (u32::from(half >> 10) & 0x1f, u32::from(half) & 0x3ff);
    let magnitude = match exponent {
        // Zero and subnormal numbers: the fraction counts steps of 2^-24.
        0 => (fraction as f32 / 16_777_216.0).to_bits(),
        0x1f => 0x7f80_0000 | (fraction << 13),
        _ => ((exponent + 127 - 15) << 23) | (fraction << 13),
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn initial_weights_follow_their_distribution_and_seed() {
        let config = DecoderConfig::tiny(260);
        let weights = initial_weights(&config, Seed::new(1));
        assert_eq!(weights, initial_weights(&config, Seed::new(1)));
        let listed: Vec<_> = weights.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        assert_eq!(listed, config.parameters());
        for tensor in &weights {
            let count = tensor.data.len() as f64;
            let deviation = (tensor.data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count).sqrt();
            let expected = match tensor.shape.len() {
                1 => 1.0,
                _ if tensor.name.contains("embed") => 0.05,
                _ if tensor.name.contains("o_proj") || tensor.name.contains("down") => 192_f64.powf(-0.5) / 2.0,
                _ => 192_f64.powf(-0.5),
            };
            // The smallest matrix has 8192 values: five standard errors of its deviation are 4 %.
            assert!((deviation / expected - 1.0).abs() < 0.04, "{}: {deviation}", tensor.name);
        }
    }

    #[test]
    fn a_written_file_reads_back_the_same_and_is_the_same_twice() {
        let folder = folder();
        let path = folder.path().join("model.safetensors");
        let mut tensors = initial_weights(&DecoderConfig::tiny(7), Seed::new(2));
        let metadata = [("format".to_owned(), "pt".to_owned())];
        write_safetensors(&path, &tensors, &metadata).expect("written");
        let first = fs::read(&path).expect("there");
        tensors.reverse();
        write_safetensors(&path, &tensors, &metadata).expect("written");
        assert_eq!(first, fs::read(&path).expect("there"));
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(read_safetensors(&path).expect("read"), tensors);
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn damaged_files_are_refused_without_a_panic() {
        let folder = folder();
        let path = folder.path().join("model.safetensors");
        let tensor = NamedTensor { name: "a".to_owned(), shape: vec![2, 2], data: vec![1.0; 4] };
        write_safetensors(&path, &[tensor], &[]).expect("written");
        let whole = fs::read(&path).expect("there");
        let overlong = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
        let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
        for bytes in cut.chain([overlong]) {
            fs::write(&path, &bytes).expect("written");
            let result = read_safetensors(&path);
            assert!(matches!(result, Err(Error::Format { .. })), "{} bytes gave {result:?}", bytes.len());
        }
        assert!(matches!(read_safetensors(&folder.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_wrong_shape_and_a_name_given_twice_are_refused() {
        let path = folder().path().join("model.safetensors");
        let tensor = |name: &str, shape: &[usize]| NamedTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: vec![0.0; 4],
        };
        let wrong = write_safetensors(&path, &[tensor("a", &[3])], &[]);
        assert!(matches!(wrong, Err(Error::Format { .. })), "{wrong:?}");
        let twice = write_safetensors(&path, &[tensor("a", &[4]), tensor("a", &[4])], &[]);
        assert!(matches!(twice, Err(Error::Format { .. })), "{twice:?}");
    }

    #[test]
    fn half_precision_is_widened_exactly() {
        let cases = [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (half, expected) in cases {
            assert_eq!(f16_to_f32(half).to_bits(), f32::to_bits(expected), "{half:#x}");
        }
        assert!(f16_to_f32(0x7c01).is_nan() && f16_to_f32(0xfc00) == f32::NEG_INFINITY);
    }
}
