//! A sample of the episodes that a run stored, small enough for a page. A run may hold gigabytes of them: files are read as
//! streams, of many files some, of a file a sample drawn by a fixed rule, and texts are cut where they are very long.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::tokens::TokenTexts;

/// Files that are opened, spread over the run.
const MAX_FILES: usize = 40;
/// Uncompressed bytes that are read of one file.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Episodes that are drawn in all, if the files are few.
const MAX_EPISODES: usize = 2_000;
/// Episodes that are drawn of each file at least, however many files there are.
const MIN_FILE_EPISODES: usize = 64;
/// Characters of one observation or answer.
const MAX_TEXT_CHARS: usize = 6_000;
/// Sampled tokens of an episode whose log-probabilities are carried.
const MAX_TOKENS: usize = 1_200;

/// The sample.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Sample {
    /// In the form that the page draws.
    pub(super) episodes: Vec<Value>,
    /// Episodes in the files that were read.
    seen_count: usize,
    /// Files of the run.
    file_count: usize,
    /// Files that were read.
    read_file_count: usize,
    /// Whether of some files only the beginning was read.
    is_cut: bool,
    /// What could not be read, and why.
    problems: Vec<String>,
}

/// Draws a sample of at most `max_bytes` of JSON.
pub(super) fn sample(run: &Path, max_bytes: usize) -> Sample {
    let files = files(run);
    let chosen = spread(&files, MAX_FILES);
    let quota = (MAX_EPISODES / chosen.len().max(1)).max(MIN_FILE_EPISODES);
    let texts = TokenTexts::of_run(run);
    let mut sample = Sample { file_count: files.len(), read_file_count: chosen.len(), ..Sample::default() };
    let mut drawn: Vec<std::vec::IntoIter<Vec<u8>>> = Vec::new();
    for path in chosen {
        let (lines, problem) = draw(path, quota, &mut sample);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sample.problems.extend(problem.map(|problem| format!("{name}: {problem}")));
        drawn.push(lines.into_iter());
    }
    // In turn one of each file, so that a full page has episodes of every time.
    let mut bytes = 0;
    while bytes < max_bytes {
        let mut is_done = true;
        for lines in &mut drawn {
            let Some(line) = lines.next() else { continue };
            is_done = false;
            match serde_json::from_slice::<Value>(&line).ok().and_then(|line| episode(&line, &texts)) {
                Some(episode) => {
                    bytes += episode.to_string().len();
                    sample.episodes.push(episode);
                }
                None => sample.problems.push("an episode that is damaged was left out".to_owned()),
            }
            if bytes >= max_bytes {
                break;
            }
        }
        if is_done {
            break;
        }
    }
    let number = |value: &Value, name: &str| value[name].as_u64().unwrap_or(0);
    sample.episodes.sort_by_key(|one| (number(one, "step"), number(one, "group"), number(one, "member")));
    sample.problems.dedup();
    sample
}

/// The episodes files of a run, by iteration.
pub(super) fn files(run: &Path) -> Vec<PathBuf> {
    let entries = run.join("episodes").read_dir().into_iter().flatten().filter_map(Result::ok);
    // Files that a resumed run set aside begin with `abandoned-`, those being written with a dot.
    let is_whole = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Opening a pipe of that name would wait for its other end.
        name.starts_with("step-") && name.ends_with(".jsonl.zst") && path.is_file()
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_whole).collect();
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    files
}

/// The first episodes of a file, in its order; damaged ones are left out.
pub(super) fn first(path: &Path, max: usize) -> Vec<Value> {
    let Ok(decoder) = File::open(path).and_then(zstd::Decoder::new) else { return Vec::new() };
    let lines = BufReader::new(decoder.take(MAX_FILE_BYTES)).split(b'\n').map_while(Result::ok);
    let parse = |line: Vec<u8>| serde_json::from_slice::<Value>(&line).ok();
    lines.filter_map(parse).filter_map(|line| episode(&line, &TokenTexts::default())).take(max).collect()
}

/// At most `max` of a list, first and last among them.
fn spread<T>(list: &[T], max: usize) -> Vec<&T> {
    if list.len() <= max {
        return list.iter().collect();
    }
    (0..max).map(|index| &list[index * (list.len() - 1) / (max - 1)]).collect()
}

/// Draws `quota` lines of a file, each with the same chance (reservoir sampling by a fixed sequence), and what went wrong.
fn draw(path: &Path, quota: usize, sample: &mut Sample) -> (Vec<Vec<u8>>, Option<io::Error>) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut count = 0_usize;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let result = (|| {
        let decoder = zstd::Decoder::new(File::open(path)?)?;
        let mut reader = BufReader::with_capacity(1 << 18, decoder.take(MAX_FILE_BYTES));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            if !line.ends_with(b"\n") {
                sample.is_cut = true;
                break;
            }
            count += 1;
            // Knuth's MMIX generator; its high bits are good enough to choose by.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (random >> 33) as usize % count;
            if lines.len() < quota {
                lines.push(std::mem::take(&mut line));
            } else if place < quota {
                lines[place] = std::mem::take(&mut line);
            }
            line.clear();
        }
        Ok(())
    })();
    sample.seen_count += count;
    (lines, result.err())
}

