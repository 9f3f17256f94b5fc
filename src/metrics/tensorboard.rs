//! TensorBoard event files: the figures of `metrics.jsonl` as scalars, versions of scripts as texts. The few protocol
//! buffer messages that this takes are written by hand; `scripts/interop/check_tensorboard.py` reads a run's files with
//! TensorBoard itself and compares them with `metrics.jsonl`.
//!
//! Framing: TensorFlow's `TFRecord` (length, masked CRC-32C of the length, data, masked CRC-32C of the data). Messages:
//! `Event`, `Summary` and `SessionLog` of `tensorboard/compat/proto/{event,summary}.proto`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Error, MetricSink, MetricValue, Record, access};

/// The time in seconds since 1970, which event files must carry; given by `cli`, the only room with a clock.
pub type Clock = Box<dyn FnMut() -> f64 + Send>;

/// `data_type` of strings in TensorFlow's `types.proto`.
const DT_STRING: u64 = 7;
/// `SessionLog::START`.
const SESSION_START: u64 = 1;

/// Writes an event file.
pub struct TensorBoardSink {
    path: PathBuf,
    file: File,
    clock: Clock,
    /// The last text of each tag: a version that did not change is not written again.
    texts: BTreeMap<String, String>,
}

impl std::fmt::Debug for TensorBoardSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorBoardSink").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TensorBoardSink {
    /// A sink for a new event file in `directory`. A run that resumes after step `last` says so, and TensorBoard
    /// drops what earlier files hold of later steps.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be made.
    pub fn create(directory: &Path, last: Option<u64>, mut clock: Clock) -> Result<Self, Error> {
        let now = clock();
        let (path, file) = new_file(directory, now)?;
        let mut sink = Self { path, file, clock, texts: BTreeMap::new() };
        sink.append(&event(now, 0, |event| event.bytes(3, b"brain.Event:2")))?;
        // TensorBoard drops what it read of the steps from that of a START event on, but takes the very first one as
        // the beginning: a new run must have one too.
        let first = last.map_or(0, |last| last + 1);
        sink.append(&event(now, first, |event| event.message(7, |log| log.integer(1, SESSION_START))))?;
        Ok(sink)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Error> {
        let record = frame(data);
        self.file.write_all(&record).and_then(|()| self.file.flush()).map_err(access(&self.path))
    }
}

impl MetricSink for TensorBoardSink {
    fn write(&mut self, record: &Record) -> Result<(), Error> {
        let now = (self.clock)();
        let texts = &mut self.texts;
        let data = event(now, record.step(), |event| {
            event.message(5, |summary| {
                for (tag, value) in record.iter() {
                    match value {
                        MetricValue::Count(count) => scalar(summary, tag, *count as f32),
                        MetricValue::Number(number) if number.is_finite() => scalar(summary, tag, *number as f32),
                        MetricValue::Number(_) => {} // a gap in the curve
                        MetricValue::Text(new) => {
                            if texts.get(tag) != Some(new) {
                                texts.insert(tag.to_owned(), new.clone());
                                text(summary, tag, new);
                            }
                        }
                    }
                }
            });
        });
        self.append(&data)
    }
}

/// A new file whose name sorts after those of earlier seconds, since TensorBoard reads a directory's files by name.
fn new_file(directory: &Path, now: f64) -> Result<(PathBuf, File), Error> {
    let mut number = 0;
    loop {
        let path = directory.join(format!("events.out.tfevents.{:010}.gift-host.{number:03}", now as u64));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(Error::Io { path, source }),
            Ok(file) => return Ok((path, file)),
        }
    }
}

/// `Event { wall_time: 1, step: 2, … }`.
fn event(time: f64, step: u64, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, time);
    event.integer(2, step);
    fill(&mut event);
    event.0
}

/// `Summary.Value { tag: 1, simple_value: 2 }`.
fn scalar(summary: &mut Message, tag: &str, value: f32) {
    summary.message(1, |entry| {
        entry.bytes(1, tag.as_bytes());
        entry.float(2, value);
    });
}

/// `Summary.Value { tag: 1, tensor: 8, metadata: 9 }` for the `text` plugin: a tensor of one string.
fn text(summary: &mut Message, tag: &str, value: &str) {
    summary.message(1, |entry| {
        entry.bytes(1, tag.as_bytes());
        entry.message(8, |tensor| {
            tensor.integer(1, DT_STRING);
            tensor.message(2, |shape| shape.message(2, |dimension| dimension.integer(1, 1)));
            tensor.bytes(8, value.as_bytes());
        });
        entry.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
    });
}

/// A record of a `TFRecord` file.
fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// A checksum as `TFRecord` stores it: rotated and moved, so that a checksum of data that holds checksums stays sound.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protocol buffer message under construction. As in proto3, numbers that are 0 are left out.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, 0);
            self.varint(value);
        }
    }

    fn double(&mut self, field: u64, value: f64) {
        if value != 0.0 {
            self.key(field, 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Written even if it is 0: a summary's value is one of several kinds, and this says which.
    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn read(sink: &TensorBoardSink) -> String {
        hex(&std::fs::read(&sink.path).unwrap())
    }

    /// The bytes that the `tensorboard` package (2.21, `RecordWriter` over its own messages) makes of the same events.
    const VERSION: &str = "1800000000000000a37f4b2209000000c00b5ad6411a0d627261696e2e4576656e743a324ca9a464";
    const START: &str = "0d000000000000003c37b83409000000c00b5ad6413a02080132e00391";
    const START_AT_3: &str = "0f000000000000006d532b0909000000c00b5ad64110033a020801503dc21b";
    const STEP_300: &str = concat!(
        "5b000000000000001b01028a09000000c00b5ad64110ac022a4d0a120a0b67726f75707",
        "32f6b65707415000000000a0b0a046c6f737315000080be0a2a0a0b736372697074732f",
        "6e696d421108071204120208014207336639633161324a080a060a04746578743c480afa",
    );

    #[test]
    fn events_have_the_bytes_that_tensorboard_writes() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(directory.path(), None, Box::new(|| 1.5e9)).unwrap();
        assert_eq!(read(&sink), format!("{VERSION}{START}"));
        let mut record = Record::new(300);
        record.set("loss", -0.25).set("groups/kept", 0_u64).set("scripts/nim", "3f9c1a2").set("entropy", f64::NAN);
        sink.write(&record).unwrap();
        assert_eq!(read(&sink), format!("{VERSION}{START}{STEP_300}"));
    }

    #[test]
    fn a_resumed_run_starts_a_later_file_and_drops_later_steps() {
        let directory = tempfile::tempdir().unwrap();
        let first = TensorBoardSink::create(directory.path(), None, Box::new(|| 1.5e9)).unwrap();
        let second = TensorBoardSink::create(directory.path(), Some(2), Box::new(|| 1.5e9)).unwrap();
        assert!(first.path < second.path);
        assert_eq!(first.path.file_name().unwrap(), "events.out.tfevents.1500000000.gift-host.000");
        assert_eq!(read(&second), format!("{VERSION}{START_AT_3}"));
    }

    #[test]
    fn a_text_is_written_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(directory.path(), None, Box::new(|| 1.5e9)).unwrap();
        let mut grown = Vec::new();
        for version in ["3f9c1a2", "3f9c1a2", "77aa001"] {
            let before = read(&sink).len();
            let mut record = Record::new(1);
            record.set("scripts/nim", version);
            sink.write(&record).unwrap();
            grown.push(read(&sink).len() - before);
        }
        assert!(grown[0] == grown[2] && grown[1] < grown[0], "{grown:?}");
    }
}
