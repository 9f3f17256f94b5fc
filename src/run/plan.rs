//! What an iteration plays: rounds (one, or one for each stage and update of coordinated subtask training) of groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{GameStats, NestMode, Seat};
use crate::reload::Catalog;
use crate::rollout::{GroupPlan, StagePlan};
use crate::seed::Seed;

/// The sizes of an iteration.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanSize {
    /// Groups a round.
    pub(super) groups: usize,
    /// Members a group.
    pub(super) members: usize,
    /// The learner's seat; 0 draws one for each group and stage.
    pub(super) seat: u32,
}

/// The rounds of an iteration; each is played, then trained on, before the next.
///
/// # Errors
/// The nest's [`Diagnostic`].
pub(super) fn plan_rounds(
    catalog: &Catalog,
    stats: &BTreeMap<String, GameStats>,
    size: PlanSize,
    seed: Seed,
    step: u64,
) -> Result<Vec<Vec<GroupPlan>>, Box<Diagnostic>> {
    let names = catalog.known_names();
    let order = |group: usize| {
        let mut stream = seed.child("nest", group as u64).stream();
        catalog.nest.stages(&names, stats, &mut stream)
    };
    let planner = Planner { catalog, size, seed, step };
    match catalog.nest.mode {
        NestMode::Nested => {
            let groups = (0..size.groups).map(|group| Ok(planner.group(0, group, &order(group)?)));
            Ok(vec![groups.collect::<Result<_, Box<Diagnostic>>>()?])
        }
        NestMode::Mixed => {
            let stages = order(0)?;
            let shares = divide(size.groups, &catalog.nest.weights(stages.len()));
            let drawn = stages.iter().zip(shares).flat_map(|(stage, share)| std::iter::repeat_n(stage, share));
            Ok(vec![
                drawn.enumerate().map(|(group, stage)| planner.group(0, group, std::slice::from_ref(stage))).collect(),
            ])
        }
        NestMode::Cst => {
            let stages = order(0)?;
            let rounds = stages
                .iter()
                .enumerate()
                .flat_map(|(index, stage)| std::iter::repeat_n(stage, catalog.nest.updates(index)));
            Ok(rounds
                .enumerate()
                .map(|(round, stage)| {
                    (0..size.groups).map(|group| planner.group(round, group, std::slice::from_ref(stage))).collect()
                })
                .collect())
        }
    }
}

struct Planner<'a> {
    catalog: &'a Catalog,
    size: PlanSize,
    seed: Seed,
    step: u64,
}

impl Planner<'_> {
    fn group(&self, round: usize, group: usize, names: &[String]) -> GroupPlan {
        let seed = self.seed.child("round", round as u64).child("group", group as u64);
        let games = names.iter().filter_map(|name| self.catalog.game(name));
        let stages = games
            .enumerate()
            .map(|(stage, game)| {
                let seed = seed.child("stage", stage as u64);
                let drawn = || Seat(seed.child("seat", 0).stream().int(1, i64::from(game.seats)) as u32);
                let fixed = Some(Seat(self.size.seat)).filter(|seat| (1..=game.seats).contains(&seat.0));
                let seat = fixed.unwrap_or_else(drawn);
                StagePlan { game: Arc::clone(game), seed: seed.child("episode", 0), seat, number: None }
            })
            .collect();
        let id = format!("{}-{}", self.step, round * self.size.groups + group);
        GroupPlan { stages, seed: seed.child("members", 0), members: self.size.members, id }
    }
}

/// Divides a number by weights: whole parts first, then the largest remainders, the first of equals first.
fn divide(count: usize, weights: &[f64]) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| count as f64 * weight / total).collect();
    let mut shares: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = count - shares.iter().sum::<usize>().min(count);
    for &index in order.iter().cycle().take(left) {
        shares[index] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_divided_by_weights_and_none_is_lost() {
        assert_eq!(divide(16, &[1.0, 1.0, 1.0, 1.0]), [4, 4, 4, 4]);
        assert_eq!(divide(16, &[1.0, 1.0, 1.0]), [6, 5, 5]);
        assert_eq!(divide(8, &[3.0, 1.0]), [6, 2]);
        assert_eq!(divide(5, &[0.0, 1.0]), [0, 5]);
        assert_eq!(divide(2, &[1.0, 1.0, 1.0]), [1, 1, 0]);
    }
}
