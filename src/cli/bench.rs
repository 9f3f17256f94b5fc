//! `gift-host bench`: how fast the parts of a run are on this machine. `env` plays random episodes without a model, `reload` saves
//! scripts, `rollout` and `update` measure the model without games.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use crate::config::AnswerFormat;
use crate::diag::Diagnostic;
use crate::game::{Episode, Foresight, GameDef, Seat, Status, parse_answer};
use crate::script::STACK_BYTES;
use crate::seed::{Seed, Stream};

use super::setup::{self, SharedArgs};
use super::{ExitStatus, bench_model, bench_reload};

/// Flags of `gift-host bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    part: Part,
}

/// What is measured.
#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Steps a second of games: random play with whole prompts and every limit, without a model
    Env(EnvArgs),
    /// Milliseconds from a save to the new version at an idle rollout boundary
    Reload(bench_reload::ReloadArgs),
    /// Tokens a second of prompts and sampling, beside what the machine could do at best
    Rollout(bench_model::RolloutArgs),
    /// Tokens a second of an optimizer step, beside what the machine could do at best
    Update(bench_model::UpdateArgs),
}

#[derive(Debug, clap::Args)]
struct EnvArgs {
    /// Game scripts, folders of them, or patterns; `games/*` if left out
    #[arg(long, num_args = 1.., value_name = "GLOB")]
    games: Vec<String>,
    /// One setting, such as `games.math.level=2`; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Measurements of each number of threads, taken in turn; medians are printed
    #[arg(long, default_value_t = 3, value_name = "N")]
    rounds: usize,
    /// Measure this number of threads only; one thread and all of them if left out
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Seed of the episodes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Play `--episodes` episodes and write the start, the actions and the scores of each to FILE as JSON lines, for
    /// another program to play again; measures nothing
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Episodes that `--record` plays
    #[arg(long, default_value_t = 1000, value_name = "N")]
    episodes: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    match &args.part {
        Part::Env(args) => env(args, out),
        Part::Reload(args) => bench_reload::run(args, out),
        Part::Rollout(args) => bench_model::rollout(args, out),
        Part::Update(args) => bench_model::update(args, out),
    }
}

fn env(args: &EnvArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    let shared = SharedArgs { games: args.games.clone(), pairs: args.pairs.clone(), ..SharedArgs::default() };
    let config = setup::configuration(&shared, None)?;
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) || args.rounds == 0 {
        let problem = Diagnostic::error("cli::bench", "there is nothing to measure")
            .expected("`--seconds` above 0 and up to 3600, and `--rounds` of at least 1");
        return Err(Box::new(problem).into());
    }
    let catalog = setup::catalog(&config)?;
    let seed = Seed::new(args.seed);
    if let Some(file) = &args.record {
        let mut lines = Vec::new();
        for game in &catalog.games {
            on_thread(|| record(game, seed, args.episodes, &mut lines))??;
        }
        std::fs::write(file, lines).with_context(|| format!("cannot write `{}`", file.display()))?;
        return Ok(ExitStatus::Done);
    }
    let all = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let counts = args.threads.map_or_else(|| if all > 1 { vec![1, all] } else { vec![1] }, |count| vec![count.get()]);
    let mut results = Vec::new();
    for game in &catalog.games {
        let mut rates: Vec<Vec<Rate>> = vec![Vec::new(); counts.len()];
        for round in 0..args.rounds {
            for (threads, rates) in counts.iter().zip(&mut rates) {
                let part = seed.child("round", round as u64);
                rates.push(measure(game, part, *threads, Duration::from_secs_f64(args.seconds))?);
            }
        }
        let rates = counts.iter().zip(rates);
        results.push((&game.name, rates.map(|(&threads, rates)| (threads, median(&rates))).collect::<Vec<_>>()));
    }
    if args.json {
        let entry = |(threads, rate): &(usize, Rate)| {
            json!({
                "threads": threads,
                "steps_per_s": rate.per_second,
                "steps_per_cpu_s": rate.per_cpu_second,
                "prompt_bytes": rate.prompt_bytes,
            })
        };
        let games: Vec<Json> = results
            .iter()
            .map(|(game, rates)| json!({ "game": game, "rates": rates.iter().map(entry).collect::<Vec<_>>() }))
            .collect();
        writeln!(out, "{:#}", json!({ "games": games }))?;
        return Ok(ExitStatus::Done);
    }
    for (game, rates) in &results {
        let base = rates.first().map_or(1.0, |(_, rate)| rate.per_second);
        for (threads, rate) in rates {
            let threads = if *threads == 1 { "1 thread ".to_owned() } else { format!("{threads} threads") };
            let micros = 1e6 / rate.per_second;
            writeln!(
                out,
                "{game:<16} {threads}  {:>9.0} steps/s  {micros:>7.2} µs/step  x{:.2}  prompt {:.0} bytes",
                rate.per_second,
                rate.per_second / base,
                rate.prompt_bytes,
            )?;
        }
    }
    Ok(ExitStatus::Done)
}

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Steps of all threads a second.
    per_second: f64,
    /// Steps a second of processor time, which other programs on the machine disturb less; `None` where the system does
    /// not tell.
    per_cpu_second: Option<f64>,
    /// Mean length of a prompt.
    prompt_bytes: f64,
}

/// The measurement in the middle by steps a second; of an even number, the lower one.
fn median(rates: &[Rate]) -> Rate {
    let mut rates = rates.to_vec();
    rates.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rates[(rates.len() - 1) / 2]
}

