//! From the episodes file of one iteration alone, everything that the update was made of can be computed again: scores
//! of the tokens, advantages, which groups were kept, and the loss.
#![expect(clippy::float_cmp, reason = "the counts here are whole numbers")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gift_host::policy::{Sequence, Target, Tokenizer};
use gift_host::run::{Figures, write_episodes};
use serde_json::Value;

use super::support::{Lab, catalog, config, decoder, iterate, pool, start};

const TEMPERATURE: f32 = 0.8;

/// The figures of a first iteration and the lines of its episodes file.
fn first_iteration(more: &[&str]) -> (Figures, Vec<Value>) {
    let lab = Lab::new();
    let games = ["games/tictactoe.lua", "games/nim.rhai"].map(PathBuf::from);
    let temperature = format!("decode.temperature={TEMPERATURE}");
    let settings = [&[temperature.as_str()], more].concat();
    pool(2).install(|| {
        let mut run = start(config(&settings), catalog(&games, None, None));
        let report = iterate(&mut run);
        let path = write_episodes(&lab.path("run"), report.step, &report.trajectories()).expect("a file");
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("step-000001.jsonl.zst"));
        (report.figures, read(&path))
    })
}

fn read(path: &Path) -> Vec<Value> {
    let bytes = zstd::decode_all(&std::fs::read(path).expect("the file")[..]).expect("zstd");
    let text = String::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn list<'a>(line: &'a Value, key: &str) -> &'a [Value] {
    line[key].as_array().unwrap_or_else(|| panic!("`{key}` is no list: {line}"))
}

fn numbers(line: &Value, key: &str) -> Vec<f64> {
    list(line, key).iter().map(|item| item.as_f64().expect("a number")).collect()
}

fn tokens(line: &Value) -> Vec<u32> {
    list(line, "tokens").iter().map(|token| token.as_u64().expect("an id") as u32).collect()
}

/// The sampled tokens of a line: where, and among which ids.
fn targets(line: &Value) -> Vec<Target> {
    let mask = list(line, "policy_mask");
    let positions = (0..mask.len()).filter(|&position| mask[position] == 1);
    let ids = |allowed: &Value| -> Option<Arc<[u32]>> {
        Some(allowed.as_array()?.iter().map(|id| id.as_u64().expect("an id") as u32).collect())
    };
    positions
        .zip(list(line, "allowed"))
        .map(|(position, allowed)| Target { position: position as u32, allowed: ids(allowed) })
        .collect()
}

