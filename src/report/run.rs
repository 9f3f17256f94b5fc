//! All that a page tells of one run.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint;
use crate::metrics::{MetricValue, Record, names, read_evaluations, read_launches};

use super::curves::{Curves, Follower, thinned};
use super::{episodes, versions};

/// The most points that a curve is drawn with.
const MAX_POINTS: usize = 1_500;

/// The most events that are carried, the newest.
const MAX_EVENTS: usize = 2_000;

/// A run directory, read as far as it can be.
#[derive(Debug)]
pub struct RunView {
    folder: PathBuf,
    curves: Curves,
    config: Option<String>,
    problems: Vec<String>,
}

impl RunView {
    /// Reads settings and metrics of a run. What is missing or damaged is told on the page.
    pub fn read(folder: &Path) -> Self {
        let mut problems = Vec::new();
        let config = checkpoint::read_text(&folder.join("config.toml"));
        let mut follower = Follower::new(folder);
        if let Err(error) = follower.poll() {
            problems.push(format!("metrics.jsonl cannot be read: {error}"));
        }
        let curves = follower.curves;
        if let Err(error) = &config {
            problems.push(format!("the settings are missing: {error}"));
        }
        if curves.records().is_empty() {
            problems.push("metrics.jsonl has no iteration yet".to_owned());
        }
        if curves.damaged_count > 0 {
            problems.push(format!("metrics.jsonl: damaged lines left out: {}", curves.damaged_count));
        }
        Self { folder: folder.to_owned(), curves, config: config.ok(), problems }
    }

    /// The run as the page's data; `max_bytes` is for its episodes.
    pub(super) fn to_json(&self, name: &str, max_bytes: usize) -> Value {
        let records = self.curves.records();
        let metrics = self.curves.names();
        let curves = |name: &String| (name.clone(), points_json(&self.curves.points(name)));
        let is_thinned = records.len() > MAX_POINTS;
        let mut events: Vec<Value> = records.iter().rev().filter_map(event).take(MAX_EVENTS).collect();
        events.reverse();
        json!({
            "name": name,
            "folder": self.folder.display().to_string(),
            "config": self.config,
            "facts": self.facts(),
            "steps": [records.first().map(Record::step), self.curves.last().map(Record::step)],
            "is_thinned": is_thinned,
            "curves": metrics.iter().map(curves).collect::<serde_json::Map<_, _>>(),
            "versions": versions::changes(&self.folder, records),
            "events": events,
            "evaluations": read_evaluations(&self.folder),
            "league": self.league(),
            "sample": episodes::sample(&self.folder, max_bytes),
            "problems": self.problems,
        })
    }

    /// The league as the run last wrote it; `null` without one, or if it is not what a run writes.
    fn league(&self) -> Option<Value> {
        let text = checkpoint::read_text(&self.folder.join("league.json")).ok()?;
        let mut stored: Value = serde_json::from_str(&text).ok()?;
        let league = stored.get_mut("league").map(Value::take)?;
        let is_rating = |value: &Value| value["value"].is_number() && value["deviation"].is_number();
        let is_member = |member: &Value| {
            is_rating(&member["rating"])
                && ["episodes", "recent", "score"].iter().all(|field| member[field].is_number())
        };
        let is_standing = |standing: &Value| {
            let members = standing["members"].as_object();
            is_rating(&standing["learner"]) && members.is_some_and(|members| members.values().all(is_member))
        };
        let is_whole = league["games"].as_object()?.values().all(is_standing);
        is_whole.then_some(league)
    }

    /// What was run, in short: name and value.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = self.launch_facts();
        let config: toml::Table = self.config.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let setting = |name: &str| match config.get(name)? {
            toml::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        if let Some(files) = config.get("games").and_then(|games| games.get("files")).and_then(toml::Value::as_array) {
            let files: Vec<&str> = files.iter().filter_map(toml::Value::as_str).collect();
            facts.push(("games", files.join(", ")));
        }
        for name in ["nest", "reward", "model", "opponent", "device", "dtype", "seed"] {
            facts.extend(setting(name).map(|value| (name, value)));
        }
        let done = self.curves.last().map_or(0, Record::step);
        let of = setting("steps").map_or_else(String::new, |steps| format!(" of {steps}"));
        facts.push(("iterations", format!("{done}{of}")));
        let sum = |name: &str| self.curves.points(name).iter().map(|point| point.1).sum::<f64>();
        let seconds = sum(names::TIME_ROLLOUT_S) + sum(names::TIME_UPDATE_S);
        facts.push(("time in iterations", format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0)));
        if let Some((_, bytes)) = self.curves.points(names::MEMORY_PEAK_BYTES).last() {
            facts.push(("most memory", format!("{:.0} MiB", bytes / f64::from(1 << 20))));
        }
        facts
    }
}

impl RunView {
    /// How and where it was run, if it says so.
    fn launch_facts(&self) -> Vec<(&'static str, String)> {
        let launches = read_launches(&self.folder);
        let (Some(first), Some(last)) = (launches.first(), launches.last()) else { return Vec::new() };
        let mut facts = vec![("command", first.command.clone())];
        for again in &launches[1..] {
            facts.push(("resumed", format!("after iteration {}: {}", again.step, again.command)));
        }
        let mut processor = vec![last.processor.clone(), format!("{} cores", last.cores)];
        processor.push(format!("threads used: {}", last.threads));
        processor.retain(|part| !part.is_empty());
        facts.push(("processor", processor.join(", ")));
        if last.memory_bytes > 0 {
            facts.push(("memory", format!("{:.1} GiB", last.memory_bytes as f64 / f64::from(1 << 30))));
        }
        facts.push(("computed on", last.device.clone()));
        facts.push(("program", format!("gift-host {}, {}", last.version, last.system)));
        facts
    }
}

fn points_json(points: &[(f64, f64)]) -> Value {
    // Six digits draw the same curve as seventeen.
    let short = |y: f64| format!("{y:.5e}").parse().unwrap_or(y);
    thinned(points, MAX_POINTS).into_iter().map(|(x, y)| json!([x, short(y)])).collect()
}

fn event(record: &Record) -> Option<Value> {
    match record.get(names::RELOAD_EVENTS)? {
        MetricValue::Text(text) => Some(json!({"step": record.step(), "text": text})),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that took what lies there for a league would not be drawn at all.
    #[test]
    fn a_league_is_shown_only_if_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let league = |text: &str| {
            std::fs::write(folder.path().join("league.json"), text).unwrap();
            RunView::read(folder.path()).league()
        };
        let rating = r#"{"value":1500.0,"deviation":20.0}"#;
        let member = format!(r#"{{"rating":{rating},"episodes":3,"recent":2.5,"score":1.0}}"#);
        let whole = format!(
            r#"{{"format":1,"step":4,"league":{{"snapshots":[],"games":{{"g":{{"learner":{rating},"members":{{"bot":{member}}}}}}}}}}}"#
        );
        assert_eq!(league(&whole).unwrap()["games"]["g"]["members"]["bot"]["episodes"], 3);
        for damaged in ["", "[]", "{}", &whole.replace("1500.0", "null"), &whole.replace("\"recent\":2.5,", "")] {
            assert!(league(damaged).is_none(), "{damaged}");
        }
    }
}
