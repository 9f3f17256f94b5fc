//! What TensorBoard is shown beyond figures: how rewards and lengths are spread, a transcript of each game, and the settings.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::config::RunConfig;
use crate::metrics::{Details, Hyperparameter};
use crate::rollout::StageRecord;
use crate::run::IterationReport;

use super::super::logging::without_secrets;

/// Characters of one observation or answer in a transcript.
const MAX_TEXT_CHARS: usize = 2_000;
/// Characters of one hyperparameter.
const MAX_VALUE_CHARS: usize = 200;

/// Histograms over everything that the iteration played: `histogram/reward` over trajectories, `histogram/reward/<game>` over
/// plays, `histogram/length` (sampled tokens) likewise. With `samples` also `sample/<game>`, the first play of each game as text.
pub(super) fn details(report: &IterationReport, samples: bool) -> Details {
    let mut details = Details::default();
    let mut add = |tag: String, number: f64| details.histograms.entry(tag).or_default().push(number);
    let trajectories = || report.groups.iter().flat_map(|scored| &scored.group.trajectories);
    for trajectory in trajectories() {
        add("histogram/reward".to_owned(), trajectory.reward);
        add("histogram/length".to_owned(), trajectory.targets.len() as f64);
        for stage in &trajectory.stages {
            add(format!("histogram/reward/{}", stage.game), stage.reward);
            add(format!("histogram/length/{}", stage.game), stage.sampled_count as f64);
        }
    }
    if samples {
        for (trajectory, stage) in trajectories().flat_map(|one| one.stages.iter().map(move |stage| (one, stage))) {
            let tag = format!("sample/{}", stage.game);
            details.texts.entry(tag).or_insert_with(|| transcript(&trajectory.id, stage));
        }
    }
    details
}

/// A play as Markdown. Every line of the game and of the model is indented, so that none is taken for Markdown or HTML.
fn transcript(id: &str, stage: &StageRecord) -> String {
    let mut text = format!("Episode {id}, reward {:.3}\n\n", stage.reward);
    let mut put = |line: &str| _ = writeln!(text, "    {line}");
    for turn in &stage.turns {
        let who = if turn.seat == stage.seat { "learner" } else { "opponent" };
        let legal = if turn.legal { "" } else { ", illegal" };
        put(&format!("--- seat {}, {who}{legal}", turn.seat));
        lines(&shortened(&turn.observation, MAX_TEXT_CHARS)).for_each(&mut put);
        lines(&shortened(&turn.answer, MAX_TEXT_CHARS)).for_each(|line| put(&format!("> {line}")));
    }
    text
}

/// The lines of a text, by everything that some reader of Markdown takes for the end of one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'])
}

fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The settings by their dotted names, secrets hidden; lists as their text.
pub(super) fn hyperparameters(config: &RunConfig) -> Vec<(String, Hyperparameter)> {
    let mut values = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(config) {
        flatten("", &toml::Value::Table(table), &mut values);
    }
    values.into_iter().collect()
}

fn flatten(name: &str, value: &toml::Value, values: &mut BTreeMap<String, Hyperparameter>) {
    let value = match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, values);
            }
            return;
        }
        toml::Value::Integer(number) => Hyperparameter::Number(*number as f64),
        toml::Value::Float(number) => Hyperparameter::Number(*number),
        toml::Value::Boolean(truth) => Hyperparameter::Truth(*truth),
        toml::Value::String(text) => Hyperparameter::Text(shortened(&without_secrets(text), MAX_VALUE_CHARS)),
        other => Hyperparameter::Text(shortened(&without_secrets(&other.to_string()), MAX_VALUE_CHARS)),
    };
    values.insert(name.to_owned(), value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::TurnRecord;
    use crate::seed::Seed;

    #[test]
    fn no_line_of_a_transcript_is_markdown() {
        let turn = TurnRecord {
            seat: 1,
            observation: "# one\n<script>alert(1)</script>".to_owned(),
            answer: "a\n- b\r# c\u{2028}# d".to_owned(),
            action: "b".to_owned(),
            legal: false,
            well_formed: true,
            reward: 0.0,
        };
        let stage = StageRecord {
            players: Vec::new(),
            game: "nim".to_owned(),
            version: String::new(),
            seed: Seed::new(0),
            seat: 1,
            turns: vec![turn],
            scores: vec![0.0],
            reward: -0.1,
            success: false,
            truncated: false,
            prompt_count: 1,
            sampled_count: 2,
        };
        let text = transcript("1-0-0", &stage);
        let expected = "Episode 1-0-0, reward -0.100\n\n    --- seat 1, learner, illegal\n    # one\n    \
                        <script>alert(1)</script>\n    > a\n    > - b\n    > # c\n    > # d\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn settings_become_dotted_names() {
        let values: BTreeMap<_, _> = hyperparameters(&RunConfig::default()).into_iter().collect();
        assert_eq!(values["optimizer.learning_rate"], Hyperparameter::Number(5e-4));
        assert_eq!(values["model"], Hyperparameter::Text("tiny".to_owned()));
        assert_eq!(values["scripts.reload"], Hyperparameter::Truth(true));
    }
}
