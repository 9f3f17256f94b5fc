//! The league of a run: frozen snapshots of its policy, the policy itself and fixed opponents, how they did against the
//! learner, and how often each is met. `league.json` in the run directory shows it; checkpoints hold what a resumed run needs.
//!
//! Opponents are drawn by prioritized fictitious self-play as in `AlphaStar` (Vinyals et al., Grandmaster level in
//! `StarCraft` II using multi-agent reinforcement learning, Nature 575, 2019, Methods): with a probability in proportion to
//! `f(p)`, `p` being the learner's rate against the member, and `f_hard(p) = (1 - p)^k` or `f_var(p) = p (1 - p)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::rating::{Rating, Results};
use crate::checkpoint::{self, Origin};
use crate::config::{League as Settings, Weighting};
use crate::diag::{Diagnostic, SourceSpan};
use crate::game::GameDef;
use crate::metrics::names;
use crate::opponent::{FrozenModel, ModelLoader, Opponents, Pool, PoolMember, Spec};
use crate::policy::{Decoder, Tokenizer};
use crate::rollout::{Group, StageRecord};

/// The layout of `league.json`.
const FORMAT: u32 = 1;
/// How much the learner may change in an iteration, in points.
const DRIFT: f64 = 15.0;
/// The league's name of the policy itself.
const SELF: &str = "self";
/// Before any result a rate is taken for a half, with the weight of this many episodes.
const PRIOR_EPISODES: f64 = 2.0;

/// What a checkpoint holds of a league.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeagueState {
    /// Iterations whose snapshots are members, ascending.
    pub snapshots: Vec<u64>,
    /// Standings by game.
    pub games: BTreeMap<String, Standing>,
}

/// How the members of a league stand in one game.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The learner's rating.
    pub learner: Rating,
    /// Every other member that has played, by name.
    pub members: BTreeMap<String, MemberRecord>,
}

/// How a member did against the learner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The member's rating.
    pub rating: Rating,
    /// Episodes, all that were played.
    pub episodes: u64,
    /// Episodes, of which each iteration forgets a share (`league.memory`).
    pub recent: f64,
    /// The learner's wins and half its draws among the recent ones.
    pub score: f64,
}

impl MemberRecord {
    /// The learner's rate against the member: wins, and half the draws.
    fn rate(&self) -> f64 {
        (self.score + 0.5 * PRIOR_EPISODES) / (self.recent + PRIOR_EPISODES)
    }
}

/// Results of one iteration: episodes, and the learner's wins and half its draws.
type Played = BTreeMap<(String, String), (u64, f64)>;

/// A league while its run goes on.
pub(super) struct League {
    settings: Settings,
    /// The run directory.
    folder: PathBuf,
    load: Box<ModelLoader>,
    fixed: Vec<(String, Spec)>,
    state: LeagueState,
    models: BTreeMap<u64, Arc<FrozenModel>>,
    played: Played,
}

impl League {
    /// A league without snapshots or results.
    ///
    /// # Errors
    /// A [`Diagnostic`] if one of the fixed members cannot be one.
    pub(super) fn new(settings: &Settings, folder: &Path, load: Box<ModelLoader>) -> Result<Self, Box<Diagnostic>> {
        Ok(Self {
            settings: settings.clone(),
            folder: folder.to_owned(),
            load,
            fixed: fixed_members(settings)?,
            state: LeagueState::default(),
            models: BTreeMap::new(),
            played: Played::new(),
        })
    }

    /// Goes on from a stored state: its snapshots are read again.
    ///
    /// # Errors
    /// A [`Diagnostic`] if a snapshot is not there any more or cannot be read.
    pub(super) fn restore(&mut self, state: LeagueState, opponents: &Opponents) -> Result<(), Box<Diagnostic>> {
        for &step in &state.snapshots {
            let place = ["league", "checkpoints"].map(|name| self.folder.join(name).join(name_of(step)));
            let Some(place) = place.into_iter().find(|place| place.is_dir()) else {
                return Err(Box::new(
                    Diagnostic::error("league::snapshot", format!("the league's snapshot of iteration {step} is gone"))
                        .at(SourceSpan::file(self.folder.join("league").join(name_of(step))))
                        .expected("the folder that the run wrote; a snapshot that leaves the league is deleted with the next checkpoint")
                        .found("no such folder")
                        .help("go on from the newest checkpoint: `--resume RUN_DIR`"),
                ));
            };
            self.read(step, &place, opponents)?;
        }
        self.state = state;
        Ok(())
    }

