//! Takes versions that lose too many episodes out of service: the last version that did not takes their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{GameDef, Nest, RewardScript};
use crate::reload::Catalog;
use crate::rollout::{Culprit, Group};
use crate::script::{Source, Version};

/// The versions that were last seen to work.
#[derive(Debug)]
pub(super) struct LastGood {
    games: BTreeMap<String, Arc<GameDef>>,
    nest: Arc<Nest>,
    reward: Option<Arc<RewardScript>>,
}

/// Episodes that a script took part in, and those that it lost.
#[derive(Debug, Default)]
struct Losses {
    played: usize,
    lost: usize,
    problem: Option<Diagnostic>,
}

impl Losses {
    fn share(&self) -> f64 {
        self.lost as f64 / (self.played + self.lost).max(1) as f64
    }
}

impl LastGood {
    /// The versions that a run starts with.
    pub(super) fn new(catalog: &Catalog) -> Self {
        Self {
            games: catalog.games.iter().map(|game| (game.name.clone(), Arc::clone(game))).collect(),
            nest: Arc::clone(&catalog.nest),
            reward: catalog.reward.clone(),
        }
    }

    /// Looks at what a rollout lost. A script that lost more than `max_share` of its episodes gives way to its last good
    /// version; the others are the last good ones from now on. Returns what to tell the author.
    ///
    /// # Errors
    /// A [`Diagnostic`] if a script lost too many and has no other version to go back to.
    pub(super) fn review(
        &mut self,
        catalog: &mut Catalog,
        groups: &[Group],
        max_share: f64,
    ) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let mut problems = Vec::new();
        for (culprit, losses) in losses(groups) {
            problems.extend(losses.problem.clone().map(|problem| {
                let whose = match &culprit {
                    Culprit::Game(name) => format!(" of `{name}`"),
                    Culprit::Nest | Culprit::Reward => String::new(),
                };
                problem
                    .note(format!("{:.0} % of the episodes{whose} were lost in this rollout", losses.share() * 100.0))
            }));
            if losses.share() <= max_share {
                self.accept(&culprit, catalog);
                continue;
            }
            let Some((name, active)) = active_version(&culprit, catalog) else { continue };
            let problem = Diagnostic::error(
                "run::failing_version",
                format!("version {} of `{name}` fails too often", active.short()),
            )
            .expected(format!("at most {:.0} % lost episodes (`scripts.max_voided_share`)", max_share * 100.0))
            .found(format!("{:.0} %", losses.share() * 100.0))
            .help("mend the script and save it; the reason stands above");
            let Some(good) = self.go_back(&culprit, catalog) else {
                let cause = problems.pop().map_or_else(String::new, |cause| format!("{cause}\n"));
                return Err(Box::new(problem.note(format!("{cause}there is no earlier version to go back to"))));
            };
            problems.push(problem.note(format!("`{name}` goes back to version {}", good.short())));
        }
        Ok(problems)
    }

    /// Puts the last good nest in service; false if it is there already.
    pub(super) fn go_back_to_nest(&self, catalog: &mut Catalog) -> bool {
        self.go_back(&Culprit::Nest, catalog).is_some()
    }

    fn accept(&mut self, culprit: &Culprit, catalog: &Catalog) {
        match culprit {
            Culprit::Game(name) => {
                if let Some(game) = catalog.game(name) {
                    self.games.insert(name.clone(), Arc::clone(game));
                }
            }
            Culprit::Nest => self.nest = Arc::clone(&catalog.nest),
            Culprit::Reward => self.reward.clone_from(&catalog.reward),
        }
    }

    /// Puts the last good version in service and returns it, if it is another one than the active.
    fn go_back(&self, culprit: &Culprit, catalog: &mut Catalog) -> Option<Version> {
        let (_, active) = active_version(culprit, catalog)?;
        let other = |source: &Source| (source.version != active).then(|| source.version.clone());
        match culprit {
            Culprit::Game(name) => {
                let good = self.games.get(name)?;
                let version = other(&good.source)?;
                catalog.replace_game(Arc::clone(good));
                Some(version)
            }
            Culprit::Nest => {
                let version = other(self.nest.source.as_ref()?)?;
                catalog.nest = Arc::clone(&self.nest);
                Some(version)
            }
            Culprit::Reward => {
                let good = self.reward.as_ref()?;
                let version = other(&good.source)?;
                catalog.reward = Some(Arc::clone(good));
                Some(version)
            }
        }
    }
}

/// Name and version of the script in service.
fn active_version(culprit: &Culprit, catalog: &Catalog) -> Option<(String, Version)> {
    let source = match culprit {
        Culprit::Game(name) => &catalog.game(name)?.source,
        Culprit::Nest => catalog.nest.source.as_ref()?,
        Culprit::Reward => &catalog.reward.as_ref()?.source,
    };
    let name = if let Culprit::Game(name) = culprit { name.clone() } else { source.path.display().to_string() };
    Some((name, source.version.clone()))
}

fn losses(groups: &[Group]) -> BTreeMap<Culprit, Losses> {
    let mut losses: BTreeMap<Culprit, Losses> = BTreeMap::new();
    for group in groups {
        for trajectory in &group.trajectories {
            for stage in &trajectory.stages {
                losses.entry(Culprit::Game(stage.game.clone())).or_default().played += 1;
            }
            losses.entry(Culprit::Nest).or_default().played += 1;
            losses.entry(Culprit::Reward).or_default().played += 1;
        }
        for voided in &group.voided {
            let entry = losses.entry(voided.culprit.clone()).or_default();
            entry.lost += 1;
            entry.problem.get_or_insert_with(|| (*voided.problem).clone());
        }
    }
    losses
}
