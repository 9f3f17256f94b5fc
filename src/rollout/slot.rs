//! One trajectory while it is played: its episode, its tokens, its place in the answer. It alternates between the rules
//! (`advance`) and the model (`accept`); [`super::play`] decides when.

use std::sync::Arc;

use crate::config::{AnswerFormat, Constrain, ObservationKind};
use crate::diag::Diagnostic;
use crate::game::{Episode, EpisodeSummary, Foresight, Seat, StageResult, Status, parse_answer};
use crate::opponent::{Answer as OpponentAnswer, Fault, Lineup, Reply, View};
use crate::policy::{AnswerTrie, Target, sample};
use crate::seed::Stream;

use super::{Culprit, GroupPlan, RolloutSettings, StagePlan, StageRecord, Table, Trajectory, TurnRecord, Voided};

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

/// The answer that is being sampled.
struct Answer {
    /// Position of its first token.
    start: usize,
    trie: Option<(AnswerTrie, usize)>,
}

pub(super) struct Slot<'a> {
    plan: &'a GroupPlan,
    pub(super) group: usize,
    member: usize,
    pub(super) waiting: Waiting,
    pub(super) tokens: Vec<u32>,
    targets: Vec<Target>,
    log_probs: Vec<f32>,
    sampling: Stream,
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
    answer: Option<Answer>,
    prompt_count: usize,
    sampled_before: usize,
    is_cut: bool,
    stages: Vec<StageRecord>,
    pub(super) voided: Option<Voided>,
    /// The script that scores the trajectory at the moment; a fault is then its own, not the game's.
    scorer: Option<Culprit>,
    reward: f64,
}

impl<'a> Slot<'a> {
    pub(super) fn new(plan: &'a GroupPlan, group: usize, member: usize) -> Self {
        Self {
            plan,
            group,
            member,
            waiting: Waiting::Rules,
            tokens: Vec::new(),
            targets: Vec::new(),
            log_probs: Vec::new(),
            sampling: plan.seed.child("sampling", member as u64).stream(),
            opponent: plan.seed.child("opponent", member as u64).stream(),
            episode: None,
            lineup: None,
            refused: (0, None),
            opponent_answers: (0, 0),
            stop: None,
            texts: Vec::new(),
            answer: None,
            prompt_count: 0,
            sampled_before: 0,
            is_cut: false,
            stages: Vec::new(),
            voided: None,
            scorer: None,
            reward: 0.0,
        }
    }

    pub(super) fn sampled_count(&self) -> usize {
        self.targets.len()
    }

    /// Lets the rules and the opponents go on until the learner must answer or the trajectory is over. A fault voids it.
    pub(super) fn advance(&mut self, table: &Table<'_>, settings: &RolloutSettings) {
        match self.try_advance(table, settings) {
            Ok(()) => {}
            Err(Fault::Script(problem)) => self.void(problem),
            Err(Fault::Episode(problem)) => {
                self.scorer = Some(Culprit::Opponent(self.stage().game.name.clone()));
                self.void(problem);
            }
            Err(Fault::Run(problem)) => self.stop = Some(problem),
        }
    }

    /// Voids the trajectory whose script could not be stopped: [`Slot::advance`] never came to its end.
    pub(super) fn void_as_stuck(&mut self) {
        self.void(self.stage().game.stuck());
    }

