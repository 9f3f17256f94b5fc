//! The loop of a rollout: rules, model, rules, until every trajectory is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rayon::prelude::*;

use crate::game::for_each_abandonable;

use super::batcher::{Batcher, Pass, Request};
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
    let mut batcher = Batcher::new(slots.len(), settings.max_batch_tokens, settings.max_cache_bytes);
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
        for (index, _) in slots.iter().enumerate().filter(|(_, slot)| slot.waiting == Waiting::Nothing) {
            batcher.finish(index);
        }
        let requests: Vec<Request<'_>> =
            waiting.iter().map(|&sequence| Request { sequence, tokens: &slots[sequence].tokens }).collect();
        for pass in batcher.step(table.decoder, &requests)? {
            accept(&mut slots, &pass, table, settings);
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
    let batching = batcher.stats();
    stats.model_tokens = batching.computed;
    stats.shared_tokens = batching.shared;
    stats.preempted = batching.preempted;
    stats.total = (table.clock)().saturating_sub(started);
    Ok((groups, stats))
}

/// Samples a token for each trajectory of a pass.
fn accept(slots: &mut [Slot<'_>], pass: &Pass, table: &Table<'_>, settings: &RolloutSettings) {
    let mut slots = slots.iter_mut().enumerate();
    let with_row = |(index, row)| slots.find(|(slot, _)| *slot == index).map(|(_, slot)| (slot, row));
    let work: Vec<_> = pass.rows().filter_map(with_row).collect();
    // Every trajectory draws from a stream of its own.
    work.into_par_iter().for_each(|(slot, row)| slot.accept(row, table, settings));
}
