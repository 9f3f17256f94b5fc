//! What was measured, as columns, Markdown, JSON and CSV.

use std::io::Write;

use serde_json::json;

use crate::eval::{Comparison, Rates, SuccessRate};

use super::super::output::table;
use super::Format;

/// The figures of one call.
pub(super) struct Measured {
    /// The player as the user named it, and its figures by game.
    pub(super) player: (String, Vec<SuccessRate>),
    /// The baseline, if one played.
    pub(super) baseline: Option<(String, Vec<SuccessRate>)>,
    /// The two, game by game; empty without a baseline.
    pub(super) comparison: Vec<Comparison>,
}

/// One line of a table: all episodes of a game, or those of one seat.
struct Row<'a> {
    player: &'a str,
    rate: &'a SuccessRate,
    /// The seat, or none for all.
    seat: Option<u32>,
    rates: &'a Rates,
    comparison: Option<&'a Comparison>,
}

impl Row<'_> {
    fn seat(&self) -> String {
        self.seat.map_or_else(|| "all".to_owned(), |seat| seat.to_string())
    }
}

impl Measured {
    /// Every figure, the player's first.
    pub(super) fn all(&self) -> Vec<&SuccessRate> {
        self.player.1.iter().chain(self.baseline.iter().flat_map(|(_, rates)| rates)).collect()
    }

    /// Prints everything.
    pub(super) fn print(&self, format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
        match format {
            Format::Table => self.print_table(out),
            Format::Markdown => self.print_markdown(out),
            Format::Json => self.print_json(out),
            Format::Csv => self.print_csv(out),
        }
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        let players = std::iter::once(&self.player).chain(&self.baseline);
        for (index, (player, rates)) in players.enumerate() {
            for rate in rates {
                let compared = self.comparison.iter().find(|comparison| index == 0 && comparison.game == rate.game);
                rows.push(Row { player, rate, seat: None, rates: &rate.rates, comparison: compared });
                rows.extend(rate.seats.iter().map(|seat| Row {
                    player,
                    rate,
                    seat: Some(seat.seat),
                    rates: &seat.rates,
                    comparison: None,
                }));
            }
        }
        rows
    }

    fn print_table(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let has_seats = self.all().iter().any(|rate| !rate.seats.is_empty());
        let mut rows = vec![columns(&[
            "game",
            "opponent",
            "seat",
            "episodes",
            "success",
            "95 % interval",
            "draw",
            "loss",
            "score",
            "illegal",
            "format",
            "turns",
            "tokens",
        ])];
        for row in self.rows() {
            let rates = row.rates;
            rows.push(vec![
                row.rate.game.clone(),
                row.rate.opponent.clone(),
                row.seat(),
                rates.episodes.to_string(),
                percent(rates.success),
                format!("{} - {}", percent(rates.interval[0]), percent(rates.interval[1])),
                percent(rates.draw),
                percent(rates.loss),
                format!("{:.3}", rates.score),
                percent(rates.illegal),
                percent(rates.format_error),
                format!("{:.1}", rates.turns),
                format!("{:.1}", rates.tokens),
            ]);
        }
        if !has_seats {
            for row in &mut rows {
                row.remove(2);
            }
        }
        if let Some((baseline, rates)) = &self.baseline {
            // The baseline's rows are as many as its games and seats.
            let count: usize = rates.iter().map(|rate| 1 + rate.seats.len()).sum();
            let mut lower = vec![rows[0].clone()];
            lower.extend(rows.split_off(rows.len() - count));
            write!(out, "{}:\n{}\n{baseline} (baseline):\n{}\n", self.player.0, table(&rows), table(&lower))?;
            write!(out, "{}", table(&self.comparison_rows()))?;
        } else {
            write!(out, "{}", table(&rows))?;
        }
        for rate in self.all().into_iter().filter(|rate| rate.voided > 0) {
            writeln!(out, "{}: {} episodes were lost to a fault of a script or an opponent", rate.game, rate.voided)?;
        }
        Ok(())
    }

    fn comparison_rows(&self) -> Vec<Vec<String>> {
        let mut rows =
            vec![columns(&["game", "pairs", "both", "only model", "only baseline", "neither", "difference", "p"])];
        for comparison in &self.comparison {
            let counts = [
                comparison.episodes,
                comparison.both,
                comparison.only_player,
                comparison.only_baseline,
                comparison.neither,
            ];
            let mut row = vec![comparison.game.clone()];
            row.extend(counts.map(|count| count.to_string()));
            row.push(format!("{:+.1} %", comparison.difference * 100.0));
            row.push(p_value(comparison.p_value));
            rows.push(row);
        }
        rows
    }

