//! The loop of a rollout: rules, models, rules, until every trajectory is over.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::game::for_each_abandonable;
use crate::opponent::ModelPasses;
use crate::policy::{Dialogue, advance};

use super::slot::{FurtherTrajectory, Slot, Starts, Waiting};
use super::{Error, Group, GroupPlan, RolloutSettings, RolloutStats, Table};

/// How long the loop sleeps where every trajectory waits for an opponent.
const PATIENCE: Duration = Duration::from_millis(5);

/// Both results, by two threads if `is_parallel`.
fn at_once<A: Send, B: Send>(
    is_parallel: bool,
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if is_parallel { rayon::join(one, other) } else { (one(), other()) }
}

/// Plays every member of every group to its end. The result depends on the plans, the weights and the settings alone,
/// not on the number of threads.
///
/// The groups come in the order of the plans. Seats that the policy took beside the planned ones (self-play) follow behind
/// them: the trajectories of one seat in one stage, over the members of a plan, are a group.
///
/// # Errors
/// [`Error::Interrupted`] if the table's flag was set; [`Error::Policy`] if the model failed, [`Error::Opponent`] if an
/// opponent cannot go on. Faults of scripts are no
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
        .flat_map(|(group, plan)| {
            let starts: Starts = plan.stages.iter().map(|_| Mutex::default()).collect();
            (0..plan.members).map(move |member| Slot::new(plan, Arc::clone(&starts), group, member))
        })
        .collect();
    let rules = settings.answer_rules();
    let mut batcher = rules.batcher();
    let mut passes = ModelPasses::default();
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
        stats.env += (table.clock)().saturating_sub(rules_started);
        let (mut dialogues, mut thinking): (Vec<&mut Dialogue>, Vec<_>) = (Vec::new(), Vec::new());
        for slot in &mut slots {
            match slot.waiting {
                Waiting::Model => dialogues.extend(slot.open_dialogue()),
                Waiting::Opponent => thinking.extend(slot.thinking()),
                _ => {}
            }
        }
        let is_idle = dialogues.is_empty() && thinking.is_empty();
        let models_started = (table.clock)();
        // On the CPU a small pass leaves threads idle, so both go on at once.
        let (learner, opponents) = at_once(
            table.decoder.device() == "cpu",
            || {
                advance(&mut dialogues, &mut batcher, table.decoder, table.tokenizer, &rules)?;
                Ok::<_, Error>((table.clock)())
            },
            || passes.advance(thinking),
        );
        let learner_done = learner?;
        opponents.map_err(Error::Opponent)?;
        stats.env += (table.clock)().saturating_sub(learner_done.max(models_started));
        for slot in slots.iter_mut().filter(|slot| slot.waiting == Waiting::Model) {
            if slot.open_dialogue().is_none() {
                slot.waiting = Waiting::Rules;
            }
        }
        if is_idle {
            if !slots.iter().any(|slot| slot.waiting == Waiting::Opponent) {
                break;
            }
            // Nothing can be done but to wait.
            std::thread::sleep(PATIENCE);
            stats.env += (table.clock)().saturating_sub(learner_done);
        }
    }
    let groups = finish(plans, slots, &mut stats);
    let batching = batcher.stats();
    stats.model_tokens = batching.computed;
    stats.shared_tokens = batching.shared;
    stats.preempted = batching.preempted;
    stats.total = (table.clock)().saturating_sub(started);
    Ok((groups, stats))
}

/// The trajectories by group, those of further seats behind the planned ones.
fn finish(plans: &[GroupPlan], slots: Vec<Slot<'_>>, stats: &mut RolloutStats) -> Vec<Group> {
    let mut groups: Vec<Group> = plans
        .iter()
        .map(|plan| Group {
            games: plan.stages.iter().map(|stage| stage.game.name.clone()).collect(),
            ..Group::default()
        })
        .collect();
    let mut further: BTreeMap<(usize, usize, u32), Vec<FurtherTrajectory>> = BTreeMap::new();
    for slot in slots {
        let group = slot.group;
        stats.opponent_answers += slot.opponent_answers.0;
        stats.opponent_invalid += slot.opponent_answers.1;
        stats.sampled_tokens += slot.sampled_count();
        match slot.into_result() {
            Ok((own, others)) => {
                groups[group].trajectories.push(own);
                for (stage, trajectory) in others {
                    let seat = trajectory.stages.first().map_or(0, |record| record.seat);
                    further.entry((group, stage, seat)).or_default().push((stage, trajectory));
                }
            }
            Err(voided) => groups[group].voided.push(voided),
        }
    }
    for ((group, stage, _), trajectories) in further {
        let number = groups.len();
        let numbered = |(_, mut trajectory): FurtherTrajectory| {
            trajectory.group = number;
            trajectory
        };
        let trajectories = trajectories.into_iter().map(numbered).collect();
        groups.push(Group { games: vec![groups[group].games[stage].clone()], trajectories, voided: Vec::new() });
    }
    groups
}
