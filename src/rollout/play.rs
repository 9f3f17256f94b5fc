//! The loop of a rollout: rules, models, rules, until every trajectory is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::game::for_each_abandonable;
use crate::opponent::ModelPasses;
use crate::policy::advance;

use super::slot::{FurtherTrajectory, Slot, Starts, Waiting};
use super::{Decided, Error, Group, GroupPlan, GroupProgress, RolloutSettings, RolloutStats, Table};

/// How long the loop sleeps where every trajectory waits for an opponent.
const PATIENCE: Duration = Duration::from_millis(5);
/// Trajectories from which it pays to let the model sample for them alone.
const MIN_HALF: usize = 32;

/// How many trajectories go on by the rules at most. Where no model has anything to do, one half of many: from then on each half
/// is at the rules while the model samples for the other.
fn most_at_the_rules(slots: &[Slot<'_>]) -> usize {
    let at = |place: Waiting| slots.iter().filter(|slot| slot.waiting == place).count();
    let count = at(Waiting::Rules);
    let is_split = count >= 2 * MIN_HALF && at(Waiting::Model) == 0 && at(Waiting::Opponent) == 0;
    if is_split { count.div_ceil(2) } else { count }
}

/// Plays every member of every group to its end, but for groups that the table says are decided. The result depends on the plans,
/// the weights and the settings alone, not on the number of threads.
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
    let scripts_ns = AtomicU64::new(0);
    let mut over = 0;
    loop {
        if table.interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        for slot in slots.iter_mut().filter(|slot| slot.waiting == Waiting::Opponent && slot.is_answered()) {
            slot.waiting = Waiting::Rules;
        }
        let most = most_at_the_rules(&slots);
        let (mut at_the_rules, mut dialogues, mut thinking) = (Vec::new(), Vec::new(), Vec::new());
        for slot in &mut slots {
            match slot.waiting {
                Waiting::Rules if at_the_rules.len() < most => at_the_rules.push(slot),
                Waiting::Model => dialogues.extend(slot.open_dialogue()),
                Waiting::Opponent => thinking.extend(slot.thinking()),
                Waiting::Rules | Waiting::Nothing => {}
            }
        }
        let has_rules = !at_the_rules.is_empty();
        let is_idle = !has_rules && dialogues.is_empty() && thinking.is_empty();
        let mut learner = || {
            advance(&mut dialogues, &mut batcher, table.decoder, table.tokenizer, &rules)?;
            Ok::<_, Error>((table.clock)())
        };
        let opponents = || passes.advance(thinking);
        let by_the_rules = || {
            let go_on = |slot: &mut Slot<'_>| {
                let started = (table.clock)();
                slot.advance(table, settings);
                let taken = (table.clock)().saturating_sub(started);
                scripts_ns.fetch_add(taken.as_nanos() as u64, Ordering::Relaxed);
            };
            for slot in for_each_abandonable(at_the_rules, go_on) {
                slot.void_as_stuck();
            }
        };
        let (learner_done, opponents) = if table.decoder.device() == "cpu" {
            // A small pass leaves threads idle, so models go on at once as well.
            rayon::join(|| rayon::join(learner, opponents), by_the_rules).0
        } else {
            std::thread::scope(|scope| {
                if has_rules {
                    scope.spawn(by_the_rules);
                }
                (learner(), opponents())
            })
        };
        let learner_done = learner_done?;
        opponents.map_err(Error::Opponent)?;
        if let Some(problem) = slots.iter_mut().find_map(|slot| slot.stop.take()) {
            return Err(Error::Opponent(problem));
        }
        for slot in slots.iter_mut().filter(|slot| slot.waiting == Waiting::Model) {
            if slot.open_dialogue().is_none() {
                slot.waiting = Waiting::Rules;
            }
        }
        if let Some(decided) = table.decided {
            cut(&mut slots, plans.len(), &mut over, decided);
        }
        if is_idle {
            if !slots.iter().any(|slot| slot.waiting == Waiting::Opponent) {
                break;
            }
            // Nothing can be done but to wait.
            std::thread::sleep(PATIENCE);
        }
        stats.env += (table.clock)().saturating_sub(learner_done);
    }
    let groups = finish(plans, slots, &mut stats);
    let batching = batcher.stats();
    stats.model_tokens = batching.computed;
    stats.shared_tokens = batching.shared;
    stats.preempted = batching.preempted;
    stats.scripts = Duration::from_nanos(scripts_ns.into_inner());
    stats.total = (table.clock)().saturating_sub(started);
    Ok((groups, stats))
}

/// Cuts the groups short that are decided, if more trajectories are `over` than before. But for opponents that answer by the clock,
/// all that has happened so far is the same for any number of threads, and so is what is cut.
fn cut(slots: &mut [Slot<'_>], groups: usize, over: &mut usize, decided: Decided<'_>) {
    let now = slots.iter().filter(|slot| slot.waiting == Waiting::Nothing).count();
    if std::mem::replace(over, now) == now {
        return;
    }
    let mut progress = vec![GroupProgress::default(); groups];
    for slot in slots.iter() {
        slot.count(&mut progress[slot.group]);
    }
    let decided = decided(&progress);
    let playing = slots.iter_mut().filter(|slot| slot.waiting != Waiting::Nothing);
    playing.filter(|slot| decided[slot.group]).for_each(Slot::cut);
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
            Err(Some(voided)) => groups[group].voided.push(voided),
            Err(None) => groups[group].is_cut = true,
        }
    }
    for ((group, stage, _), trajectories) in further {
        let number = groups.len();
        let numbered = |(_, mut trajectory): FurtherTrajectory| {
            trajectory.group = number;
            trajectory
        };
        let trajectories = trajectories.into_iter().map(numbered).collect();
        groups.push(Group { games: vec![groups[group].games[stage].clone()], trajectories, ..Group::default() });
    }
    groups
}
