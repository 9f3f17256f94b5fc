//! One episode (or nest of episodes) while it is played, with the dialogues of the seats that the policy plays. It alternates
//! between the rules (`advance`) and the model; [`super::play`] decides when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Constrain, ObservationKind};
use crate::diag::Diagnostic;
use crate::game::{Episode, Foresight, Seat, StageResult, Status, lost_in_words, told_of_lost};
use crate::opponent::{Answer as OpponentAnswer, Fault, FrozenModel, Lineup, Reply, View};
use crate::policy::Dialogue;
use crate::seed::Stream;

use super::score::{End, trajectory};
use super::{Culprit, GroupPlan, GroupProgress, RolloutSettings, StagePlan, StageRecord, Table, Trajectory, Voided};

/// The episodes of a plan's stages at their starts, once some member has begun them.
pub(super) type Starts = Arc<[Mutex<Option<Episode>>]>;

/// What a trajectory waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The rules: an answer is complete, or nothing has begun.
    Rules,
    /// The model: tokens are pending, then one is sampled.
    Model,
    /// An opponent, who has not answered yet.
    Opponent,
    /// Nothing: it is over.
    Nothing,
}

/// A trajectory of a seat that the policy took beside its own, with the number of its stage.
pub(super) type FurtherTrajectory = (usize, Trajectory);

pub(super) struct Slot<'a> {
    plan: &'a GroupPlan,
    starts: Starts,
    pub(super) group: usize,
    member: usize,
    pub(super) waiting: Waiting,
    /// The dialogue of the learner's seats, through all stages.
    own: Dialogue,
    /// Those of the other seats that the policy plays in the running stage.
    further: BTreeMap<u32, Dialogue>,
    /// The seat whose dialogue is open.
    asked: Seat,
    opponent: Stream,
    episode: Option<Episode>,
    lineup: Option<Lineup>,
    /// Refused answers of the opponent on this turn, and why the last one was.
    refused: (usize, Option<String>),
    /// Answers of opponents that are language models, and those that could not be played.
    pub(super) opponent_answers: (usize, usize),
    /// Why the run cannot go on, if it cannot.
    pub(super) stop: Option<Box<Diagnostic>>,
    /// Observation and answer text of each turn of the running episode.
    texts: Vec<(String, String)>,
    /// Tokens of observations and sampled tokens of `own` before the running stage.
    before: (usize, usize),
    stages: Vec<StageRecord>,
    finished: Vec<FurtherTrajectory>,
    pub(super) voided: Option<Voided>,
    /// Whether the trajectory was cut short.
    is_cut: bool,
    /// The script that scores the trajectory at the moment; a fault is then its own, not the game's.
    scorer: Option<Culprit>,
    reward: f64,
}

impl<'a> Slot<'a> {
    pub(super) fn new(plan: &'a GroupPlan, starts: Starts, group: usize, member: usize) -> Self {
        Self {
            plan,
            starts,
            group,
            member,
            waiting: Waiting::Rules,
            own: Dialogue::new(plan.seed.child("sampling", member as u64).stream()),
            further: BTreeMap::new(),
            asked: Seat(0),
            opponent: plan.seed.child("opponent", member as u64).stream(),
            episode: None,
            lineup: None,
            refused: (0, None),
            opponent_answers: (0, 0),
            stop: None,
            texts: Vec::new(),
            before: (0, 0),
            stages: Vec::new(),
            finished: Vec::new(),
            voided: None,
            is_cut: false,
            scorer: None,
            reward: 0.0,
        }
    }

    /// The dialogue that waits for the policy.
    pub(super) fn open_dialogue(&mut self) -> Option<&mut Dialogue> {
        let dialogue = if self.further.contains_key(&self.asked.0) {
            self.further.get_mut(&self.asked.0)
        } else {
            Some(&mut self.own)
        };
        dialogue.filter(|dialogue| dialogue.is_open())
    }

    /// The frozen model that an opponent waits for, with the dialogue to go on with.
    pub(super) fn thinking(&mut self) -> Option<(&Arc<FrozenModel>, &mut Dialogue)> {
        let Some(Status::Turn(seat)) = self.episode.as_ref().map(Episode::status) else { return None };
        self.lineup.as_mut()?.thinking(*seat)
    }