    fn print_markdown(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut rows = vec![columns(&[
            "model", "game", "opponent", "seat", "episodes", "success", "draw", "loss", "score", "illegal", "format",
            "turns", "tokens",
        ])];
        for row in self.rows() {
            let rates = row.rates;
            rows.push(vec![
                row.player.to_owned(),
                row.rate.game.clone(),
                row.rate.opponent.clone(),
                row.seat(),
                rates.episodes.to_string(),
                with_interval(rates.success, rates.interval),
                with_interval(rates.draw, rates.draw_interval),
                with_interval(rates.loss, rates.loss_interval),
                format!("{:.3}", rates.score),
                with_interval(rates.illegal, rates.illegal_interval),
                with_interval(rates.format_error, rates.format_error_interval),
                format!("{:.1}", rates.turns),
                format!("{:.1}", rates.tokens),
            ]);
        }
        markdown(&rows, 4, out)?;
        if self.baseline.is_some() {
            writeln!(out)?;
            markdown(&self.comparison_rows(), 1, out)?;
        }
        Ok(())
    }

    fn print_json(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut document = json!({ "games": self.player.1 });
        if let Some((model, rates)) = &self.baseline {
            document["baseline"] = json!({ "model": model, "games": rates });
            document["comparison"] = json!(self.comparison);
        }
        writeln!(out, "{document:#}")?;
        Ok(())
    }

    fn print_csv(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let rates = [
            "episodes",
            "success",
            "success_low",
            "success_high",
            "draw",
            "draw_low",
            "draw_high",
            "loss",
            "loss_low",
            "loss_high",
            "score",
            "illegal",
            "illegal_low",
            "illegal_high",
            "format_error",
            "format_error_low",
            "format_error_high",
            "truncated",
            "turns",
            "tokens",
            "voided",
        ];
        let compared = ["pairs", "both", "only_model", "only_baseline", "neither", "difference", "p_value"];
        let mut head = vec!["model", "game", "opponent", "seat"];
        head.extend(rates);
        head.extend(self.baseline.iter().flat_map(|_| compared));
        writer.write_record(&head)?;
        for row in self.rows() {
            let r = row.rates;
            let mut cells = vec![row.player.to_owned(), row.rate.game.clone(), row.rate.opponent.clone(), row.seat()];
            cells.push(r.episodes.to_string());
            for (rate, interval) in [(r.success, r.interval), (r.draw, r.draw_interval), (r.loss, r.loss_interval)] {
                cells.extend([rate, interval[0], interval[1]].map(|number| number.to_string()));
            }
            cells.push(r.score.to_string());
            for (rate, interval) in [(r.illegal, r.illegal_interval), (r.format_error, r.format_error_interval)] {
                cells.extend([rate, interval[0], interval[1]].map(|number| number.to_string()));
            }
            cells.extend([r.truncated, r.turns, r.tokens].map(|number| number.to_string()));
            // Faults are known of the game, not of a seat.
            cells.push(if row.seat.is_none() { row.rate.voided.to_string() } else { String::new() });
            if self.baseline.is_some() {
                let counts = |c: &Comparison| {
                    let counts = [c.episodes, c.both, c.only_player, c.only_baseline, c.neither];
                    counts
                        .map(|count| count.to_string())
                        .into_iter()
                        .chain([c.difference, c.p_value].map(|n| n.to_string()))
                };
                let filled: Vec<String> = row.comparison.map(|c| counts(c).collect()).unwrap_or_default();
                cells.extend((0..compared.len()).map(|at| filled.get(at).cloned().unwrap_or_default()));
            }
            writer.write_record(&cells)?;
        }
        out.write_all(&writer.into_inner().map_err(|error| anyhow::anyhow!(error.to_string()))?)?;
        Ok(())
    }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn with_interval(share: f64, interval: [f64; 2]) -> String {
    format!("{:.1} % ({:.1}–{:.1})", share * 100.0, interval[0] * 100.0, interval[1] * 100.0)
}

/// Three significant digits; small ones as powers of ten.
fn p_value(p: f64) -> String {
    if p >= 0.001 { format!("{p:.3}") } else { format!("{p:.1e}") }
}

/// A Markdown table, the first `texts` columns to the left, numbers to the right. Names cannot end a cell.
fn markdown(rows: &[Vec<String>], texts: usize, out: &mut dyn Write) -> anyhow::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
        if index == 0 {
            let marks: Vec<&str> = (0..row.len()).map(|at| if at < texts { "---" } else { "---:" }).collect();
            writeln!(out, "| {} |", marks.join(" | "))?;
        }
    }
    Ok(())
}
