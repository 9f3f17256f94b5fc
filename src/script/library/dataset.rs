//! `gift.dataset`: the rows of a JSONL, CSV or Parquet file. While a file does not change, its rows are held once a process
//! and shared by all scripts and threads.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use sha2::{Digest, Sha256};

use crate::script::Value;
use crate::script::source::first_digits;

/// Largest file, in bytes: rows are held in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Largest file whose content is kept beside its rows, so that a run directory can hold it.
const MAX_KEPT_BYTES: usize = 8 << 20;
/// Up to this size a file is read again to see whether it changed; the times of larger ones are believed.
const MAX_REREAD_BYTES: u64 = 1 << 20;
/// A file that changes while it is read is read again this often.
const TRIES: usize = 3;

/// The rows of a file.
#[derive(Debug)]
pub(in crate::script) struct Dataset {
    rows: Vec<Value>,
    hash: String,
    content: Option<Vec<u8>>,
}

/// What tells that a file did not change, without reading it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    identity: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let identity = 0;
        Self { bytes: metadata.len(), modified: metadata.modified().ok(), identity }
    }
}

/// The newest rows of every file that was opened, by its canonical path. Each has a lock of its own, which is held while the
/// file is read: a file that is read for long, or for ever, keeps nobody from the others.
static OPENED: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Newest>>>> = LazyLock::new(Mutex::default);

type Newest = Mutex<Option<(Stamp, Arc<Dataset>)>>;

fn newest(path: &Path) -> Arc<Newest> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(opened.entry(path.to_owned()).or_default())
}

impl Dataset {
    /// The rows of a file as it is now, told by its extension. A file that did not change is not parsed again.
    pub(in crate::script) fn open(path: &Path) -> Result<Arc<Self>, String> {
        // Held while reading, so that threads that start together read the file once.
        let newest = newest(path);
        let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.clone();
        for _ in 0..TRIES {
            let metadata = std::fs::metadata(path).map_err(|cause| cause.to_string())?;
            if !metadata.is_file() {
                // Reading a pipe or a device would not end.
                return Err("expected a regular file".to_owned());
            }
            let stamp = Stamp::of(&metadata);
            if stamp.bytes > MAX_FILE_BYTES {
                return Err(format!("the file has {} bytes, more than {} MiB", stamp.bytes, MAX_FILE_BYTES >> 20));
            }
            if let Some((before, dataset)) = &known
                && *before == stamp
                && stamp.bytes > MAX_REREAD_BYTES
            {
                return Ok(Arc::clone(dataset));
            }
            let bytes = std::fs::read(path).map_err(|cause| cause.to_string())?;
            let hash = hash_of(&bytes);
            if let Some((_, dataset)) = known.as_ref().filter(|(_, dataset)| dataset.hash == hash) {
                let dataset = Arc::clone(dataset);
                *newest = Some((stamp, Arc::clone(&dataset)));
                return Ok(dataset);
            }
            let rows = match path.extension().and_then(|extension| extension.to_str()) {
                Some("jsonl" | "ndjson") => read_jsonl(&bytes),
                Some("csv") => read_csv(&bytes),
                // The reader of damaged files may panic, and no file may end the host.
                Some("parquet") => std::panic::catch_unwind(|| read_parquet(path))
                    .unwrap_or_else(|_| Err("the file is damaged".to_owned())),
                _ => Err("expected a file that ends in `.jsonl`, `.csv` or `.parquet`".to_owned()),
            };
            // Parquet is parsed from the file itself, which may have changed since.
            if std::fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata)) != Some(stamp) {
                continue;
            }
            let content = (bytes.len() <= MAX_KEPT_BYTES).then_some(bytes);
            let dataset = Arc::new(Self { rows: rows?, hash, content });
            *newest = Some((stamp, Arc::clone(&dataset)));
            return Ok(dataset);
        }
        Err("the file is being written".to_owned())
    }

    /// The hash of a file's content as it is now; `None` if it cannot be read.
    pub(in crate::script) fn current_hash(path: &Path) -> Option<String> {
        // Reading a pipe or a device would not end.
        let metadata = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
        let stamp = Stamp::of(&metadata);
        if stamp.bytes > MAX_FILE_BYTES {
            return None;
        }
        if stamp.bytes > MAX_REREAD_BYTES {
            let newest = newest(path);
            // Who reads it now will know it next time.
            let known = newest.try_lock().ok().and_then(|newest| newest.clone());
            if let Some((_, dataset)) = known.filter(|(before, _)| *before == stamp) {
                return Some(dataset.hash.clone());
            }
        }
        std::fs::read(path).ok().map(|bytes| hash_of(&bytes))
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the file.
    pub(in crate::script) fn hash(&self) -> &str {
        &self.hash
    }

    /// The file's content, if it is small enough to be kept.
    pub(in crate::script) fn content(&self) -> Option<&[u8]> {
        self.content.as_deref()
    }

    /// The number of rows.
    pub(in crate::script) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row with this index, from 0.
    pub(in crate::script) fn row(&self, index: usize) -> Option<&Value> {
        self.rows.get(index)
    }
}

fn hash_of(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    first_digits(hash)
}

fn read_jsonl(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|cause| cause.to_string())?;
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let row = |(at, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(json) => Ok(Value::from_json(&json)),
        Err(cause) => Err(format!("line {}: {cause}", at + 1)),
    };
    lines.filter(|(_, line)| !line.trim().is_empty()).map(row).collect()
}

/// The first line names the columns; every cell is text, since CSV has no types.
fn read_csv(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|cause| cause.to_string())?;
    let names: Vec<String> = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|cause| cause.to_string())?;
        let cells = names.iter().cloned().zip(record.iter().map(Value::from));
        rows.push(Value::Map(cells.collect()));
    }
    Ok(rows)
}

