//! Whom a seat of the league may be given: members with their weights, by game. Who is a member, and how much it weighs, is
//! decided by [`crate::run`], which keeps the results.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frozen::FrozenModel;
use super::spec::Spec;
use crate::seed::Seed;

/// One who may be drawn.
#[derive(Clone, Debug)]
pub struct PoolMember {
    /// Its name in the league.
    pub name: String,
    /// Who it is, unless it has a model.
    pub spec: Spec,
    /// A snapshot's model.
    pub model: Option<Arc<FrozenModel>>,
    /// Its share in proportion to those of the others; not negative.
    pub weight: f64,
}

/// The members of a league by game, as an iteration draws them.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// By the game's name.
    pub members: BTreeMap<String, Vec<PoolMember>>,
}

impl Pool {
    /// One member, with a probability in proportion to its weight; always the same one for the same seed. `None` for a game
    /// without members.
    pub(super) fn draw(&self, game: &str, seed: Seed) -> Option<&PoolMember> {
        let members = self.members.get(game)?;
        let total: f64 = members.iter().map(|member| member.weight).sum();
        let mut left = seed.stream().float() * total;
        for member in members {
            left -= member.weight;
            if left < 0.0 {
                return Some(member);
            }
        }
        // Rounding may leave a rest.
        members.last()
    }
}
