//! The versions in service: games, nest and reward script of a run. Every fallible step of a change comes before the swap.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::diag::{Diagnostic, SourceSpan};
use crate::game::{GameDef, Nest, RewardScript, ScriptHost, check_game_within, try_nest, try_reward};
use crate::script::{Language, Source, Value};
use crate::seed::Seed;

/// Episodes of random play that a version must get through before it is used.
const CHECK_EPISODES: u64 = 5;
/// Time of that play: a game of many slow turns is used after this, as far as it was checked.
const CHECK_TIME: Duration = Duration::from_secs(20);

/// A script file to load a game from.
pub type GameFile = PathBuf;

/// The scripts of a run. Cheap to clone; a rollout works on its own clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The games, in the order given; those that joined later come last.
    pub games: Vec<Arc<GameDef>>,
    /// Games that were checked and are not played: one joins when the nest names it.
    pub offered: Vec<Arc<GameDef>>,
    /// How they are put together.
    pub nest: Arc<Nest>,
    /// The reward script, if there is one.
    pub reward: Option<Arc<RewardScript>>,
    /// What `game.init` is given, by game.
    pub options: BTreeMap<String, Value>,
    /// Limits and library.
    pub host: ScriptHost,
}

/// The source of a script file.
///
/// # Errors
/// A [`Diagnostic`] if the file is missing, unreadable, empty or in no known language.
pub fn read_source(path: &Path) -> Result<Source, Box<Diagnostic>> {
    let language = Language::of(path).ok_or_else(|| {
        Box::new(
            Diagnostic::error("script::language", format!("`{}` is in no known script language", path.display()))
                .expected("a file ending in `.lua`, `.luau` or `.rhai`")
                .help("rename the file, or narrow the pattern of `--games`"),
        )
    })?;
    let source = Source::read(path, language).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Box::new(
            Diagnostic::error("script::unreadable", format!("`{}` cannot be read", path.display()))
                .at(SourceSpan::file(path))
                .expected("a readable UTF-8 text file")
                .found(cause)
                .help("check the file's name and rights"),
        )
    })?;
    if source.text.trim().is_empty() {
        return Err(Box::new(
            Diagnostic::error("script::empty", format!("`{}` is empty", path.display()))
                .at(SourceSpan::file(path))
                .expected("a script that returns a table")
                .found("no text")
                .help("see `games/tictactoe.lua` for a whole game"),
        ));
    }
    Ok(source)
}

impl Catalog {
    /// Compiles and checks the scripts of a run.
    ///
    /// # Errors
    /// The first [`Diagnostic`].
    pub fn load(
        games: &[GameFile],
        nest: Option<&Path>,
        reward: Option<&Path>,
        options: BTreeMap<String, Value>,
        host: ScriptHost,
    ) -> Result<Self, Box<Diagnostic>> {
        let sources = games.iter().map(|path| read_source(path)).collect::<Result<Vec<_>, _>>()?;
        let nest = nest.map(read_source).transpose()?;
        let reward = reward.map(read_source).transpose()?;
        Self::from_sources(sources, nest, reward, options, host)
    }

    /// Compiles and checks sources that are in memory already.
    ///
    /// # Errors
    /// The first [`Diagnostic`].
    pub fn from_sources(
        games: Vec<Source>,
        nest: Option<Source>,
        reward: Option<Source>,
        options: BTreeMap<String, Value>,
        host: ScriptHost,
    ) -> Result<Self, Box<Diagnostic>> {
        let nest_in_order = Arc::new(Nest::in_order(Vec::new(), &host));
        let mut catalog =
            Self { games: Vec::new(), offered: Vec::new(), nest: nest_in_order, reward: None, options, host };
        for source in games {
            let game = catalog.compile_game(&source)?;
            if let Some(other) = catalog.game(&game.name) {
                return Err(same_name(&game, other));
            }
            catalog.games.push(game);
        }
        catalog.nest = Arc::new(match nest {
            Some(source) => catalog.compile_nest(&source)?,
            None => Nest::in_order(catalog.names(), &catalog.host),
        });
        if let Some(source) = reward {
            catalog.reward = Some(Arc::new(catalog.compile_reward(source)?));
        }
        Ok(catalog)
    }

    /// The names of the games, in order.
    pub fn names(&self) -> Vec<String> {
        self.games.iter().map(|game| game.name.clone()).collect()
    }

    /// The names of the games and of those that may join.
    pub fn known_names(&self) -> Vec<String> {
        self.games.iter().chain(&self.offered).map(|game| game.name.clone()).collect()
    }

    /// The game of this name, played or offered.
    pub fn game(&self, name: &str) -> Option<&Arc<GameDef>> {
        self.games.iter().chain(&self.offered).find(|game| game.name == name)
    }