/// Plays on `threads` threads for the time, after a warm-up.
fn measure(game: &Arc<GameDef>, seed: Seed, threads: usize, time: Duration) -> anyhow::Result<Rate> {
    let (go, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let ready = AtomicU64::new(0);
    let work = |thread: usize| -> anyhow::Result<Play> {
        let seed = seed.child("thread", thread as u64);
        let mut play = Play::default();
        // The script is compiled and its functions have run before the clock starts.
        let warmed = play
            .episode(game, seed.child("warm-up", 0))
            .and_then(|()| (0..200).try_for_each(|number| play.episode(game, seed.child("warm-up", number))));
        ready.fetch_add(1, Ordering::SeqCst);
        warmed?;
        while !go.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        play = Play::default();
        let start = cpu_time();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            play.episode(game, seed.child("episode", number))?;
            number += 1;
        }
        play.cpu = cpu_time().zip(start).map(|(end, start)| end.saturating_sub(start));
        Ok(play)
    };
    let (plays, elapsed) = std::thread::scope(|scope| {
        let spawn = |thread| {
            let work = &work;
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, move || work(thread))
        };
        let handles = (0..threads).map(spawn).collect::<std::io::Result<Vec<_>>>();
        while handles.is_ok() && ready.load(Ordering::SeqCst) < threads as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        go.store(true, Ordering::Release);
        std::thread::sleep(time);
        stop.store(true, Ordering::Release);
        let plays: anyhow::Result<Vec<Play>> = handles?
            .into_iter()
            .map(|handle| handle.join().map_err(|_| anyhow::anyhow!("a measuring thread failed"))?)
            .collect();
        anyhow::Ok((plays?, start.elapsed()))
    })?;
    let steps = plays.iter().map(|play| play.steps).sum::<u64>() as f64;
    let cpu: Option<Duration> = plays.iter().map(|play| play.cpu).sum();
    let bytes = plays.iter().map(|play| play.prompt_bytes).sum::<u64>() as f64;
    Ok(Rate {
        per_second: steps / elapsed.as_secs_f64(),
        per_cpu_second: cpu.map(|cpu| steps / cpu.as_secs_f64()),
        prompt_bytes: bytes / steps.max(1.0),
    })
}

/// What one thread has played.
#[derive(Default)]
struct Play {
    steps: u64,
    prompt_bytes: u64,
    cpu: Option<Duration>,
}

impl Play {
    /// Plays a random episode to its end. A step reads an answer, applies it, looks for the end, lists the legal answers
    /// and makes the next prompt.
    fn episode(&mut self, game: &Arc<GameDef>, seed: Seed) -> Result<(), Box<Diagnostic>> {
        let mut stream = seed.child("random play", 0).stream();
        let all = (1..=game.seats).map(Seat);
        let foresight = all.fold(Foresight::default(), |known, seat| known.text(seat, false).actions(seat));
        let mut episode = Episode::start_foreseeing(game, seed, None, foresight)?;
        let mut answer = String::new();
        while let Status::Turn(seat) = *episode.status() {
            self.prompt_bytes += episode.observation(seat, false)?.len() as u64;
            answer.clear();
            answer.push_str("<think></think><answer>");
            choose(&episode, &mut stream, &mut answer)?;
            answer.push_str("</answer>");
            episode.act(seat, &parse_answer(&answer, AnswerFormat::Think))?;
            self.steps += 1;
        }
        Ok(())
    }
}

/// Adds a random legal answer to the text; for free text the scripted player's, or a word.
fn choose(episode: &Episode, stream: &mut Stream, answer: &mut String) -> Result<(), Box<Diagnostic>> {
    let Status::Turn(seat) = *episode.status() else { return Ok(()) };
    let game = episode.game();
    match episode.actions(seat)? {
        Some(actions) => answer.push_str(actions.get(stream.index(actions.len())).unwrap_or_default()),
        None if game.has("bot") => answer.push_str(&game.bot(episode.state(), seat, stream)?),
        None => answer.push_str("test"),
    }
    Ok(())
}

/// Plays episodes and writes down what another program needs to play them again.
fn record(game: &Arc<GameDef>, seed: Seed, episodes: u64, lines: &mut Vec<u8>) -> anyhow::Result<()> {
    for number in 0..episodes {
        let seed = seed.child("recorded", number);
        let mut stream = seed.child("random play", 0).stream();
        let mut episode = Episode::start(game, seed)?;
        let start = episode.state().to_json();
        while let Status::Turn(seat) = *episode.status() {
            let mut action = String::new();
            choose(&episode, &mut stream, &mut action)?;
            episode.act(seat, &parse_answer(&action, AnswerFormat::Bare))?;
        }
        let turns: Vec<Json> =
            episode.turns().iter().map(|turn| json!({ "seat": turn.seat.0, "action": turn.action })).collect();
        let scores = match episode.status() {
            Status::Terminated(outcome) => Some(&outcome.scores),
            _ => None,
        };
        let line = json!({ "game": game.name, "seed": seed.value(), "start": start, "turns": turns, "scores": scores });
        writeln!(lines, "{line}")?;
    }
    Ok(())
}

/// Runs scripts with the stack that they need.
fn on_thread<R: Send>(work: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))
    })
}

/// Processor time of this thread, where the system tells.
fn cpu_time() -> Option<Duration> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, whose absence is no error")]
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
