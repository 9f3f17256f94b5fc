//! What a check found, for people and for editors.

use std::io::Write;

use super::measure::Measures;
use super::{CheckArgs, Kind, Report};
use crate::cli::output::table;
use crate::diag::Diagnostic;
use crate::game::Figures;

pub(super) fn print(report: &Report, args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    for problem in &report.problems {
        writeln!(out, "{problem}\n")?;
    }
    if !report.is_fine() {
        return Ok(());
    }
    let (file, name, verdict) = (report.file.display(), &report.name, verdict(report));
    let what = match report.kind {
        Kind::Game => "",
        Kind::Nest => "the nest",
        Kind::Reward => "the reward script",
    };
    if report.kind != Kind::Game {
        let games = match name.as_str() {
            "" => "there are no games to try it on".to_owned(),
            names => format!("tried on {names}"),
        };
        writeln!(out, "{file}: {what} {verdict} ({games})")?;
        return Ok(());
    }
    if let Some(seed) = args.seed {
        writeln!(out, "{file}: {name} {verdict} (the episode of seed {seed})")?;
        return Ok(());
    }
    let plural = if args.episodes == 1 { "" } else { "s" };
    writeln!(out, "{file}: {name} {verdict} ({} random episode{plural})", args.episodes)?;
    if let Some(figures) = &report.figures {
        let Figures { episodes, ended, turns, turns_of_a_seat, observe, brief, actions, .. } = figures;
        let share = 100.0 * *ended as f64 / (*episodes).max(1) as f64;
        writeln!(
            out,
            "  length   {:.1} turns; {} at most of one seat; {share:.0} % ended by the rules",
            turns.mean, turns_of_a_seat.largest
        )?;
        let lists = if figures.lists_actions { format!("; {:.1} legal answers", actions.mean) } else { String::new() };
        writeln!(
            out,
            "  prompts  observe {:.0} bytes ({} at most), brief {:.0} bytes ({} at most){lists}",
            observe.mean, observe.largest, brief.mean, brief.largest
        )?;
    }
    if let Some(measures) = &report.measures {
        print_measures(measures, out)?;
    }
    Ok(())
}

/// What was found of a script that can be used, in a few words.
fn verdict(report: &Report) -> String {
    match report.problems.len() {
        0 => "is fine".to_owned(),
        1 => "is usable, with 1 warning".to_owned(),
        count => format!("is usable, with {count} warnings"),
    }
}

fn print_measures(measures: &Measures, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let seats = measures.success.iter().map(|success| success.rates.len()).max().unwrap_or(0);
    let mut head = vec!["  success".to_owned(), "by".to_owned(), "episodes".to_owned()];
    head.extend((1..=seats).map(|seat| format!("seat {seat}")));
    rows.push(head);
    for success in &measures.success {
        let player = match (success.player, measures.search) {
            ("search", "limited") => "search (limited)",
            (player, _) => player,
        };
        let mut row = vec![String::new(), player.to_owned(), success.episodes.to_string()];
        row.extend(success.rates.iter().map(|rate| format!("{:.0} %", rate * 100.0)));
        rows.push(row);
    }
    if !measures.success.is_empty() {
        write!(out, "{}", table(&rows))?;
    }
    if measures.search.starts_with("not") {
        writeln!(out, "  search   {}", measures.search)?;
    }
    if let Some(text) = fairness(measures) {
        writeln!(out, "  seats    {text}")?;
    }
    match &measures.signal {
        None => writeln!(out, "  signal   not measured: {}", measures.no_signal)?,
        Some(signal) => writeln!(
            out,
            "  signal   the scores of a group of {} by {} spread by {:.2}; {} of {} groups have no spread",
            signal.members,
            signal.play(),
            signal.spread,
            signal.without,
            signal.groups
        )?,
    }
    Ok(())
}

/// Whether random play favours a seat, in words; `None` for a game of one seat.
fn fairness(measures: &Measures) -> Option<String> {
    let random = measures.success.first().filter(|success| success.rates.len() > 1)?;
    let best = (0..random.rates.len()).max_by(|&a, &b| random.rates[a].total_cmp(&random.rates[b]))?;
    let worst = (0..random.rates.len()).min_by(|&a, &b| random.rates[a].total_cmp(&random.rates[b]))?;
    let against = &measures.opponent;
    Some(if random.intervals[worst][1] < random.intervals[best][0] {
        format!(
            "not alike: by {} play, against `{against}`, seat {} succeeds more often than seat {}",
            random.player,
            best + 1,
            worst + 1
        )
    } else {
        format!("alike, as far as {} episodes tell, against `{against}`", random.episodes)
    })
}

/// A file's report as editors read it.
pub(super) fn json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "file": report.file,
        "kind": report.kind,
        "game": (report.kind == Kind::Game).then_some(&report.name),
        "ok": report.is_fine(),
        "problems": report.problems.iter().map(problem_json).collect::<Vec<_>>(),
        "figures": report.figures,
        "play": report.measures,
    })
}

/// A problem with its place flattened: editors want `file`, `line` and `column`, which are null where they are not known.
fn problem_json(problem: &Diagnostic) -> serde_json::Value {
    let known = |number: u32| (number > 0).then_some(number);
    let place = problem.place.as_ref();
    let stack = problem.stack.iter().map(|frame| {
        serde_json::json!({
            "file": frame.place.file,
            "line": known(frame.place.line),
            "column": known(frame.place.column),
            "function": frame.function,
        })
    });
    serde_json::json!({
        "severity": problem.severity,
        "code": problem.code,
        "message": problem.message,
        "file": place.map(|place| &place.file),
        "line": place.and_then(|place| known(place.line)),
        "column": place.and_then(|place| known(place.column)),
        "expected": problem.expected,
        "found": problem.found,
        "help": problem.help,
        "stack": stack.collect::<Vec<_>>(),
        "notes": problem.notes,
    })
}