    /// The stage that is played, or the last.
    fn stage(&self) -> &'a StagePlan {
        &self.plan.stages[self.stages.len().min(self.plan.stages.len() - 1)]
    }

    fn void(&mut self, problem: Box<Diagnostic>) {
        let game = self.stage().game.name.clone();
        self.voided = Some(Voided {
            culprit: self.scorer.take().unwrap_or_else(|| Culprit::Game(game.clone())),
            game,
            problem: Arc::from(problem),
        });
        self.waiting = Waiting::Nothing;
        self.lineup = None;
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
        if let Some(answer) = self.answer.take() {
            self.take_answer(&answer, table, settings)?;
        }
        loop {
            let Some(stage) = self.plan.stages.get(self.stages.len()) else {
                return Ok(self.finish(table)?);
            };
            if self.episode.is_none() {
                let mut foresight =
                    Foresight::default().text(stage.seat, settings.observation == ObservationKind::Brief);
                if settings.constrain == Constrain::Legal {
                    foresight = foresight.actions(stage.seat);
                }
                self.episode = Some(Episode::start_foreseeing(&stage.game, stage.seed, stage.number, foresight)?);
                let seed = self.plan.seed.child("lineup", self.member as u64).child("stage", self.stages.len() as u64);
                self.lineup = Some(table.opponents.sit(&stage.game, seed));
                self.refused = (0, None);
                self.sampled_before = self.targets.len();
                self.prompt_count = 0;
            }
            let Some(episode) = &mut self.episode else { continue };
            match *episode.status() {
                Status::Turn(seat) if seat == stage.seat => {
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
                match lineup.act(&view, &mut self.opponent)? {
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

    /// Puts the observation before the model; false if the context is full and the episode was cut.
    fn ask(&mut self, seat: Seat, table: &Table<'_>, settings: &RolloutSettings) -> Result<bool, Box<Diagnostic>> {
        let Some(episode) = &mut self.episode else { return Ok(false) };
        let observation = episode.observation(seat, settings.observation == ObservationKind::Brief)?;
        let prompt = table.tokenizer.prompt(&observation, self.tokens.is_empty());
        let spellings: Option<Vec<Vec<u32>>> = match settings.constrain {
            Constrain::Off => None,
            Constrain::Legal => episode
                .actions(seat)?
                .map(|actions| actions.iter().map(|action| table.tokenizer.encode(action)).collect()),
        };
        // A constrained answer ends by itself, but may be longer than a free one.
        let longest = spellings.iter().flatten().map(Vec::len).max().unwrap_or(settings.max_new_tokens);
        if self.tokens.len() + prompt.len() + longest + 1 > settings.max_context {
            episode.truncate();
            self.is_cut = true;
            return Ok(false);
        }
        let trie = spellings.map(|spellings| (AnswerTrie::new(spellings, table.tokenizer.end()), AnswerTrie::ROOT));
        self.prompt_count += prompt.len();
        self.tokens.extend(prompt);
        self.texts.push((observation, String::new()));
        self.answer = Some(Answer { start: self.tokens.len(), trie });
        self.waiting = Waiting::Model;
        self.take_forced(table, settings);
        Ok(self.waiting == Waiting::Model || {
            // Only one answer was legal, so the model is not asked.
            let answer = self.answer.take();
            if let Some(answer) = answer {
                self.take_answer(&answer, table, settings)?;
            }
            false
        })
    }

    /// Draws the next token from `logits` (`[vocab]`).
    pub(super) fn accept(&mut self, logits: &[f32], table: &Table<'_>, settings: &RolloutSettings) {
        let Some(answer) = &mut self.answer else { return };
        let allowed = answer.trie.as_ref().map(|(trie, node)| Arc::clone(trie.allowed(*node)));
        let drawn = sample(logits, allowed.as_deref(), &settings.sampling, &mut self.sampling);
        if let Some((trie, node)) = &mut answer.trie {
            *node = trie.next(*node, drawn.token).unwrap_or(AnswerTrie::ROOT);
        }
        self.targets.push(Target { position: self.tokens.len() as u32, allowed });
        self.log_probs.push(drawn.log_prob);
        self.tokens.push(drawn.token);
        self.take_forced(table, settings);
    }

    /// Appends the tokens that the constraint leaves no choice about, and notices the end of the answer.
    fn take_forced(&mut self, table: &Table<'_>, settings: &RolloutSettings) {
        let ends = table.tokenizer.ends();
        let Some(answer) = &mut self.answer else { return };
        if let Some((trie, node)) = &mut answer.trie {
            while let [only] = **trie.allowed(*node) {
                self.tokens.push(only);
                *node = trie.next(*node, only).unwrap_or(AnswerTrie::ROOT);
            }
        }
        let written = self.tokens.len() - answer.start;
        if written > 0 && self.tokens.last().is_some_and(|last| ends.contains(last)) {
            self.waiting = Waiting::Rules;
        } else if written >= settings.max_new_tokens && answer.trie.is_none() {
            // Cut: the end token is put in by the host, not sampled.
            self.tokens.push(table.tokenizer.end());
            self.is_cut = true;
            self.waiting = Waiting::Rules;
        }
    }

    fn take_answer(
        &mut self,
        answer: &Answer,
        table: &Table<'_>,
        settings: &RolloutSettings,
    ) -> Result<(), Box<Diagnostic>> {
        let end = self.tokens.len().saturating_sub(1).max(answer.start);
        let text = table.tokenizer.decode(&self.tokens[answer.start..end]);
        let action = parse_answer(&text, settings.format == AnswerFormat::Think);
        if let Some(last) = self.texts.last_mut() {
            last.1 = text;
        }
        let (Some(episode), Some(stage)) = (&mut self.episode, self.plan.stages.get(self.stages.len())) else {
            return Ok(());
        };
        episode.act(stage.seat, &action)
    }

    /// Scores the finished episode and goes on to the next stage.
    fn end_stage(&mut self, table: &Table<'_>, settings: &RolloutSettings) -> Result<(), Box<Diagnostic>> {
        let (Some(episode), Some(stage)) = (self.episode.take(), self.plan.stages.get(self.stages.len())) else {
            return Ok(());
        };
        let texts = std::mem::take(&mut self.texts);
        let penalty_of = |turn: &crate::game::Turn| match (turn.seat == stage.seat, turn.well_formed, turn.legal) {
            (true, false, _) => settings.format_penalty,
            (true, true, false) => settings.illegal_penalty,
            _ => 0.0,
        };
        let penalty: f64 = episode.turns().iter().map(penalty_of).sum();
        let (score, success) = episode.result(stage.seat);
        let truncated = *episode.status() == Status::Truncated;
        let (scores, successes) = match episode.status() {
            Status::Terminated(outcome) => (outcome.scores.clone(), outcome.success.clone()),
            _ => (vec![0.0; stage.game.seats as usize], vec![false; stage.game.seats as usize]),
        };
        let sampled_count = self.targets.len() - self.sampled_before;
        self.scorer = table.reward.map(|_| Culprit::Reward);
        let reward = match table.reward {
            None => score + penalty,
            Some(script) => script.reward(&EpisodeSummary {
                game: &stage.game.name,
                seat: stage.seat.0,
                scores: &scores,
                success: &successes,
                turns: episode.turns(),
                texts: &texts,
                prompt_tokens: self.prompt_count,
                response_tokens: sampled_count,
                penalty,
                truncated,
            })?,
        };
        self.scorer = None;
        let turns = episode.turns().iter().zip(texts).map(|(turn, (observation, answer))| TurnRecord {
            seat: turn.seat.0,
            observation,
            answer,
            action: turn.action.clone(),
            legal: turn.legal,
            well_formed: turn.well_formed,
            reward: penalty_of(turn),
        });
        self.stages.push(StageRecord {
            game: stage.game.name.clone(),
            version: stage.game.source.version.0.clone(),
            seed: stage.seed,
            seat: stage.seat.0,
            turns: turns.collect(),
            scores,
            reward,
            success,
            truncated,
            prompt_count: self.prompt_count,
            sampled_count,
        });
        Ok(())
    }

    fn finish(&mut self, table: &Table<'_>) -> Result<(), Box<Diagnostic>> {
        self.waiting = Waiting::Nothing;
        let results: Vec<StageResult> = self
            .stages
            .iter()
            .map(|stage| StageResult { game: stage.game.clone(), reward: stage.reward, success: stage.success })
            .collect();
        self.scorer = Some(Culprit::Nest);
        self.reward = table.nest.reward(&results)?;
        Ok(())
    }

    /// The finished trajectory, or what voided it.
    pub(super) fn into_result(self) -> Result<Trajectory, Voided> {
        if let Some(voided) = self.voided {
            return Err(voided);
        }
        Ok(Trajectory {
            id: format!("{}-{}", self.plan.id, self.member),
            group: self.group,
            member: self.member,
            success: self.stages.iter().all(|stage| stage.success),
            truncated: self.is_cut || self.stages.iter().any(|stage| stage.truncated),
            stages: self.stages,
            tokens: self.tokens,
            targets: self.targets,
            log_probs: self.log_probs,
            reward: self.reward,
        })
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