    fn read(&mut self, step: u64, place: &Path, opponents: &Opponents) -> Result<(), Box<Diagnostic>> {
        let loaded = (self.load)(place)?;
        self.models.insert(step, opponents.freeze(name_of(step), loaded));
        Ok(())
    }

    pub(super) fn state(&self) -> &LeagueState {
        &self.state
    }

    /// Whom the next iteration meets in these games.
    pub(super) fn pool(&self, games: &[Arc<GameDef>], opponents: &Opponents) -> Pool {
        let members = games.iter().map(|game| (game.name.clone(), self.pool_of(game, opponents)));
        Pool { members: members.collect() }
    }

    fn pool_of(&self, game: &GameDef, opponents: &Opponents) -> Vec<PoolMember> {
        let weight = |name: &str| self.weight(&game.name, name);
        let mut members: Vec<PoolMember> = self
            .fixed
            .iter()
            .filter(|(_, spec)| opponents.can_play(spec, game))
            .map(|(name, spec)| PoolMember {
                name: name.clone(),
                spec: spec.clone(),
                model: None,
                weight: weight(name),
            })
            .collect();
        members.extend(self.models.iter().map(|(&step, model)| {
            let name = name_of(step);
            PoolMember { weight: weight(&name), name, spec: Spec::Policy, model: Some(Arc::clone(model)) }
        }));
        let total: f64 = members.iter().map(|member| member.weight).sum();
        let own = if total > 0.0 { self.settings.self_share } else { 1.0 };
        for member in &mut members {
            member.weight *= if total > 0.0 { (1.0 - own) / total } else { 0.0 };
        }
        members.push(PoolMember { name: SELF.to_owned(), spec: Spec::Policy, model: None, weight: own });
        members
    }

    /// How much a member is worth meeting in a game.
    fn weight(&self, game: &str, name: &str) -> f64 {
        let record = self.state.games.get(game).and_then(|standing| standing.members.get(name));
        let rate = record.copied().unwrap_or_default().rate();
        match self.settings.weighting {
            Weighting::Hard => (1.0 - rate).powf(self.settings.power),
            Weighting::Variance => rate * (1.0 - rate),
            Weighting::Even => 1.0,
        }
    }

    /// Notes what a rollout came to.
    pub(super) fn add(&mut self, groups: &[Group]) {
        let trajectories = groups.iter().flat_map(|group| &group.trajectories);
        for stage in trajectories.flat_map(|trajectory| &trajectory.stages) {
            for (index, player) in stage.players.iter().enumerate() {
                let Some(name) = player.strip_prefix("league:").filter(|name| *name != SELF) else { continue };
                let Some(score) = result(stage, index) else { continue };
                let entry = self.played.entry((stage.game.clone(), name.to_owned())).or_default();
                entry.0 += 1;
                entry.1 += score;
            }
        }
    }

    /// Begins an iteration: takes a snapshot of the policy if one is due after the iteration before. The policy is then as a
    /// checkpoint has it, so that a run that goes on from one takes the same snapshot.
    ///
    /// # Errors
    /// [`super::Error`] if the snapshot cannot be written or read; then nothing has changed.
    pub(super) fn begin_iteration(
        &mut self,
        step: u64,
        policy: (&dyn Decoder, &Tokenizer, &Origin),
        opponents: &Opponents,
    ) -> Result<(), super::Error> {
        self.played.clear();
        let (done, every) = (step - 1, self.settings.snapshot_every);
        if every == 0 || done == 0 || !done.is_multiple_of(every) || self.state.snapshots.contains(&done) {
            return Ok(());
        }
        let place = checkpoint::save_snapshot(&self.folder, &name_of(done), policy)?;
        self.read(done, &place, opponents)?;
        self.state.snapshots.push(done);
        // It is as strong as the learner, of which it is a copy.
        for standing in self.state.games.values_mut() {
            let record = MemberRecord { rating: standing.learner, ..MemberRecord::default() };
            standing.members.insert(name_of(done), record);
        }
        self.drop_least_useful();
        Ok(())
    }

    /// Ends an iteration: new ratings and rates from what was added, and `league.json`.
    ///
    /// # Errors
    /// [`super::Error::Checkpoint`] if the file cannot be written.
    pub(super) fn end_iteration(&mut self, step: u64) -> Result<(), super::Error> {
        let played = std::mem::take(&mut self.played);
        rate(&mut self.state.games, &played, self.settings.memory);
        self.write(step)
    }

