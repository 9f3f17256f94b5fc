//! `metrics.jsonl` as curves. The file may grow while it is read, end in half a line, hold a line that a crash damaged, or
//! be cut back and written again by a run that resumes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::metrics::{MetricValue, Record};

/// The records of a run, by step.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    records: Vec<Record>,
    /// Whole lines that are no records.
    pub damaged_count: usize,
}

impl Curves {
    /// The records, each step once, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record of the newest step.
    pub fn last(&self) -> Option<&Record> {
        self.records.last()
    }

    /// Names of all figures that are numbers, in order.
    pub fn names(&self) -> Vec<String> {
        let numbers = |record: &Record| {
            let is_number = |value: &MetricValue| !matches!(value, MetricValue::Text(_));
            record.iter().filter(|(_, value)| is_number(value)).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        self.records.iter().flat_map(numbers).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Names of the games, which are those that have a reward.
    pub fn games(&self) -> Vec<String> {
        let names = self.names();
        let game = |name: &String| name.strip_prefix("success/").filter(|game| *game != "all").map(str::to_owned);
        names.iter().filter_map(game).collect()
    }

    /// Step and value where the figure is finite.
    pub fn points(&self, name: &str) -> Vec<(f64, f64)> {
        let point = |record: &Record| Some((record.step() as f64, record.number(name).filter(|y| y.is_finite())?));
        self.records.iter().filter_map(point).collect()
    }

    /// Takes one line of the file.
    fn push(&mut self, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let text = String::from_utf8_lossy(line);
        let Ok(record) = Record::from_json(&text) else {
            self.damaged_count += 1;
            return;
        };
        // A step that comes again was played again from a checkpoint: what followed the checkpoint is void.
        let kept = self.records.partition_point(|earlier| earlier.step() < record.step());
        self.records.truncate(kept);
        self.records.push(record);
    }
}

/// The longest line that is read; longer ones are damaged.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Reads a metrics file again and again, each time only what is new.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// Where the next line begins.
    read: u64,
    /// The last whole line that was read. While it still stands before `read`, what was read stands as well.
    last_line: Vec<u8>,
    /// What was read.
    pub curves: Curves,
}

impl Follower {
    /// A follower of `metrics.jsonl` below a run directory, which need not exist yet.
    pub fn new(run: &Path) -> Self {
        Self { path: run.join("metrics.jsonl"), read: 0, last_line: Vec::new(), curves: Curves::default() }
    }

    /// Reads the lines that were written since; true if there are new records. A file that was cut back or is another one is
    /// read from its start. A last line without its end is left for later.
    ///
    /// # Errors
    /// The system's, other than that the file is not there; that it is no regular file.
    pub fn poll(&mut self) -> io::Result<bool> {
        match self.path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            // Opening a pipe would wait for its other end.
            Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("it is no regular file")),
            result => _ = result?,
        }
        let mut file = BufReader::with_capacity(1 << 18, File::open(&self.path)?);
        let mut changed = false;
        if !self.stands(&mut file)? {
            (self.read, self.curves) = (0, Curves::default());
            self.last_line.clear();
            file.rewind()?;
            changed = true;
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            let taken = file.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
            if line.ends_with(b"\n") {
                self.curves.push(&line);
                line.drain(..line.len().saturating_sub(MAX_REMEMBERED_BYTES));
                std::mem::swap(&mut self.last_line, &mut line);
            } else if taken < MAX_LINE_BYTES {
                return Ok(changed);
            } else {
                // Too long: passed over up to its end, if that is written.
                let Some(rest) = skip_line(&mut file)? else { return Ok(changed) };
                self.read += rest;
                self.curves.damaged_count += 1;
                self.last_line.clear();
            }
            self.read += taken as u64;
            changed = true;
        }
    }

    /// Whether the file still holds what was read; leaves it where the next line begins.
    fn stands(&self, file: &mut BufReader<File>) -> io::Result<bool> {
        let before = self.read - self.last_line.len() as u64;
        file.seek(SeekFrom::Start(before))?;
        let mut found = Vec::new();
        file.by_ref().take(self.last_line.len() as u64).read_to_end(&mut found)?;
        Ok(found == self.last_line)
    }
}