fn read_parquet(path: &Path) -> Result<Vec<Value>, String> {
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|cause| cause.to_string())?;
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(|cause| cause.to_string())? {
        let row = row.map_err(|cause| cause.to_string())?;
        let cells = row.get_column_iter().map(|(name, field)| (name.clone(), field_value(field)));
        rows.push(Value::Map(cells.collect()));
    }
    Ok(rows)
}

/// A Parquet field as plain data; dates and times stay the integers that are stored.
fn field_value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Nil,
        Field::Bool(truth) => Value::Bool(*truth),
        Field::Byte(number) => i64::from(*number).into(),
        Field::Short(number) => i64::from(*number).into(),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => i64::from(*number).into(),
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => (*number).into(),
        Field::UByte(number) => i64::from(*number).into(),
        Field::UShort(number) => i64::from(*number).into(),
        Field::UInt(number) => i64::from(*number).into(),
        Field::ULong(number) => i64::try_from(*number).map_or(Value::Float(*number as f64), Value::Int),
        Field::Float16(number) => f64::from(number.to_f32()).into(),
        Field::Float(number) => f64::from(*number).into(),
        Field::Double(number) => (*number).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
        Field::Decimal(_) => field.to_string().parse().map_or_else(|_| field.to_string().into(), Value::Float),
        Field::Group(row) => {
            Value::Map(row.get_column_iter().map(|(name, field)| (name.clone(), field_value(field))).collect())
        }
        Field::ListInternal(list) => Value::List(list.elements().iter().map(field_value).collect()),
        Field::MapInternal(map) => {
            let key = |field: &Field| match field {
                Field::Str(text) => text.clone(),
                other => other.to_string(),
            };
            Value::Map(map.entries().iter().map(|(name, field)| (key(name), field_value(field))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(name: &str, text: &str) -> Result<Vec<Value>, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Dataset::open(&path).map(|dataset| (0..dataset.len()).filter_map(|at| dataset.row(at).cloned()).collect())
    }

    #[test]
    fn jsonl_keeps_types_and_csv_gives_text() {
        let typed = rows("a.jsonl", "{\"a\": 1, \"b\": [true, null]}\n\n{\"a\": 2.5}\n").expect("rows");
        assert_eq!(typed[0].get("b"), Some(&Value::List(vec![true.into(), Value::Nil])));
        assert_eq!(typed[1].get("a"), Some(&Value::Float(2.5)));
        let text = rows("a.csv", "a,b\n007,\"x, y\"\n").expect("rows");
        assert_eq!(text, [Value::from([("a", "007".into()), ("b", "x, y".into())])]);
    }

    #[test]
    fn a_broken_line_is_named() {
        assert!(rows("b.jsonl", "{}\n{oops}\n").is_err_and(|message| message.starts_with("line 2:")));
        assert!(rows("b.txt", "").is_err());
    }

    /// Rows are shared, so that sixteen threads do not hold sixteen copies of a data set.
    #[test]
    fn a_file_is_read_once_while_it_stays_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("c.jsonl");
        std::fs::write(&path, "1\n").expect("a file");
        let (first, second) = (Dataset::open(&path).expect("rows"), Dataset::open(&path).expect("rows"));
        assert!(Arc::ptr_eq(&first, &second));
        std::fs::write(&path, "2\n").expect("a file");
        let third = Dataset::open(&path).expect("rows");
        assert_eq!((first.row(0), third.row(0)), (Some(&1_i64.into()), Some(&2_i64.into())));
        assert_eq!(Dataset::current_hash(&path).as_deref(), Some(third.hash()));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_has_no_content() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("e.jsonl");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        assert!(Dataset::open(&path).is_err_and(|message| message.contains("regular file")));
        assert_eq!(Dataset::current_hash(&path), None);
    }

    /// A file that takes for ever to read is one thread's trouble.
    #[test]
    fn a_file_that_is_being_read_keeps_nobody_from_the_others() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (busy, other) = (folder.path().join("busy.jsonl"), folder.path().join("other.jsonl"));
        for path in [&busy, &other] {
            std::fs::write(path, "1\n").expect("a file");
        }
        let reading = newest(&busy);
        let _reading = reading.lock().expect("nobody else");
        assert_eq!(Dataset::open(&other).map(|rows| rows.len()), Ok(1));
        assert!(Dataset::current_hash(&busy).is_some());
    }

    #[test]
    fn parquet_rows_have_the_types_of_their_columns() {
        use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
        use parquet::file::writer::SerializedFileWriter;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("d.parquet");
        let schema = "message rows { required int64 n; required double x; required binary t (UTF8); }";
        let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
        let file = File::create(&path).expect("a file");
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).expect("a writer");
        let mut group = writer.next_row_group().expect("a row group");
        let mut column = group.next_column().expect("columns").expect("n");
        column.typed::<Int64Type>().write_batch(&[7, 8], None, None).expect("numbers");
        column.close().expect("n ends");
        let mut column = group.next_column().expect("columns").expect("x");
        column.typed::<DoubleType>().write_batch(&[0.5, 1.0], None, None).expect("numbers");
        column.close().expect("x ends");
        let mut column = group.next_column().expect("columns").expect("t");
        let texts = [ByteArray::from("a"), ByteArray::from("b")];
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).expect("texts");
        column.close().expect("t ends");
        group.close().expect("the group ends");
        writer.close().expect("the file ends");
        let rows = Dataset::open(&path).expect("rows");
        let expected = Value::from([("n", 8_i64.into()), ("x", 1.0.into()), ("t", "b".into())]);
        assert_eq!((rows.len(), rows.row(1)), (2, Some(&expected)));
    }
}