/// The lines by group, in the order of the members.
fn groups(lines: &[Value]) -> BTreeMap<u64, Vec<&Value>> {
    let mut groups: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for line in lines {
        groups.entry(line["group"].as_u64().expect("a group")).or_default().push(line);
    }
    groups
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

fn deviation(numbers: &[f64]) -> f64 {
    let mean = mean(numbers);
    (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (numbers.len() - 1) as f64).sqrt()
}

fn reward(line: &Value) -> f64 {
    line["reward"].as_f64().expect("a reward")
}

#[test]
fn lengths_agree_and_masked_tokens_spell_the_answers() {
    let (_, lines) = first_iteration(&[]);
    assert_eq!(lines.len(), 16);
    for line in &lines {
        let (tokens, mask) = (tokens(line), list(line, "policy_mask"));
        assert_eq!(tokens.len(), mask.len());
        let sampled = mask.iter().filter(|entry| **entry == 1).count();
        assert_eq!(sampled, list(line, "logprobs").len());
        assert_eq!(sampled, list(line, "allowed").len());
        assert!(numbers(line, "logprobs").iter().all(|log_prob| *log_prob <= 0.0));
        for target in targets(line) {
            let allowed = target.allowed.expect("answers are sampled among the legal ones");
            assert!(allowed.len() > 1 && allowed.contains(&tokens[target.position as usize]));
        }
        // What the learner saw and answered stands in the tokens, in order: prompt, answer, end.
        let own_seats: Vec<&Value> = list(line, "seat").iter().collect();
        let mut expected = Vec::new();
        for turn in list(line, "turns") {
            if turn["seat"] == *own_seats[turn["stage"].as_u64().expect("a stage") as usize] {
                expected.extend(Tokenizer::Bytes.prompt(turn["observation"].as_str().expect("text"), false));
                expected.extend(Tokenizer::Bytes.encode(turn["answer"].as_str().expect("text")));
                expected.push(Tokenizer::Bytes.end());
            }
        }
        assert_eq!(tokens, expected, "{}", line["id"]);
        assert!((mean(&numbers(line, "stage_rewards")) - reward(line)).abs() < 1e-12);
    }
}

/// The first policy is known without a checkpoint: it is made from the seed.
#[test]
fn stored_log_probabilities_are_those_of_the_first_policy() {
    let (figures, lines) = first_iteration(&[]);
    let all: Vec<(Vec<u32>, Vec<Target>)> = lines.iter().map(|line| (tokens(line), targets(line))).collect();
    let sequences: Vec<Sequence<'_>> = all.iter().map(|(tokens, targets)| Sequence { tokens, targets }).collect();
    let scores = pool(2).install(|| decoder().score(&sequences, TEMPERATURE).expect("scores"));
    let mut largest = 0.0_f64;
    for (line, scores) in lines.iter().zip(&scores) {
        for (stored, score) in numbers(line, "logprobs").into_iter().zip(scores) {
            largest = largest.max((stored - f64::from(score.log_prob)).abs());
        }
    }
    assert!(largest < 1e-4, "they differ by up to {largest}");
    assert!(figures["kl/rollout_train"].abs() < 1e-7, "{figures:?}");
    assert!((figures["ratio_max"] - 1.0).abs() < 1e-3, "{figures:?}");
}

#[test]
fn advantages_follow_from_the_rewards_of_the_group() {
    for (estimator, divides) in [("advantage.estimator=mean_std", true), ("advantage.estimator=mean", false)] {
        let (_, lines) = first_iteration(&[estimator]);
        for members in groups(&lines).values() {
            assert_eq!(members.len(), 4);
            let rewards: Vec<f64> = members.iter().map(|line| reward(line)).collect();
            let (mean, spread) = (mean(&rewards), deviation(&rewards));
            for (line, reward) in members.iter().zip(&rewards) {
                let scale = if divides { spread + 1e-6 } else { 1.0 };
                let expected = if spread < 1e-8 { 0.0 } else { (reward - mean) / scale };
                let stored = line["advantage"].as_f64().expect("an advantage");
                assert!((stored - expected).abs() < 1e-5, "{estimator}: {stored} is not {expected} of {rewards:?}");
            }
            let shared = |key: &str| members.iter().all(|line| line[key] == members[0][key]);
            assert!(shared("seed") && shared("seat") && shared("scripts") && shared("game"), "{members:?}");
        }
    }
}

#[test]
fn kept_groups_are_those_with_the_widest_rewards() {
    for ratio in [0.25, 0.5, 1.0] {
        let (figures, lines) = first_iteration(&[&format!("filter.ratio={ratio}")]);
        let groups = groups(&lines);
        let spread_of = |members: &[&Value]| deviation(&members.iter().map(|line| reward(line)).collect::<Vec<_>>());
        let mut spreads: Vec<(u64, f64)> = groups.iter().map(|(group, members)| (*group, spread_of(members))).collect();
        spreads.retain(|(_, spread)| *spread >= 1e-8);
        let zero_count = groups.len() - spreads.len();
        spreads.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: the earlier of equals first
        spreads.truncate(((ratio * groups.len() as f64) as usize).max(1));
        for (group, members) in &groups {
            let expected = spreads.iter().any(|(kept, _)| kept == group);
            assert!(members.iter().all(|line| line["kept"] == expected), "group {group} with ratio {ratio}");
        }
        assert_eq!(figures["groups/kept"], spreads.len() as f64);
        assert_eq!(figures["groups/zero_std"], zero_count as f64);
    }
}

/// Before the first step every ratio is 1, so the loss is minus the mean advantage over the kept tokens.
#[test]
fn the_loss_follows_from_the_file() {
    let (figures, lines) = first_iteration(&[]);
    let kept = || lines.iter().filter(|line| line["kept"] == true);
    let count = |line: &Value| list(line, "logprobs").len() as f64;
    let weighted: f64 = kept().map(|line| line["advantage"].as_f64().expect("an advantage") * count(line)).sum();
    let tokens: f64 = kept().map(count).sum();
    let expected = -weighted / tokens;
    assert!(tokens > 0.0 && (figures["loss"] - expected).abs() < 1e-5, "{} is not {expected}", figures["loss"]);
    let rewards: Vec<f64> = lines.iter().map(reward).collect();
    assert!((figures["reward/mean"] - mean(&rewards)).abs() < 1e-9);
    let won = lines.iter().filter(|line| line["success"] == true).count() as f64;
    assert!((figures["success/all"] - won / lines.len() as f64).abs() < 1e-12);
}
