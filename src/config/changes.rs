//! Settings that change while a run goes on: which may, which may not and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::{Table, Value};

use super::RunConfig;

/// Settings that are read anew in every iteration, so that a run may change them at a rollout boundary.
pub const CHANGEABLE: [&str; 16] = [
    "steps",
    "checkpoint_every",
    "episodes_every",
    "decode.min_p",
    "decode.temperature",
    "decode.top_k",
    "decode.top_p",
    "loss.clip_high",
    "loss.clip_low",
    "loss.entropy_coefficient",
    "optimizer.final_share",
    "optimizer.learning_rate",
    "optimizer.max_gradient_norm",
    "optimizer.warmup_updates",
    "optimizer.weight_decay",
    "scripts.max_voided_share",
];

/// Why a setting that may change does not.
const MIXTURE: &str = "together with the settings that cannot change it is not valid";

/// A setting that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The dotted key.
    pub key: String,
    /// What it was.
    pub old: String,
    /// What it is now.
    pub new: String,
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// What becomes of settings that were saved while a run goes on.
#[derive(Clone, Debug)]
pub struct Review {
    /// The settings to go on with: those in service, with the changes that may be made.
    pub config: RunConfig,
    /// What was changed.
    pub changes: Vec<SettingChange>,
    /// What may not change, each with the reason.
    pub refused: Vec<(SettingChange, &'static str)>,
}

/// Takes what may change from `wanted` and leaves the rest as in `current`.
pub fn review(current: &RunConfig, wanted: &RunConfig) -> Review {
    let (mut config, mut changes, mut refused) = (flat(current), Vec::new(), Vec::new());
    let wanted = flat(wanted);
    let keys: BTreeSet<String> = config.keys().chain(wanted.keys()).cloned().collect();
    for key in keys {
        let (old, new) = (config.get(&key), wanted.get(&key));
        // The run directory is where the run is, whatever a file says.
        if old == new || key == "out" {
            continue;
        }
        let change = SettingChange { old: shown(old), new: shown(new), key: key.clone() };
        match new {
            Some(value) if CHANGEABLE.contains(&key.as_str()) => {
                config.insert(key, value.clone());
                changes.push(change);
            }
            _ => refused.push((change, reason(&key))),
        }
    }
    // Both were valid; a mixture that is none changes nothing.
    let Some(config) = nested(config).try_into::<RunConfig>().ok().filter(|config| config.validate().is_ok()) else {
        refused.extend(changes.into_iter().map(|change| (change, MIXTURE)));
        return Review { config: current.clone(), changes: Vec::new(), refused };
    };
    Review { config, changes, refused }
}

/// Why a setting cannot change in mid-run.
fn reason(key: &str) -> &'static str {
    match key.split('.').next().unwrap_or_default() {
        "games" if key == "games.files" => {
            "the games of a run are those it began with; further ones join through the nest or a folder given to `--games`"
        }
        "games" => "the options of a game are part of what it is, and results before and after could not be compared",
        "nest" | "reward" => "another script cannot take its place; save a new version of the one in service",
        "model" | "device" | "dtype" | "threads" | "lora" => "the model is made once, at the start",
        "opponent" | "seat" | "remote" | "league" => {
            "results against other opponents or in other seats could not be compared"
        }
        "seed" => "every random stream of the run comes from it",
        "rollout" => "memory and the length of trajectories are planned for it at the start",
        "decode" => "the policy would see or write another form of text than it was trained on",
        "penalty" => "rewards before and after could not be compared; write a reward script, which may change",
        "advantage" | "filter" => "the estimator and the filter are built at the start and keep what they saw",
        "loss" if key == "loss.kl_coefficient" => "the frozen first policy is loaded at the start",
        "loss" | "optimizer" => "it changes what the optimizer's state means",
        "evaluation" => "the measurements before and after training must agree",
        "scripts" => "the compiled scripts hold it",
        _ => "it is read once, at the start",
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "not set".to_owned(),
        // Settings of 32 bits look odd in 64.
        Some(Value::Float(number)) if f64::from(*number as f32) == *number => (*number as f32).to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// Every setting by its dotted key.
fn flat(config: &RunConfig) -> BTreeMap<String, Value> {
    fn add(prefix: &str, table: Table, settings: &mut BTreeMap<String, Value>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                // Options of games may hold tables of their own, which are compared as a whole.
                Value::Table(table) if prefix.is_empty() && key != "games" => add(&key, table, settings),
                Value::Table(table) if key == "games" => {
                    settings.extend(table.into_iter().map(|(name, value)| (format!("games.{name}"), value)));
                }
                value => _ = settings.insert(key, value),
            }
        }
    }
    let mut settings = BTreeMap::new();
    add("", Table::try_from(config).unwrap_or_default(), &mut settings);
    settings
}

fn nested(settings: BTreeMap<String, Value>) -> Table {
    let mut table = Table::new();
    for (key, value) in settings {
        match key.split_once('.') {
            None => _ = table.insert(key, value),
            Some((section, name)) => {
                let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Some(section) = section.as_table_mut() {
                    section.insert(name.to_owned(), value);
                }
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_toml;

    fn config(pairs: &[&str]) -> RunConfig {
        from_toml(None, &pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_refused_with_the_reason() {
        let current = config(&["games.math.level=1", "steps=10"]);
        let wanted = config(&[
            "games.math.level=2",
            "steps=20",
            "decode.temperature=0.8",
            "optimizer.learning_rate=1e-4",
            "rollout.groups=8",
            "out=elsewhere",
            "nest=n.lua",
        ]);
        let review = review(&current, &wanted);
        let texts: Vec<String> = review.changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["decode.temperature: 1 -> 0.8", "optimizer.learning_rate: 0.0005 -> 0.0001", "steps: 10 -> 20"]
        );
        let refused: Vec<&str> = review.refused.iter().map(|(change, _)| change.key.as_str()).collect();
        assert_eq!(refused, ["games.math", "nest", "rollout.groups"]);
        assert!(review.refused.iter().all(|(_, reason)| !reason.is_empty()));
        let expected = RunConfig {
            steps: 20,
            decode: crate::config::Decode { temperature: 0.8, ..current.decode.clone() },
            optimizer: crate::config::Optimizer { learning_rate: 1e-4, ..current.optimizer.clone() },
            ..current
        };
        assert_eq!(review.config, expected);
    }

    #[test]
    fn every_changeable_setting_exists_and_every_other_one_has_a_reason() {
        let known = flat(&RunConfig::default());
        for key in CHANGEABLE {
            assert!(known.contains_key(key), "{key}");
        }
        for key in known.keys().filter(|key| !CHANGEABLE.contains(&key.as_str())) {
            assert!(!reason(key).is_empty(), "{key}");
        }
        assert_eq!(nested(known).try_into::<RunConfig>().unwrap(), RunConfig::default());
    }
}
