//! Takes versions that lose too many episodes out of service: the last version that did not takes their place.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Diagnostic;
use crate::game::{GameDef, Nest, RewardScript};
use crate::reload::Catalog;
use crate::rollout::{Culprit, Group};
use crate::script::Version;

/// The code of the diagnostic for a version that is taken out of service.
pub const FAILING_VERSION: &str = "run::failing_version";

/// The versions that were seen to work, the newest last. A version that works in most episodes and fails in some may be
/// among them, so the earlier ones are kept too.
#[derive(Debug)]
pub(super) struct LastGood {
    games: BTreeMap<String, Vec<Arc<GameDef>>>,
    /// The games that the run began with; others can leave it.
    first: Vec<String>,
    nests: Vec<Arc<Nest>>,
    rewards: Vec<Arc<RewardScript>>,
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

/// A share in per cent, where a little is not nothing.
fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.005 { "less than 1".to_owned() } else { format!("{:.0}", share * 100.0) }
}

impl LastGood {
    /// The versions that a run starts with.
    pub(super) fn new(catalog: &Catalog) -> Self {
        Self {
            games: catalog.games.iter().map(|game| (game.name.clone(), vec![Arc::clone(game)])).collect(),
            first: catalog.names(),
            nests: vec![Arc::clone(&catalog.nest)],
            rewards: catalog.reward.iter().cloned().collect(),
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
                    Culprit::Game(name) | Culprit::Opponent(name) => format!(" of `{name}`"),
                    Culprit::Nest | Culprit::Reward => String::new(),
                };
                let share = percent(losses.share());
                problem.note(format!("{share} % of the episodes{whose} were lost in this rollout"))
            }));
            if losses.share() <= max_share {
                self.accept(&culprit, catalog);
                continue;
            }
            let Some((name, active)) = active_version(&culprit, catalog) else { continue };
            let problem =
                Diagnostic::error(FAILING_VERSION, format!("version {} of `{name}` fails too often", active.short()))
                    .expected(format!("at most {:.0} % lost episodes (`scripts.max_voided_share`)", max_share * 100.0))
                    .found(format!("{:.0} %", losses.share() * 100.0))
                    .help("mend the script and save it; the reason stands above");
            let good = self.go_back(&culprit, catalog);
            if good.is_none() && self.withdraw(&culprit, catalog) {
                problems.push(problem.note(format!("`{name}` leaves the run; save a mended version to bring it back")));
                continue;
            }
            let Some(good) = good else {
                let cause = problems.pop().map_or_else(String::new, |cause| format!("{cause}\n"));
                return Err(Box::new(problem.note(format!("{cause}there is no earlier version to go back to"))));
            };
            problems.push(problem.note(format!("`{name}` goes back to version {}", good.short())));
        }
        Ok(problems)
    }

    /// Takes a game that joined in mid-run out again, with the nests that name it; false if that cannot be.
    fn withdraw(&mut self, culprit: &Culprit, catalog: &mut Catalog) -> bool {
        let Culprit::Game(name) = culprit else { return false };
        if self.first.contains(name) {
            return false;
        }
        catalog.withdraw(name);
        let names = |nest: &Nest| nest.stage_names().is_some_and(|stages| stages.contains(name));
        while names(&catalog.nest) {
            if !self.go_back_to_nest(catalog) {
                return false;
            }
        }
        true
    }

    /// Puts the last good nest in service; false if there is no other.
    pub(super) fn go_back_to_nest(&mut self, catalog: &mut Catalog) -> bool {
        self.go_back(&Culprit::Nest, catalog).is_some()
    }

    fn accept(&mut self, culprit: &Culprit, catalog: &Catalog) {
        match culprit {
            Culprit::Game(name) => {
                if let Some(game) = catalog.game(name) {
                    remember(self.games.entry(name.clone()).or_default(), game, |game| Some(&game.source.version));
                }
            }
            Culprit::Opponent(_) => {}
            Culprit::Nest => remember(&mut self.nests, &catalog.nest, nest_version),
            Culprit::Reward => {
                if let Some(reward) = &catalog.reward {
                    remember(&mut self.rewards, reward, |reward| Some(&reward.source.version));
                }
            }
        }
    }

    /// Forgets the active version, puts the last good one before it in service and returns that one's version.
    fn go_back(&mut self, culprit: &Culprit, catalog: &mut Catalog) -> Option<Version> {
        let (_, active) = active_version(culprit, catalog)?;
        match culprit {
            Culprit::Game(name) => {
                let known = self.games.get_mut(name)?;
                known.retain(|game| game.source.version != active);
                let good = known.last()?;
                catalog.replace_game(Arc::clone(good));
                Some(good.source.version.clone())
            }
            Culprit::Opponent(_) => None,
            Culprit::Nest => {
                self.nests.retain(|nest| nest_version(nest) != Some(&active));
                let good = self.nests.last()?;
                catalog.nest = Arc::clone(good);
                nest_version(good).cloned()
            }
            Culprit::Reward => {
                self.rewards.retain(|reward| reward.source.version != active);
                let good = self.rewards.last()?;
                catalog.reward = Some(Arc::clone(good));
                Some(good.source.version.clone())
            }
        }
    }
}

fn nest_version(nest: &Nest) -> Option<&Version> {
    nest.source.as_ref().map(|source| &source.version)
}

/// Makes a version the newest of those that worked.
fn remember<T>(known: &mut Vec<Arc<T>>, item: &Arc<T>, version: impl Fn(&T) -> Option<&Version>) {
    if known.last().is_some_and(|last| version(last) == version(item)) {
        return;
    }
    known.retain(|other| version(other) != version(item));
    known.push(Arc::clone(item));
}