/// How much of the last line is remembered.
const MAX_REMEMBERED_BYTES: usize = 1 << 12;

/// Passes over the rest of a line; its length, or none if it has no end yet.
fn skip_line(file: &mut BufReader<File>) -> io::Result<Option<u64>> {
    let mut length = 0;
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let end = buffer.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(buffer.len());
        file.consume(taken);
        length += taken as u64;
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

/// At most `max` points of a curve: where there are more, means of neighbours.
pub(super) fn thinned(points: &[(f64, f64)], max: usize) -> Vec<(f64, f64)> {
    if points.len() <= max {
        return points.to_vec();
    }
    let size = points.len().div_ceil(max);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn steps(follower: &Follower) -> Vec<u64> {
        follower.curves.records().iter().map(Record::step).collect()
    }

    #[test]
    fn a_growing_damaged_and_resumed_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower::new(folder.path());
        assert!(!follower.poll().unwrap());
        append(&path, "{\"step\":1,\"loss\":null}\n{\"step\":2,\"lo");
        assert!(follower.poll().unwrap());
        assert_eq!(steps(&follower), [1]);
        assert!(follower.curves.points("loss").is_empty() && follower.curves.names() == ["loss"]);
        append(&path, "ss\":2}\nhello\n\n{\"step\":3,\"loss\":3}\n");
        follower.poll().unwrap();
        assert_eq!((steps(&follower), follower.curves.damaged_count), (vec![1, 2, 3], 1));
        // Cut back and longer again before anyone looked.
        append(&path, "{\"step\":2,\"loss\":7}\n");
        follower.poll().unwrap();
        assert_eq!(follower.curves.points("loss"), [(2.0, 7.0)]);
        std::fs::write(&path, "{\"step\":1,\"loss\":5}\n").unwrap();
        assert!(follower.poll().unwrap());
        assert_eq!(follower.curves.points("loss"), [(1.0, 5.0)]);
    }

    /// A run that resumes cuts the file back and may have written more than was there before anyone looks again.
    #[test]
    fn a_file_that_was_cut_and_grew_beyond_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |step: u64, loss: &str| format!("{{\"step\":{step},\"loss\":{loss}}}\n");
        append(&path, &[line(1, "1"), line(2, "2"), line(3, "3")].concat());
        let mut follower = Follower::new(folder.path());
        follower.poll().unwrap();
        std::fs::write(&path, [line(1, "1"), line(2, "7"), line(3, "8"), line(4, "9")].concat()).unwrap();
        assert!(follower.poll().unwrap());
        assert_eq!(follower.curves.points("loss"), [(1.0, 1.0), (2.0, 7.0), (3.0, 8.0), (4.0, 9.0)]);
        assert_eq!(follower.curves.damaged_count, 0);
        assert!(!follower.poll().unwrap());
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        append(&path, "{\"step\":1}\n");
        append(&path, &"x".repeat(3 * MAX_LINE_BYTES));
        let mut follower = Follower::new(folder.path());
        assert!(follower.poll().unwrap() && !follower.poll().unwrap());
        append(&path, "\n{\"step\":2}\n");
        assert!(follower.poll().unwrap());
        assert_eq!((steps(&follower), follower.curves.damaged_count), (vec![1, 2], 1));
        assert!(follower.last_line.len() <= MAX_REMEMBERED_BYTES);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("metrics.jsonl")).unwrap();
        assert!(Follower::new(folder.path()).poll().unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn thinning_keeps_means() {
        let points: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), f64::from(x))).collect();
        assert_eq!(thinned(&points, 5), [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (6.5, 6.5), (8.5, 8.5)]);
        assert_eq!(thinned(&points, 10), points);
    }
}