    pub(super) fn sampled_count(&self) -> usize {
        let finished = self.finished.iter().map(|(_, trajectory)| trajectory.targets.len());
        let further = self.further.values().map(|dialogue| dialogue.targets.len());
        self.own.targets.len() + finished.chain(further).sum::<usize>()
    }

    /// Lets the rules and the opponents go on until the learner must answer or the trajectory is over. A fault voids it.
    pub(super) fn advance(&mut self, table: &Table<'_>, settings: &RolloutSettings) {
        match self.try_advance(table, settings) {
            Ok(()) => {}
            Err(Fault::Script(problem)) => self.void(self.told(problem)),
            Err(Fault::Episode(problem)) => {
                self.scorer = Some(Culprit::Opponent(self.stage().game.name.clone()));
                self.void(problem);
            }
            Err(Fault::Run(problem)) => self.stop = Some(problem),
        }
    }

    /// Voids the trajectory whose script could not be stopped: [`Slot::advance`] never came to its end.
    pub(super) fn void_as_stuck(&mut self) {
        self.void(self.told(self.stage().game.stuck()));
    }

    /// The stage that is played, or the last.
    fn stage(&self) -> &'a StagePlan {
        &self.plan.stages[self.stages.len().min(self.plan.stages.len() - 1)]
    }

    /// A problem of the game's script with what leads there.
    fn told(&self, problem: Box<Diagnostic>) -> Box<Diagnostic> {
        if self.scorer.is_some() {
            // The nest's or the reward script's.
            return problem;
        }
        let stage = self.stage();
        let turns = self.episode.as_ref().map_or(&[][..], Episode::turns);
        told_of_lost(problem, &stage.game, (stage.seed, stage.number), turns)
    }

    fn void(&mut self, problem: Box<Diagnostic>) {
        let game = self.stage().game.name.clone();
        self.voided = Some(Voided {
            culprit: self.scorer.take().unwrap_or_else(|| Culprit::Game(game.clone())),
            game,
            problem: Arc::from(problem),
        });
        self.end_early();
    }

    /// Ends a trajectory that does not matter any more.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.end_early();
    }

    fn end_early(&mut self) {
        self.waiting = Waiting::Nothing;
        self.own.forget_cache();
        self.further.clear();
        self.finished.clear();
        self.lineup = None;
    }

    /// Adds the trajectory to the progress of its group.
    pub(super) fn count(&self, progress: &mut GroupProgress) {
        progress.is_cut |= self.is_cut;
        if self.waiting != Waiting::Nothing {
            progress.running += 1;
        } else if self.voided.is_none() && !self.is_cut {
            progress.rewards.push(self.reward);
        }
    }

    /// Whether the opponent that this waits for has news.
    pub(super) fn is_answered(&self) -> bool {
        let (Some(Status::Turn(seat)), Some(lineup)) = (self.episode.as_ref().map(Episode::status), &self.lineup)
        else {
            return true;
        };
        lineup.is_ready(*seat)
    }

    fn try_advance(&mut self, table: &Table<'_>, settings: &RolloutSettings) -> Result<(), Fault> {
        self.take_answer(table, settings)?;
        loop {
            let Some(stage) = self.plan.stages.get(self.stages.len()) else {
                return Ok(self.finish(table)?);
            };
            if self.episode.is_none() {
                self.start_stage(stage, table, settings)?;
            }
            let Some(episode) = &self.episode else { continue };
            match *episode.status() {
                Status::Turn(seat) if seat == stage.seat || self.further.contains_key(&seat.0) => {
                    if self.ask(seat, table, settings)? {
                        return Ok(());
                    }
                }
                Status::Turn(seat) => {
                    if !self.ask_opponent(seat)? {
                        self.waiting = Waiting::Opponent;
                        return Ok(());
                    }
                }
                _ => self.end_stage(table, settings)?,
            }
        }
    }

    fn start_stage(
        &mut self,
        stage: &StagePlan,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<(), Box<Diagnostic>> {
        let number = self.stages.len() as u64;
        let seed = |label| self.plan.seed.child(label, self.member as u64).child("stage", number);
        let group = self.plan.seed.child("league", 0).child("stage", number);
        let lineup = table.opponents.sit_in_group(&stage.game, seed("lineup"), group);
        let further = (1..=stage.game.seats).map(Seat).filter(|seat| *seat != stage.seat && lineup.is_policy(*seat));
        let dialogue = |seat: Seat| {
            let stream = seed("sampling").child("seat", u64::from(seat.0)).stream();
            (seat.0, Dialogue::new(stream))
        };
        self.further = further.map(dialogue).collect();
        let mut foresight = Foresight::default();
        for seat in std::iter::once(stage.seat).chain(self.further.keys().copied().map(Seat)) {
            foresight = foresight.text(seat, settings.observation == ObservationKind::Brief);
            if settings.constrain == Constrain::Legal {
                foresight = foresight.actions(seat);
            }
        }
        // The members of a group begin with the same state, and mostly with the same prompt.
        let start = &self.starts[self.stages.len()];
        let known = start.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.episode = known.filter(|episode| episode.foresees(foresight));
        if self.episode.is_none() {
            // Not while the start is locked: the script may have to be given up.
            let episode = Episode::start_foreseeing(&stage.game, stage.seed, stage.number, foresight)?;
            *start.lock().unwrap_or_else(PoisonError::into_inner) = Some(episode.clone());
            self.episode = Some(episode);
        }
        self.lineup = Some(lineup);
        self.refused = (0, None);
        self.before = (self.own.prompt_count, self.own.targets.len());
        Ok(())
    }

    /// Plays one action of an opponent; false if it needs time. A refused one is asked for again, then replaced by a random
    /// legal one.
    fn ask_opponent(&mut self, seat: Seat) -> Result<bool, Fault> {
        let (Some(episode), Some(lineup)) = (&mut self.episode, &mut self.lineup) else { return Ok(true) };
        loop {
            let (count, refusal) = &self.refused;
            let answer = if *count >= lineup.max_tries(seat) {
                OpponentAnswer::plain(any_legal(episode, seat, &mut self.opponent)?)
            } else {
                let view = View { game: episode.game(), state: episode.state(), seat, refusal: refusal.as_deref() };
                let reply = lineup.act(&view, &mut self.opponent);
                match reply.map_err(|fault| fault.of(lineup.name(seat), seat))? {
                    Reply::Waiting => return Ok(false),
                    Reply::Answer(answer) => answer,
                }
            };
            let is_last = *count >= lineup.max_tries(seat);
            let refusal = episode.act_if_taken(seat, &answer.action)?;
            // What took the place of a model's answer is not one.
            let is_its_own = usize::from(!answer.observation.is_empty());
            self.opponent_answers.0 += answer.invalid + is_its_own;
            self.opponent_answers.1 += answer.invalid + if refusal.is_some() { is_its_own } else { 0 };
            match refusal {
                None => {
                    self.refused = (0, None);
                    self.texts.push((answer.observation, answer.text));
                    return Ok(true);
                }
                Some(_) if is_last => return Err(refused(episode).into()),
                Some(reason) => self.refused = (self.refused.0 + 1, Some(reason)),
            }
        }
    }

    /// Puts the observation before the model; false if the rules can go on at once: the context is full and the episode was
    /// cut, or only one answer was legal.
    fn ask(&mut self, seat: Seat, table: &Table<'_>, settings: &RolloutSettings) -> Result<bool, Box<Diagnostic>> {
        let Some(episode) = &mut self.episode else { return Ok(false) };
        let observation = episode.observation(seat, settings.observation == ObservationKind::Brief)?;
        let observation = settings.format.asked_for(observation);
        let trie = match settings.constrain {
            Constrain::Off => None,
            Constrain::Legal => {
                episode.actions(seat)?.map(|actions| table.tokenizer.answers(&actions.iter().collect::<Vec<_>>()))
            }
        };
        let dialogue = self.further.get_mut(&seat.0).unwrap_or(&mut self.own);
        if !dialogue.ask(&observation, trie, table.tokenizer, &settings.answer_rules()) {
            episode.truncate();
            dialogue.is_cut = true;
            return Ok(false);
        }
        let is_open = dialogue.is_open();
        self.texts.push((observation, String::new()));
        self.asked = seat;
        if is_open {
            self.waiting = Waiting::Model;
        } else {
            self.take_answer(table, settings)?;
        }
        Ok(is_open)
    }

    /// Plays what the policy answered, if it has.
    fn take_answer(&mut self, table: &Table<'_>, settings: &RolloutSettings) -> Result<(), Box<Diagnostic>> {
        let seat = self.asked;
        let dialogue = self.further.get_mut(&seat.0).unwrap_or(&mut self.own);
        let Some(text) = dialogue.take_answer(table.tokenizer) else { return Ok(()) };
        let Some(episode) = &mut self.episode else { return Ok(()) };
        let action = episode.game().read_answer(episode.state(), seat, &text, settings.format)?;
        if let Some(last) = self.texts.last_mut() {
            last.1 = text;
        }
        episode.act(seat, &action)
    }

    /// Scores the finished episode for every seat of the policy and goes on to the next stage.
    fn end_stage(&mut self, table: &Table<'_>, settings: &RolloutSettings) -> Result<(), Box<Diagnostic>> {
        let (Some(episode), Some(stage)) = (self.episode.take(), self.plan.stages.get(self.stages.len())) else {
            return Ok(());
        };
        let texts = std::mem::take(&mut self.texts);
        let lineup = self.lineup.take();
        let name = |seat: u32| match &lineup {
            Some(lineup) if seat != stage.seat.0 => lineup.name(Seat(seat)).to_owned(),
            _ => "self".to_owned(),
        };
        let players: Vec<String> = (1..=stage.game.seats).map(name).collect();
        let end = End { stage, episode: &episode, texts: &texts, players: &players, table, settings };
        self.scorer = table.reward.map(|_| Culprit::Reward);
        let counts = (self.own.prompt_count - self.before.0, self.own.targets.len() - self.before.1);
        let told = |problem: Box<Diagnostic>| Box::new((*problem).note(lost_in_words(stage.seed, episode.turns())));
        let own = end.record(stage.seat, counts).map_err(told)?;
        for (seat, dialogue) in std::mem::take(&mut self.further) {
            let record = end.record(Seat(seat), (dialogue.prompt_count, dialogue.targets.len())).map_err(told)?;
            let stage_number = self.stages.len();
            let place = if self.plan.stages.len() > 1 { format!("-stage{}", stage_number + 1) } else { String::new() };
            let id = format!("{}-{}{place}-seat{seat}", self.plan.id, self.member);
            let trajectory = trajectory(id, (self.group, self.member), dialogue, vec![record]);
            self.finished.push((stage_number, Trajectory { is_further: true, ..trajectory }));
        }
        self.scorer = None;
        self.stages.push(own);
        Ok(())
    }

    fn finish(&mut self, table: &Table<'_>) -> Result<(), Box<Diagnostic>> {
        self.waiting = Waiting::Nothing;
        self.own.forget_cache();
        let results: Vec<StageResult> = self
            .stages
            .iter()
            .map(|stage| StageResult { game: stage.game.clone(), reward: stage.reward, success: stage.success })
            .collect();
        self.scorer = Some(Culprit::Nest);
        self.reward = table.nest.reward(&results)?;
        Ok(())
    }

    /// The finished trajectories, the learner's own and those of further seats, or what voided them; `Err(None)` if they were cut
    /// short.
    pub(super) fn into_result(self) -> Result<(Trajectory, Vec<FurtherTrajectory>), Option<Voided>> {
        if self.voided.is_some() || self.is_cut {
            return Err(self.voided);
        }
        let id = format!("{}-{}", self.plan.id, self.member);
        let own = trajectory(id, (self.group, self.member), self.own, self.stages);
        Ok((Trajectory { reward: self.reward, ..own }, self.finished))
    }
}

/// A random legal action, for an opponent that found none.
fn any_legal(episode: &Episode, seat: Seat, stream: &mut Stream) -> Result<String, Box<Diagnostic>> {
    let actions = episode.game().actions(episode.state(), seat)?.ok_or_else(|| refused(episode))?;
    Ok(actions[stream.index(actions.len())].clone())
}

fn refused(episode: &Episode) -> Box<Diagnostic> {
    let game = episode.game();
    Box::new(
        Diagnostic::error("opponent::refused", format!("the opponent of `{}` found no legal action", game.name))
            .at(crate::diag::SourceSpan::file(&game.source.path))
            .expected("`bot` and `actions` give answers that `apply` takes")
            .help("run `gift-host check` on the game"),
    )
}
