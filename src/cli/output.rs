//! Writers, tables and times: what all subcommands print with.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::eval::SuccessRate;

/// Time since the program first asked.
pub(crate) fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A line (or more) of the log: progress, warnings and errors. How severe it is stands at its beginning, as diagnostics and
/// warnings begin.
pub(crate) fn log(text: &str) {
    if text.starts_with("error") {
        tracing::error!("{text}");
    } else if text.starts_with("warning") {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

/// `1h02m`, `3m20s` or `45s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// The success rates as a table, with those of an earlier measurement beside them.
pub(crate) fn rates_table(rates: &[SuccessRate], before: Option<&[SuccessRate]>) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["game", "opponent", "episodes"];
    head.extend(before.map(|_| "before"));
    head.extend(["success", "95 % interval", "score", "illegal", "format", "turns"]);
    rows.push(head.into_iter().map(str::to_owned).collect());
    for (index, rate) in rates.iter().enumerate() {
        let mut row = vec![rate.game.clone(), rate.opponent.clone(), rate.rates.episodes.to_string()];
        row.extend(before.map(|before| before.get(index).map_or_else(String::new, |rate| percent(rate.rates.success))));
        row.extend([
            percent(rate.rates.success),
            format!("{} - {}", percent(rate.rates.interval[0]), percent(rate.rates.interval[1])),
            format!("{:.3}", rate.rates.score),
            percent(rate.rates.illegal),
            percent(rate.rates.format_error),
            format!("{:.1}", rate.rates.turns),
        ]);
        rows.push(row);
    }
    let mut table = table(&rows);
    for rate in rates.iter().filter(|rate| rate.voided > 0) {
        // Writing to a string cannot fail.
        _ = writeln!(table, "{}: {} episodes were lost to a fault of a script or an opponent", rate.game, rate.voided);
    }
    table
}

/// Tells the first fault of each game that lost episodes.
pub(crate) fn log_losses<'a>(rates: impl IntoIterator<Item = &'a SuccessRate>) {
    for problem in rates.into_iter().filter_map(|rate| rate.problem.as_ref()) {
        log(&problem.to_string());
    }
}

/// Columns padded to their widest cell; the first two to the left, numbers to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let fill = " ".repeat(widths[column] - cell.chars().count());
            if column < 2 { format!("{cell}{fill}") } else { format!("{fill}{cell}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Most memory that the process has held, in bytes; `None` where the system does not tell.
pub(crate) fn peak_memory() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, whose absence is no error")]
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Lets [`peak_memory`] count anew from what the process holds now, where the system can.
pub(crate) fn reset_peak_memory() {
    // Linux takes `5` here since 4.0; elsewhere the peak stays that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Processor time of all threads of the process so far, in seconds, to 10 ms; `None` where the system does not tell. Other
/// programs on the machine disturb it less than the clock.
pub(crate) fn processor_seconds() -> Option<f64> {
    // Times of user and system are the fields 14 and 15, in ticks of 1/100 s; the name before them may hold spaces.
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, whose absence is no error")]
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