/// What the page shows of a stored episode; none if it is none.
fn episode(line: &Value, texts: &TokenTexts) -> Option<Value> {
    let as_list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let turns: Vec<Value> = line["turns"].as_array()?.iter().map(turn).collect();
    Some(json!({
        "id": line["id"].as_str()?,
        "step": line["step"].as_u64()?,
        "group": line["group"],
        "member": line["member"],
        "games": as_list(&line["game"]),
        "seats": as_list(&line["seat"]),
        "scripts": line["scripts"],
        "reward": line["reward"],
        "stage_rewards": line["stage_rewards"],
        "stage_success": line["stage_success"],
        "advantage": line["advantage"],
        "kept": line["kept"],
        "success": line["success"],
        "truncated": line["truncated"],
        "turns": turns,
        "tokens": tokens(line, texts).unwrap_or_default(),
    }))
}

fn turn(turn: &Value) -> Value {
    json!({
        "stage": turn["stage"].as_u64().unwrap_or(0),
        "seat": turn["seat"],
        "observation": cut(turn["observation"].as_str().unwrap_or_default()),
        "answer": cut(turn["answer"].as_str().unwrap_or_default()),
        "action": turn["action"],
        "legal": turn["legal"],
        "well_formed": turn["well_formed"],
        "reward": turn["reward"],
    })
}

/// The sequence that the policy saw: `[text, log-probability]` of each sampled token, `[text]` of what stands between.
fn tokens(line: &Value, texts: &TokenTexts) -> Option<Vec<Value>> {
    let ids: Vec<u64> = line["tokens"].as_array()?.iter().filter_map(Value::as_u64).collect();
    let mask = line["policy_mask"].as_array()?;
    let mut log_probs = line["logprobs"].as_array()?.iter();
    let mut sequence = Vec::new();
    let mut between: Vec<u64> = Vec::new();
    let mut count = 0;
    for (id, mask) in ids.iter().zip(mask) {
        if mask.as_u64() != Some(1) {
            between.push(*id);
            continue;
        }
        if !between.is_empty() {
            sequence.push(json!([cut(&texts.text(&std::mem::take(&mut between)))]));
        }
        count += 1;
        if count > MAX_TOKENS {
            sequence.push(json!(["… (the rest is left out)"]));
            return Some(sequence);
        }
        let rounded = log_probs.next().and_then(Value::as_f64).map(|value| (value * 1e4).round() / 1e4);
        sequence.push(json!([texts.text(&[*id]), rounded]));
    }
    if !between.is_empty() {
        sequence.push(json!([cut(&texts.text(&between))]));
    }
    Some(sequence)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}… (the rest is left out)", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn line(step: u64, member: usize) -> String {
        json!({
            "id": format!("{step}-0-{member}"), "step": step, "group": 0, "member": member, "game": "nim", "seat": 1,
            "scripts": ["aa"], "tokens": [10, 11, 12], "policy_mask": [0, 1, 0], "logprobs": [-0.123_456],
            "reward": null, "success": true, "turns": [{"seat": 1, "stage": 0, "answer": "</script>"}],
        })
        .to_string()
    }

    fn store(run: &Path, name: &str, text: &str) {
        let folder = run.join("episodes");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), zstd::encode_all(text.as_bytes(), 0).unwrap()).unwrap();
    }

    #[test]
    fn damaged_and_abandoned_files_do_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), "step-000001.jsonl.zst", &format!("{}\nhello\n{{}}\n", line(1, 0)));
        store(folder.path(), "abandoned-step-000009.jsonl.zst", &format!("{}\n", line(9, 0)));
        store(folder.path(), "step-000002.jsonl.zst", &format!("{}\n{}", line(2, 0), &line(2, 1)[..40]));
        std::fs::write(folder.path().join("episodes/step-000003.jsonl.zst"), "not zstd").unwrap();
        let sample = sample(folder.path(), 1 << 20);
        let ids: Vec<_> = sample.episodes.iter().filter_map(|episode| episode["id"].as_str()).collect();
        assert_eq!((ids, sample.file_count), (vec!["1-0-0", "2-0-0"], 3));
        assert_eq!(sample.episodes[0]["tokens"], json!([["[10]"], ["[11]", -0.1235], ["[12]"]]));
        assert!(sample.problems.iter().any(|problem| problem.contains("step-000003")), "{:?}", sample.problems);
        assert!(sample.problems.iter().any(|problem| problem.contains("damaged")), "{:?}", sample.problems);
    }

    /// Whatever a run holds, the page stays small and has episodes of its whole time.
    #[test]
    fn a_sample_is_bounded_and_spread() {
        let folder = tempfile::tempdir().unwrap();
        for step in 1..=50 {
            let mut text = String::new();
            (0..100).for_each(|member| writeln!(text, "{}", line(step, member)).unwrap());
            store(folder.path(), &format!("step-{step:06}.jsonl.zst"), &text);
        }
        let sample = sample(folder.path(), 60_000);
        let bytes = serde_json::to_string(&sample.episodes).unwrap().len();
        assert!((60_000..62_000).contains(&bytes), "{bytes}");
        assert_eq!((sample.seen_count, sample.read_file_count, sample.file_count), (4000, 40, 50));
        let steps: std::collections::BTreeSet<_> =
            sample.episodes.iter().filter_map(|one| one["step"].as_u64()).collect();
        assert!(steps.len() == 40 && steps.contains(&1) && steps.contains(&50));
    }
}