    /// Puts another version of a game in the place of the one with its name.
    pub fn replace_game(&mut self, game: Arc<GameDef>) {
        if let Some(place) = self.games.iter_mut().chain(&mut self.offered).find(|place| place.name == game.name) {
            *place = game;
        }
    }

    /// Adds a game that may join, or another version of it.
    pub fn offer(&mut self, game: Arc<GameDef>) {
        if self.game(&game.name).is_some() {
            self.replace_game(game);
        } else {
            self.offered.push(game);
        }
    }

    /// Makes an offered game one of the run's; the default nest plays it as its last stage. False if none has the name.
    pub fn join(&mut self, name: &str) -> bool {
        let Some(at) = self.offered.iter().position(|game| game.name == name) else { return false };
        self.games.push(self.offered.remove(at));
        self.order_default_nest();
        true
    }

    /// Takes a game that joined out of the run.
    pub fn withdraw(&mut self, name: &str) {
        self.games.retain(|game| game.name != name);
        self.offered.retain(|game| game.name != name);
        self.order_default_nest();
    }

    fn order_default_nest(&mut self) {
        if self.nest.source.is_none() {
            self.nest = Arc::new(Nest::in_order(self.names(), &self.host));
        }
    }

    /// Compiles a game and plays seeded random episodes with it.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the compiler or of the check.
    pub(super) fn compile_game(&self, source: &Source) -> Result<Arc<GameDef>, Box<Diagnostic>> {
        // The name that options go by is in the script, so a first compilation finds it.
        let bare = GameDef::compile(source, Value::default(), &self.host)?;
        let options = self.options.get(&bare.name).cloned().unwrap_or_else(|| Value::Map(BTreeMap::new()));
        let game = Arc::new(GameDef::compile(source, options, &self.host)?);
        let problems = check_game_within(&game, CHECK_EPISODES, CHECK_TIME);
        let (errors, causes): (Vec<Diagnostic>, Vec<Diagnostic>) = problems.into_iter().partition(is_error);
        if let Some(problem) = errors.into_iter().next() {
            let told = |problem: Diagnostic, cause: &Diagnostic| problem.note(cause.to_string());
            return Err(Box::new(causes.iter().fold(problem, told)));
        }
        let mut game = Arc::unwrap_or_clone(game);
        game.source = game.source.with_opened_data();
        Ok(Arc::new(game))
    }

    /// Compiles a nest of the games that are played or offered, and tries it.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the compiler or of the trial.
    pub(super) fn compile_nest(&self, source: &Source) -> Result<Nest, Box<Diagnostic>> {
        let mut nest = Nest::compile(source, &self.known_names(), &self.host)?;
        self.host
            .guarded(source, || try_nest(&nest, &self.known_names(), Seed::new(0)))
            .and_then(|tried| tried)
            .map_err(|problem| Box::new((*problem).note("found when the nest was tried on examples")))?;
        nest.source = nest.source.map(Source::with_opened_data);
        Ok(nest)
    }

    /// Compiles a reward script and rewards seeded random episodes of every game with it.
    ///
    /// # Errors
    /// A [`Diagnostic`] of the compiler or of the trial.
    pub(super) fn compile_reward(&self, source: Source) -> Result<RewardScript, Box<Diagnostic>> {
        let mut reward = RewardScript::compile(source, &self.host)?;
        try_reward(&reward, &self.games, Seed::new(0))
            .map_err(|problem| Box::new((*problem).note("found when the script was tried on random episodes")))?;
        reward.source = reward.source.with_opened_data();
        Ok(reward)
    }

    /// Every script: played, offered, nest and reward.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let games = self.games.iter().chain(&self.offered).map(|game| &game.source);
        games.chain(self.nest.source.as_ref()).chain(self.reward.as_ref().map(|reward| &reward.source))
    }

    /// Every script that is played with: games, nest and reward.
    pub fn sources_in_service(&self) -> impl Iterator<Item = &Source> {
        let games = self.games.iter().map(|game| &game.source);
        games.chain(self.nest.source.as_ref()).chain(self.reward.as_ref().map(|reward| &reward.source))
    }

    /// The script that came from this file.
    pub fn source_of(&self, path: &Path) -> Option<&Source> {
        self.sources().find(|source| source.path == path)
    }
}

pub(super) fn same_name(game: &GameDef, other: &GameDef) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("game::same_name", format!("two games are called `{}`", game.name))
            .at(SourceSpan::file(&game.source.path))
            .expected("a different `name` for each game")
            .found(format!("`{}` has the same", other.source.path.display()))
            .help("change `name` in one of them, or leave one out of `--games`"),
    )
}

fn is_error(problem: &Diagnostic) -> bool {
    problem.severity == crate::diag::Severity::Error
}
