//! `metrics.jsonl`: one object a step, appended as the run goes on, and cut back to the checkpoint when a run resumes.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Error, MetricSink, Record, access};

/// Appends records to a file of JSON lines.
#[derive(Debug)]
pub struct JsonlSink {
    path: PathBuf,
    file: File,
}

impl JsonlSink {
    /// A sink for a new run; what the file held is lost.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(access(path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// A sink for a run that goes on after step `last`: later steps, which will be played again, and a half line that
    /// an interrupted write left are cut off. A file that is not there is made.
    ///
    /// # Errors
    /// [`Error::Line`] if a whole line is not a record, and then the file is as it was; [`Error::Io`].
    pub fn resume(path: &Path, last: u64) -> Result<Self, Error> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(path).map_err(access(path))?;
        let bytes = fs::read(path).map_err(access(path))?;
        let kept: usize = complete_lines(&bytes)
            .enumerate()
            .map(|(index, line)| Ok((parse(path, index, line)?.step() <= last, line.len())))
            .take_while(|line| !matches!(line, Ok((false, _))))
            .map(|line| line.map(|(_, length)| length))
            .sum::<Result<usize, Error>>()?;
        file.set_len(kept as u64).map_err(access(path))?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl MetricSink for JsonlSink {
    fn write(&mut self, record: &Record) -> Result<(), Error> {
        let mut line = record.to_json();
        line.push('\n');
        // One write for the whole line: a reader that follows the file sees whole lines only.
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush()).map_err(access(&self.path))
    }
}

/// All records of a file, in its order. A half line at its end, which a running or killed run may leave, is left out.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Line`] if a whole line is not a record.
pub fn read_jsonl(path: &Path) -> Result<Vec<Record>, Error> {
    let bytes = fs::read(path).map_err(access(path))?;
    complete_lines(&bytes).enumerate().map(|(index, line)| parse(path, index, line)).collect()
}

/// The lines that have an end, with it.
fn complete_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"))
}

fn parse(path: &Path, index: usize, line: &[u8]) -> Result<Record, Error> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string());
    text.and_then(Record::from_json).map_err(|message| Error::Line { path: path.to_owned(), line: index + 1, message })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test may read a file as it likes")]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        let mut record = Record::new(step);
        record.set("loss", step as f64 / 10.0);
        record
    }

    #[test]
    fn a_resumed_file_goes_on_after_the_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        let mut sink = JsonlSink::create(&path).unwrap();
        (1..=5).for_each(|step| sink.write(&record(step)).unwrap());
        drop(sink);
        let whole = fs::read_to_string(&path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":6,\"lo").unwrap();
        assert_eq!(read_jsonl(&path).unwrap().len(), 5);

        // Steps 4 and 5 were lost with the process; played again they give the same file as a run that never stopped.
        let mut sink = JsonlSink::resume(&path, 3).unwrap();
        assert_eq!(read_jsonl(&path).unwrap(), [record(1), record(2), record(3)]);
        (4..=5).for_each(|step| sink.write(&record(step)).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);

        JsonlSink::resume(&path, 9).unwrap().write(&record(6)).unwrap();
        assert_eq!(read_jsonl(&path).unwrap().len(), 6);
    }

    #[test]
    fn a_half_line_alone_is_cut_off_and_a_missing_file_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        JsonlSink::resume(&path, 3).unwrap();
        fs::write(&path, "{\"ste").unwrap();
        JsonlSink::resume(&path, 3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_foreign_line_is_named_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\nhello\n{\"step\":2}\n").unwrap();
        let error = JsonlSink::resume(&path, 5).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl`, line 2: expected an object with a `step`"), "{error}");
        assert_eq!(fs::read(&path).unwrap().len(), "{\"step\":1}\nhello\n{\"step\":2}\n".len());
    }
}
