//! Reads every `crate::room` in `src` and fails on an edge that the tables below lack, so that data keeps flowing one
//! way. The first table is DESIGN.md §2; the second has the edges that the code needs beyond it, each with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// DESIGN.md §2. `run` may use all rooms above it, `cli` all.
const DESIGN: &[(&str, &[&str])] = &[
    ("diag", &[]),
    ("seed", &[]),
    ("config", &["diag"]),
    ("metrics", &[]),
    ("script", &["diag", "seed"]),
    ("game", &["script", "diag", "seed"]),
    ("reload", &["game", "script", "diag"]),
    ("policy", &["config", "seed"]),
    ("opponent", &["game", "policy", "config", "seed"]),
    ("rollout", &["game", "opponent", "policy", "seed"]),
    ("advantage", &["rollout"]),
    ("train", &["policy", "rollout", "advantage", "config"]),
    ("checkpoint", &["train", "config", "seed"]),
    (
        "run",
        &[
            "diag",
            "seed",
            "config",
            "metrics",
            "script",
            "game",
            "reload",
            "policy",
            "opponent",
            "rollout",
            "advantage",
            "train",
            "checkpoint",
        ],
    ),
    ("eval", &["rollout", "opponent", "game", "policy", "config"]),
    ("report", &["metrics", "checkpoint", "diag"]),
];

/// Edges beyond the table, each of plain data or of a room without edges of its own.
const BEYOND: &[(&str, &str)] = &[
    // The format of answers, a setting's type, which the rules read and prompts ask for.
    ("game", "config"),
    // The settings that choose an estimator and a filter.
    ("advantage", "config"),
    // Minibatches are shuffled by the update's own stream.
    ("train", "seed"),
    // Which observation, format and constraint: three settings' types.
    ("rollout", "config"),
    // A fault of a script voids a trajectory and carries its diagnostic.
    ("rollout", "diag"),
    // What an opponent cannot play, and which `SPEC` is unknown, is told to the user.
    ("opponent", "diag"),
    // States that are searched are the scripts' plain values.
    ("opponent", "script"),
    // Seeds of a match's episodes, and the fault that voids one.
    ("eval", "seed"),
    ("eval", "diag"),
    // Candidates play seeded random episodes before they are published.
    ("reload", "seed"),
    // The file of settings is watched as scripts are; what may change is decided by the settings' own table.
    ("reload", "config"),
    // A damaged checkpoint is told to the user with file and fix.
    ("checkpoint", "diag"),
    // What is stored: running statistics of games, weights and tokenizer, script versions.
    ("checkpoint", "game"),
    ("checkpoint", "policy"),
    ("checkpoint", "script"),
];

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The room of a file: its folder below `src`, or its name if it is a room of one file; none for the crate's roots.
fn room_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").expect("a file of src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    let room = first.trim_end_matches(".rs").to_owned();
    (room != "lib" && room != "main").then_some(room)
}

/// Every room that the text names by `crate::`, with the line of the first mention. Comments and tests do not count:
/// links in documentation are no dependency, and a test may look at more than its room.
fn rooms_used(text: &str) -> BTreeMap<String, usize> {
    let mut used = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let name: String =
                code[at + "crate::".len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            assert!(
                !name.is_empty(),
                "line {}: one `use crate::room` a room, so that it can be read: {line}",
                index + 1
            );
            used.entry(name).or_insert(index + 1);
        }
    }
    used
}

/// The edges of the code, each with the places that have it.
fn edges() -> BTreeMap<(String, String), Vec<String>> {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    files.sort();
    let mut edges: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for path in files {
        // `tests.rs` and what only they use are compiled for tests alone.
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (Some(room), false) = (room_of(&path), ["tests.rs", "fake.rs"].contains(&name.as_str())) else { continue };
        let text = gift_host::checkpoint::read_text(&path).expect("a source file");
        for (used, line) in rooms_used(&text) {
            if used != room {
                edges.entry((room.clone(), used)).or_default().push(format!("{}:{line}", path.display()));
            }
        }
    }
    edges
}

fn allowed() -> BTreeSet<(&'static str, &'static str)> {
    let design = DESIGN.iter().flat_map(|(room, uses)| uses.iter().map(move |used| (*room, *used)));
    design.chain(BEYOND.iter().copied()).collect()
}

#[test]
fn no_room_uses_another_that_the_tables_do_not_name() {
    let allowed = allowed();
    let wrong: Vec<String> = edges()
        .into_iter()
        .filter(|((room, used), _)| room != "cli" && !allowed.contains(&(room.as_str(), used.as_str())))
        .map(|((room, used), places)| format!("{room} uses {used}: {}", places.join(", ")))
        .collect();
    assert!(wrong.is_empty(), "edges that DESIGN.md §2 lacks:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_table_and_every_extra_edge_is_needed() {
    let edges = edges();
    let known: BTreeSet<&str> = DESIGN.iter().map(|(room, _)| *room).chain(["cli"]).collect();
    let unknown: Vec<&String> =
        edges.keys().flat_map(|(room, used)| [room, used]).filter(|room| !known.contains(room.as_str())).collect();
    assert!(unknown.is_empty(), "rooms without a row: {unknown:?}");
    let unused: Vec<_> =
        BEYOND.iter().filter(|(room, used)| !edges.contains_key(&((*room).to_owned(), (*used).to_owned()))).collect();
    assert!(unused.is_empty(), "take these out of BEYOND: {unused:?}");
    let doubled: Vec<_> = BEYOND
        .iter()
        .filter(|(room, used)| DESIGN.iter().any(|(name, uses)| name == room && uses.contains(used)))
        .collect();
    assert!(doubled.is_empty(), "DESIGN.md has these already: {doubled:?}");
}

/// One way: no room can be reached from itself.
#[test]
fn the_rooms_have_no_cycle() {
    let edges = edges();
    for start in DESIGN.iter().map(|(room, _)| *room) {
        let mut reached = BTreeSet::new();
        let mut open = vec![start.to_owned()];
        while let Some(room) = open.pop() {
            for (_, used) in edges.keys().filter(|(from, _)| *from == room) {
                assert_ne!(used, start, "`{start}` is used by `{room}`, which it uses");
                if reached.insert(used.clone()) {
                    open.push(used.clone());
                }
            }
        }
    }
}
