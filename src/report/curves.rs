//! `metrics.jsonl` as curves. The file may grow while it is read, end in half a line, hold a line that a crash damaged, or
//! be cut back and written again by a run that resumes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
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

/// Reads a metrics file again and again, each time only what is new.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    read: u64,
    /// The last line as read so far, without its end.
    rest: Vec<u8>,
    /// What was read.
    pub curves: Curves,
}

impl Follower {
    /// A follower of `metrics.jsonl` below a run directory, which need not exist yet.
    pub fn new(run: &Path) -> Self {
        Self { path: run.join("metrics.jsonl"), read: 0, rest: Vec::new(), curves: Curves::default() }
    }

    /// Reads what was written since; true if there are new records.
    ///
    /// # Errors
    /// The system's, other than that the file is not there.
    pub fn poll(&mut self) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result?,
        };
        let length = file.metadata()?.len();
        let was_cut = length < self.read;
        if was_cut {
            *self = Self { path: std::mem::take(&mut self.path), read: 0, rest: Vec::new(), curves: Curves::default() };
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        self.read += file.read_to_end(&mut bytes)? as u64;
        let mut changed = was_cut;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                let line = std::mem::take(&mut self.rest);
                self.curves.push(&line);
                changed = true;
            }
        }
        Ok(changed)
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

    #[test]
    fn thinning_keeps_means() {
        let points: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), f64::from(x))).collect();
        assert_eq!(thinned(&points, 5), [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5), (6.5, 6.5), (8.5, 8.5)]);
        assert_eq!(thinned(&points, 10), points);
    }
}
