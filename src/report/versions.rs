//! Which version of each script was in service when, and what changed from one to the next.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use similar::TextDiff;

use crate::checkpoint::{self, StoredText};
use crate::metrics::{MetricValue, Record};

/// The longest text that is carried of one script or difference.
const MAX_TEXT_BYTES: usize = 200_000;

/// Bytes of text that are carried of all versions together; later ones are named only.
const MAX_ALL_BYTES: usize = 4 << 20;
/// Lines of two texts together that are compared: the time that takes grows with their product.
const MAX_LINES: usize = 20_000;

/// A version came into service.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    /// The first iteration that used it.
    step: u64,
    /// The game, `nest` or `reward`.
    name: String,
    version: String,
    /// The file it came from, if the run directory holds the version.
    file: Option<String>,
    /// What was in service before; none for the first.
    before: Option<String>,
    /// The difference to that as a unified diff; for a first version its whole text.
    text: String,
}

/// All changes of a run, in order.
pub(super) fn changes(run: &Path, records: &[Record]) -> Vec<Change> {
    let mut active: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = Vec::new();
    let mut bytes = 0;
    for record in records {
        for (key, value) in record.iter() {
            let (Some(name), MetricValue::Text(version)) = (key.strip_prefix("scripts/"), value) else { continue };
            let before = active.insert(name.to_owned(), version.clone());
            if before.as_ref() == Some(version) {
                continue;
            }
            let stored = checkpoint::stored_text(run, version);
            let earlier = before.as_deref().map(|before| checkpoint::stored_text(run, before));
            let text = match (&earlier, &stored) {
                _ if bytes > MAX_ALL_BYTES => "left out, as the page would grow too large".to_owned(),
                (None, Ok(stored)) => stored.text.clone(),
                (Some(Ok(earlier)), Ok(stored)) => difference(earlier, stored),
                (_, Err(error)) | (Some(Err(error)), _) => format!("not in the run directory: {error}"),
            };
            let text = shortened(text);
            bytes += text.len();
            changes.push(Change {
                step: record.step(),
                name: name.to_owned(),
                version: version.clone(),
                file: stored.ok().map(|stored| stored.path.display().to_string()),
                before,
                text,
            });
        }
    }
    changes
}

/// Unified diffs of the script and of each module that it loads, and the data files that changed.
fn difference(before: &StoredText, after: &StoredText) -> String {
    let unified = |name: &str, before: &str, after: &str| {
        if before.lines().count() + after.lines().count() > MAX_LINES {
            return format!("{name}: too long to be compared\n");
        }
        let diff = TextDiff::from_lines(before, after);
        diff.unified_diff().context_radius(3).header(name, name).to_string()
    };
    let mut text = String::new();
    if before.text != after.text {
        text += &unified(&after.path.display().to_string(), &before.text, &after.text);
    }
    let names: std::collections::BTreeSet<&String> = before.modules.keys().chain(after.modules.keys()).collect();
    for name in names {
        let of = |stored: &StoredText| stored.modules.get(name).cloned().unwrap_or_default();
        if of(before) != of(after) {
            text += &unified(&format!("module {name}"), &of(before), &of(after));
        }
    }
    for (name, hash) in after.data.iter().filter(|(name, hash)| before.data.get(*name) != Some(hash)) {
        text.extend(["data file ", name, ": now ", hash, "\n"]);
    }
    text
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text += "\n… (the rest is left out)";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{create_folder, write_text};

    fn store(run: &Path, hash: &str, text: &str, module: &str) {
        create_folder(&run.join("scripts")).unwrap();
        write_text(&run.join(format!("scripts/{hash}.lua")), text).unwrap();
        let manifest = serde_json::json!({"path": "games/nim.lua", "language": "lua", "modules": {"draw": module}});
        write_text(&run.join(format!("scripts/{hash}.json")), &manifest.to_string()).unwrap();
    }

    #[test]
    fn a_change_has_the_difference_of_script_and_modules() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), "aa", "one\ntwo\n", "m\n");
        store(folder.path(), "bb", "one\n2\n", "n\n");
        let records: Vec<Record> = [(1, "aa"), (2, "aa"), (3, "bb"), (4, "cc")]
            .into_iter()
            .map(|(step, version)| {
                let mut record = Record::new(step);
                record.set("scripts/nim", version);
                record
            })
            .collect();
        let changes = changes(folder.path(), &records);
        let steps: Vec<_> = changes.iter().map(|change| (change.step, change.before.as_deref())).collect();
        assert_eq!(steps, [(1, None), (3, Some("aa")), (4, Some("bb"))]);
        assert_eq!(changes[0].text, "one\ntwo\n");
        assert_eq!(
            changes[1].text,
            "--- games/nim.lua\n+++ games/nim.lua\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n\
             --- module draw\n+++ module draw\n@@ -1 +1 @@\n-m\n+n\n"
        );
        assert!(changes[2].text.starts_with("not in the run directory: cannot read"), "{}", changes[2].text);
    }

    /// A run may reload for ever, and a script be any text.
    #[test]
    fn long_texts_and_many_versions_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let long = |word: &str| format!("{word}\n").repeat(MAX_LINES);
        store(folder.path(), "aa", &long("a"), "");
        store(folder.path(), "bb", &long("b"), "");
        let versions = (1..=200).map(|step| {
            let mut record = Record::new(step);
            record.set("scripts/nim", if step % 2 == 0 { "aa" } else { "bb" });
            record.set(format!("scripts/other{step}"), "aa");
            record
        });
        let changes = changes(folder.path(), &versions.collect::<Vec<_>>());
        let compared = changes.iter().find(|change| change.before.is_some()).unwrap();
        assert_eq!(compared.text, "games/nim.lua: too long to be compared\n");
        let bytes: usize = changes.iter().map(|change| change.text.len()).sum();
        assert!(changes.len() == 400 && bytes < MAX_ALL_BYTES + 2 * MAX_TEXT_BYTES, "{bytes}");
    }
}
