//! TensorBoard event files: the figures of `metrics.jsonl` as scalars, versions of scripts as texts, and what no line of figures
//! can hold: histograms, samples of text, the settings as hyperparameters. The few protocol buffer messages that this takes are
//! written by hand; `scripts/interop/check_tensorboard.py` reads a run's files with TensorBoard itself and compares them with
//! `metrics.jsonl`.
//!
//! Framing: TensorFlow's `TFRecord` (length, masked CRC-32C of the length, data, masked CRC-32C of the data). Messages:
//! `Event`, `Summary` and `SessionLog` of `tensorboard/compat/proto/{event,summary}.proto`.

mod plugins; // what its plugins read
mod wire; // bytes and checksums

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Error, MetricSink, MetricValue, Record, access};

use plugins::{event, histogram, hyperparameters, scalar, text};
use wire::frame;

/// The time in seconds since 1970, which event files must carry; given by `cli`, the only room with a clock.
pub type Clock = Box<dyn FnMut() -> f64 + Send>;

/// `SessionLog::START`.
const SESSION_START: u64 = 1;

/// A setting of the run, as TensorBoard's table of hyperparameters knows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Hyperparameter {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// True or false.
    Truth(bool),
}

/// What a step has beyond its figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Numbers to draw as histograms, by tag.
    pub histograms: BTreeMap<String, Vec<f64>>,
    /// Texts in Markdown, by tag.
    pub texts: BTreeMap<String, String>,
}

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

    /// Keeps the settings of the run.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write_hyperparameters(&mut self, values: &[(String, Hyperparameter)]) -> Result<(), Error> {
        let now = (self.clock)();
        self.append(&event(now, 0, |event| event.message(5, |summary| hyperparameters(summary, values, now))))
    }

    /// Keeps what a step has beyond its figures.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write_details(&mut self, step: u64, details: &Details) -> Result<(), Error> {
        let now = (self.clock)();
        let data = event(now, step, |event| {
            event.message(5, |summary| {
                details.histograms.iter().for_each(|(tag, numbers)| histogram(summary, tag, numbers));
                details.texts.iter().for_each(|(tag, value)| text(summary, tag, value));
            });
        });
        self.append(&data)
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

    /// As above: a histogram of two buckets, and one hyperparameter of each kind.
    const HISTOGRAM: &str = concat!(
        "720000000000000025053a8209000000c00b5ad64110ac022a640a620a10686973746f6772616d2f726577617264423e08021208120208",
        "021202080322300000000000000000000000000000e03f0000000000000840000000000000e03f000000000000f03f000000000000f03f",
        "4a0e0a0c0a0a686973746f6772616d73cc23d30d",
    );
    const MODEL: &str = "5e00000000000000d8b06ebc09000000c00b5ad6412a530a510a1c5f68706172616d735f2f73657373696f6e5f73746172745f696e666f42060801120212004a290a270a0768706172616d73121c1a1a0a0f0a056d6f64656c12061a0474696e7929000000c00b5ad64157496ec2";
    const SEED: &str = "60000000000000002821c6da09000000c00b5ad6412a550a530a1c5f68706172616d735f2f73657373696f6e5f73746172745f696e666f42060801120212004a2b0a290a0768706172616d73121e1a1c0a110a0473656564120911000000000000084029000000c00b5ad64137f28bda";
    const RELOAD: &str = "5b000000000000001b01028a09000000c00b5ad6412a500a4e0a1c5f68706172616d735f2f73657373696f6e5f73746172745f696e666f42060801120212004a260a240a0768706172616d7312191a170a0c0a0672656c6f61641202200129000000c00b5ad641874e932e";

    #[test]
    fn details_have_the_bytes_that_tensorboard_writes() {
        let data = event(1.5e9, 300, |event| {
            event.message(5, |summary| {
                plugins::histogram_of(summary, "histogram/reward", &[[0.0, 0.5, 3.0], [0.5, 1.0, 1.0]]);
            });
        });
        assert_eq!(hex(&frame(&data)), HISTOGRAM);
        let kinds = [
            ("model", Hyperparameter::Text("tiny".to_owned()), MODEL),
            ("seed", Hyperparameter::Number(3.0), SEED),
            ("reload", Hyperparameter::Truth(true), RELOAD),
        ];
        for (name, value, expected) in kinds {
            let directory = tempfile::tempdir().unwrap();
            let mut sink = TensorBoardSink::create(directory.path(), None, Box::new(|| 1.5e9)).unwrap();
            sink.write_hyperparameters(&[(name.to_owned(), value)]).unwrap();
            assert_eq!(read(&sink), format!("{VERSION}{START}{expected}"), "{name}");
        }
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