/// Name and version of the script in service.
fn active_version(culprit: &Culprit, catalog: &Catalog) -> Option<(String, Version)> {
    let source = match culprit {
        Culprit::Game(name) => &catalog.game(name)?.source,
        // A script is not taken out of service for who else plays.
        Culprit::Opponent(_) => return None,
        Culprit::Nest => catalog.nest.source.as_ref()?,
        Culprit::Reward => &catalog.reward.as_ref()?.source,
    };
    let name = if let Culprit::Game(name) = culprit { name.clone() } else { source.path.display().to_string() };
    Some((name, source.version.clone()))
}

fn losses(groups: &[Group]) -> BTreeMap<Culprit, Losses> {
    let mut losses: BTreeMap<Culprit, Losses> = BTreeMap::new();
    for group in groups {
        // A lost episode counts once, so further seats of a played one do not count.
        for trajectory in group.trajectories.iter().filter(|trajectory| !trajectory.is_further) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::game::ScriptHost;
    use crate::rollout::{StageRecord, Trajectory, Voided};
    use crate::script::{Language, Source};
    use crate::seed::Seed;

    const GAME: &str = "return { name = 'g', seats = 1, max_turns = 1, init = function() return {} end, \
        to_act = function(s) if s.done then return nil end return 1 end, observe = function() return 'o' end, \
        apply = function(s) s.done = true return s end, \
        outcome = function() return { scores = { 1 }, success = { true } } end }";

    fn catalog(comment: &str) -> Catalog {
        let text = format!("-- {comment}\n{GAME}");
        let source = Source::new(Path::new("g.lua"), Language::Lua, &text, BTreeMap::new());
        Catalog::from_sources(vec![source], None, None, BTreeMap::new(), ScriptHost::default()).unwrap()
    }

    fn played() -> Group {
        let stage = StageRecord {
            game: "g".to_owned(),
            version: String::new(),
            seed: Seed::new(0),
            seat: 1,
            turns: Vec::new(),
            scores: vec![1.0],
            reward: 1.0,
            success: true,
            truncated: false,
            players: Vec::new(),
            prompt_count: 0,
            sampled_count: 0,
        };
        let trajectory = Trajectory {
            id: String::new(),
            is_further: false,
            group: 0,
            member: 0,
            stages: vec![stage],
            tokens: Vec::new(),
            targets: Vec::new(),
            log_probs: Vec::new(),
            reward: 1.0,
            success: true,
            truncated: false,
        };
        Group { trajectories: vec![trajectory], ..Group::default() }
    }

    fn lost() -> Group {
        let problem = Arc::new(Diagnostic::error("script::runtime", "boom"));
        let voided = Voided { game: "g".to_owned(), culprit: Culprit::Game("g".to_owned()), problem };
        Group { voided: vec![voided], ..Group::default() }
    }

    #[test]
    fn a_game_that_joined_and_always_fails_leaves_with_the_nest_that_names_it() {
        let host = ScriptHost::default();
        let mut catalog = catalog("good");
        let nest = |catalog: &Catalog, stages: &str| {
            let text = format!("return {{ stages = {{ {stages} }} }}");
            let source = Source::new(Path::new("nest.lua"), Language::Lua, &text, BTreeMap::new());
            Arc::new(Nest::compile(&source, &catalog.known_names(), &ScriptHost::default()).unwrap())
        };
        catalog.nest = nest(&catalog, "'g'");
        let mut last_good = LastGood::new(&catalog);
        let text = GAME.replace("name = 'g'", "name = 'late'");
        let source = Source::new(Path::new("late.lua"), Language::Lua, &text, BTreeMap::new());
        catalog.offer(Arc::new(GameDef::compile(&source, crate::script::Value::default(), &host).unwrap()));
        catalog.nest = nest(&catalog, "'g', 'late'");
        assert!(catalog.join("late"));
        let mut bad = lost();
        bad.voided[0].culprit = Culprit::Game("late".to_owned());
        let problems = last_good.review(&mut catalog, &[bad], 0.25).unwrap();
        assert!(problems.iter().any(|problem| problem.to_string().contains("`late` leaves the run")), "{problems:?}");
        assert_eq!(catalog.names(), ["g"]);
        assert_eq!(catalog.nest.stage_names(), Some(&["g".to_owned()][..]));
    }

    /// Found by a user: a script that fails on few seeds works for an iteration and fails in a later one.
    #[test]
    fn a_version_that_worked_for_a_while_gives_way_to_the_one_before_it() {
        let (mut catalog, flaky) = (catalog("good"), catalog("flaky"));
        let good = catalog.games[0].source.version.clone();
        let mut last_good = LastGood::new(&catalog);
        assert!(last_good.review(&mut catalog, &[played()], 0.25).unwrap().is_empty());
        catalog.replace_game(Arc::clone(&flaky.games[0]));
        assert!(last_good.review(&mut catalog, &[played()], 0.25).unwrap().is_empty());
        let problems = last_good.review(&mut catalog, &[played(), lost()], 0.25).unwrap();
        assert!(problems.iter().any(|problem| problem.to_string().contains("goes back to version")), "{problems:?}");
        assert_eq!(catalog.games[0].source.version, good);
        // Nothing is left to go back to, so the next failure stops the run.
        assert!(last_good.review(&mut catalog, &[lost()], 0.25).is_err());
    }
}