    /// Lets the snapshot go that is least worth meeting, the older of two, if there are too many. The newest stays.
    fn drop_least_useful(&mut self) {
        let snapshots = &self.state.snapshots;
        if snapshots.len() <= self.settings.max_snapshots.max(1) {
            return;
        }
        let games = self.state.games.keys();
        let worth = |step: u64| games.clone().map(|game| self.weight(game, &name_of(step))).fold(0.0, f64::max);
        let earlier = &snapshots[..snapshots.len() - 1];
        let Some(least) = earlier.iter().copied().min_by(|a, b| worth(*a).total_cmp(&worth(*b))) else { return };
        self.state.snapshots.retain(|step| *step != least);
        self.models.remove(&least);
        for standing in self.state.games.values_mut() {
            standing.members.remove(&name_of(least));
        }
    }

    /// Writes `league.json`.
    ///
    /// # Errors
    /// [`super::Error::Checkpoint`].
    pub(super) fn write(&self, step: u64) -> Result<(), super::Error> {
        let value = serde_json::json!({ "format": FORMAT, "step": step, "league": self.state });
        Ok(checkpoint::replace_text(&self.folder.join("league.json"), &format!("{value:#}\n"))?)
    }

    /// Deletes the snapshots that have left the league, once no newer checkpoint needs them.
    ///
    /// # Errors
    /// [`super::Error::Checkpoint`].
    pub(super) fn delete_left(&self) -> Result<(), super::Error> {
        Ok(checkpoint::keep_snapshots(&self.folder, &self.state.snapshots)?)
    }

    pub(super) fn put_figures(&self, figures: &mut Figures) {
        figures.insert(names::LEAGUE_SNAPSHOTS.to_owned(), self.state.snapshots.len() as f64);
        for (game, standing) in &self.state.games {
            figures.insert(names::league_rating(game), standing.learner.value);
            figures.insert(names::league_deviation(game), standing.learner.deviation);
            for (name, record) in &standing.members {
                let member = format!("{game}.{name}");
                figures.insert(names::league_rating(&member), record.rating.value);
                figures.insert(names::league_rate(&member), record.rate());
            }
        }
    }
}

/// The members that are always there, by name.
///
/// # Errors
/// A [`Diagnostic`] if one of them cannot be one.
pub fn fixed_members(settings: &Settings) -> Result<Vec<(String, Spec)>, Box<Diagnostic>> {
    let member = |text: &String| {
        let spec = Spec::parse(text)?;
        if matches!(spec, Spec::Random | Spec::Bot | Spec::Search(_)) {
            return Ok((spec.to_string(), spec));
        }
        Err(Box::new(
            Diagnostic::error("opponent::league", format!("`{text}` cannot be a fixed member of the league"))
                .expected("`random`, `bot` or `search[:BUDGET]` in `league.fixed`")
                .found(format!("`{text}`"))
                .help("other opponents go beside the league: `--opponent 'league*0.8+checkpoint:DIR*0.2'`"),
        ))
    };
    settings.fixed.iter().map(member).collect()
}

/// The name of a snapshot, as member and as folder.
fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

/// What a learner's stage counts against the player of another seat: 1 for the higher score, a half for the same. Whoever
/// forfeits loses; an episode that a limit ended counts for nobody.
fn result(stage: &StageRecord, index: usize) -> Option<f64> {
    if stage.truncated {
        return None;
    }
    let own = stage.scores.get(stage.seat as usize - 1)?;
    let other = stage.scores.get(index)?;
    if let Some(last) = stage.turns.last().filter(|turn| !turn.legal) {
        let is_one_of_them = last.seat == stage.seat || last.seat as usize == index + 1;
        return is_one_of_them.then_some(if last.seat == stage.seat { 0.0 } else { 1.0 });
    }
    Some(if own > other {
        1.0
    } else if own < other {
        0.0
    } else {
        0.5
    })
}

/// New ratings and rates after an iteration. Every rating is computed from those before it.
fn rate(games: &mut BTreeMap<String, Standing>, played: &Played, memory: f64) {
    for (game, name) in played.keys() {
        games.entry(game.clone()).or_default().members.entry(name.clone()).or_default();
    }
    for (game, standing) in games {
        let learner = standing.learner.drifted(DRIFT);
        let mut results = Vec::new();
        for (name, record) in &mut standing.members {
            record.recent *= memory;
            record.score *= memory;
            let Some(&(episodes, score)) = played.get(&(game.clone(), name.clone())) else { continue };
            let count = episodes as f64;
            results.push(Results { opponent: record.rating, episodes: count, score });
            let theirs = Results { opponent: learner, episodes: count, score: count - score };
            record.rating = record.rating.after(&[theirs]);
            record.episodes += episodes;
            record.recent += count;
            record.score += score;
        }
        standing.learner = learner.after(&results);
    }
}

#[cfg(test)]
mod tests;
