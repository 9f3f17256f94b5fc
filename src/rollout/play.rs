//! The loop of a rollout: rules, model, rules, until every trajectory is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::game::for_each_abandonable;
use crate::policy::Chunk;

use super::slot::{Slot, Waiting};
use super::{Error, Group, GroupPlan, RolloutSettings, RolloutStats, Table};

/// How long the loop sleeps where every trajectory waits for an opponent.
const PATIENCE: Duration = Duration::from_millis(5);

/// Plays every member of every group to its end. The result depends on the plans, the weights and the settings alone,
/// not on the number of threads.
///
/// # Errors
/// [`Error::Interrupted`] if the table's flag was set; [`Error::Policy`] if the model failed. Faults of scripts are no
/// errors: they void their trajectory.
pub fn play(
    table: &Table<'_>,
    plans: &[GroupPlan],
    settings: &RolloutSettings,
) -> Result<(Vec<Group>, RolloutStats), Error> {
    let started = (table.clock)();
    let mut stats = RolloutStats::default();
    let mut slots: Vec<Slot<'_>> = plans
        .iter()
        .enumerate()
        .flat_map(|(group, plan)| (0..plan.members).map(move |member| Slot::new(plan, group, member)))
        .collect();
    loop {
        if table.interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let rules_started = (table.clock)();
        for slot in slots.iter_mut().filter(|slot| slot.waiting == Waiting::Opponent && slot.is_answered()) {
            slot.waiting = Waiting::Rules;
        }
        let at_the_rules = slots.iter_mut().filter(|slot| slot.waiting == Waiting::Rules).collect();
        for slot in for_each_abandonable(at_the_rules, |slot| slot.advance(table, settings)) {
            slot.void_as_stuck();
        }
        if let Some(problem) = slots.iter_mut().find_map(|slot| slot.stop.take()) {
            return Err(Error::Opponent(problem));
        }
        let waiting: Vec<usize> = (0..slots.len()).filter(|&index| slots[index].waiting == Waiting::Model).collect();
        let is_over = !slots.iter().any(|slot| slot.waiting == Waiting::Opponent);
        if waiting.is_empty() && !is_over {
            // Nothing can be done but to wait.
            std::thread::sleep(PATIENCE);
        }
        stats.env += (table.clock)().saturating_sub(rules_started);
        if waiting.is_empty() && is_over {
            break;
        }
        for batch in batches(&slots, &waiting, settings.max_batch_tokens) {
            stats.model_tokens += step(&mut slots, &batch, table, settings)?;
        }
    }
    let mut groups: Vec<Group> = plans
        .iter()
        .map(|plan| Group {
            games: plan.stages.iter().map(|stage| stage.game.name.clone()).collect(),
            ..Group::default()
        })
        .collect();
    for slot in slots {
        let group = slot.group;
        stats.opponent_answers += slot.opponent_answers.0;
        stats.opponent_invalid += slot.opponent_answers.1;
        stats.sampled_tokens += slot.sampled_count();
        match slot.into_result() {
            Ok(trajectory) => groups[group].trajectories.push(trajectory),
            Err(voided) => groups[group].voided.push(voided),
        }
    }
    stats.total = (table.clock)().saturating_sub(started);
    Ok((groups, stats))
}

/// Trajectories whose pending tokens are computed together; those of one entry wait for the same tokens with an empty
/// cache, so that one computation serves them all.
type Batch = Vec<Vec<usize>>;

fn batches(slots: &[Slot<'_>], waiting: &[usize], max_tokens: usize) -> Vec<Batch> {
    let mut fresh: BTreeMap<&[u32], usize> = BTreeMap::new();
    let mut entries: Vec<Vec<usize>> = Vec::new();
    for &index in waiting {
        let slot = &slots[index];
        if slot.cache.is_none() {
            if let Some(&entry) = fresh.get(slot.pending()) {
                entries[entry].push(index);
                continue;
            }
            fresh.insert(slot.pending(), entries.len());
        }
        entries.push(vec![index]);
    }
    let mut batches: Vec<Batch> = Vec::new();
    let mut size = usize::MAX;
    for entry in entries {
        let tokens = slots[entry[0]].pending().len();
        if size.saturating_add(tokens) > max_tokens {
            batches.push(Vec::new());
            size = 0;
        }
        size += tokens;
        if let Some(batch) = batches.last_mut() {
            batch.push(entry);
        }
    }
    batches
}

/// Computes the pending tokens of a batch and samples a token for each trajectory in it. Returns the tokens computed.
fn step(slots: &mut [Slot<'_>], batch: &Batch, table: &Table<'_>, settings: &RolloutSettings) -> Result<usize, Error> {
    let mut caches: Vec<_> =
        batch.iter().map(|entry| slots[entry[0]].cache.take().unwrap_or_else(|| table.decoder.new_cache())).collect();
    let mut chunks: Vec<Chunk<'_>> = caches
        .iter_mut()
        .zip(batch)
        .map(|(cache, entry)| {
            let tokens = &slots[entry[0]].tokens[cache.len()..];
            Chunk { cache, tokens }
        })
        .collect();
    let computed = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
    let logits = table.decoder.extend(&mut chunks)?; // [entries, vocab]
    let vocabulary = logits.len() / batch.len().max(1);
    for ((entry, cache), row) in batch.iter().zip(caches).zip(logits.chunks(vocabulary.max(1))) {
        for &index in &entry[1..] {
            slots[index].cache = Some(cache.clone());
            slots[index].accept(row, table, settings);
        }
        slots[entry[0]].cache = Some(cache);
        slots[entry[0]].accept(row, table, settings);
    }
    Ok(computed)
}
