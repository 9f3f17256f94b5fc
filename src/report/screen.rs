//! A run on a terminal: curves, shares of time, reloads and the newest episodes, drawn from the run directory while another
//! process writes it. Holds what is shown and draws it; the terminal itself, its keys and the waiting are `cli`'s.

use std::io;
use std::path::{Path, PathBuf};

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Axis, Block, Chart, Clear, Dataset, GraphType, List, ListState, Paragraph, Wrap};
use serde_json::Value;

use crate::metrics::{MetricValue, names};

use super::curves::{Curves, Follower, thinned};
use super::episodes;

/// Episodes of the newest file that can be looked through.
const MAX_EPISODES: usize = 300;
/// Points of a curve: two a column of a wide terminal.
const MAX_POINTS: usize = 400;
const COLORS: [Color; 6] = [Color::Cyan, Color::Yellow, Color::Green, Color::Magenta, Color::Blue, Color::Red];
/// Without colours the curves of a chart are told apart by these.
const MARKERS: [(Marker, &str); 4] =
    [(Marker::Braille, "⠒ "), (Marker::Dot, "• "), (Marker::Block, "█ "), (Marker::Bar, "▄ ")];

const KEYS: &str = "\
1, 2, Tab    curves, episodes
up, down     another episode (also k, j)
PgUp, PgDn   ten episodes on
left, right  scroll the transcript (also h, l)
Home, End    the first, the last episode
?            this help
q, Esc       leave; the run goes on";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Curves,
    Episodes,
}

/// What is shown of a run.
#[derive(Debug)]
pub struct Screen {
    folder: PathBuf,
    name: String,
    follower: Follower,
    episodes: Vec<Value>,
    episodes_file: Option<PathBuf>,
    chosen: usize,
    scroll: u16,
    view: View,
    is_helping: bool,
    has_colors: bool,
    problem: Option<String>,
}

impl Screen {
    /// A screen of a run directory, not yet read.
    pub fn new(folder: &Path, has_colors: bool) -> Self {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        Self {
            folder: folder.to_owned(),
            name: whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            follower: Follower::new(folder),
            episodes: Vec::new(),
            episodes_file: None,
            chosen: 0,
            scroll: 0,
            view: View::Curves,
            is_helping: false,
            has_colors,
            problem: None,
        }
    }

    /// Reads what the run wrote since; true if there is something new.
    pub fn poll(&mut self) -> bool {
        let (changed, problem) = match self.follower.poll() {
            Ok(changed) => (changed, None),
            Err(error) => (false, Some(format!("metrics.jsonl: {error}"))),
        };
        let is_other = self.problem != problem;
        self.problem = problem;
        let newest = episodes::files(&self.folder).pop();
        let has_episodes = newest.is_some() && newest != self.episodes_file;
        if has_episodes {
            let read = newest.as_deref().map(|path| episodes::first(path, MAX_EPISODES)).unwrap_or_default();
            self.episodes = read;
            self.episodes_file = newest;
            self.choose(0);
        }
        changed || is_other || has_episodes
    }

    /// The curves that were read.
    pub fn curves(&self) -> &Curves {
        &self.follower.curves
    }

    /// Takes a key; false if it was the one to leave.
    pub fn key(&mut self, key: KeyCode) -> bool {
        if self.is_helping {
            self.is_helping = false;
            return true;
        }
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('?') => self.is_helping = true,
            KeyCode::Char('2') => self.view = View::Episodes,
            KeyCode::Tab if self.view == View::Curves => self.view = View::Episodes,
            KeyCode::Char('1') | KeyCode::Tab => self.view = View::Curves,
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.chosen + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.chosen.saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.chosen + 10),
            KeyCode::PageUp => self.choose(self.chosen.saturating_sub(10)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(usize::MAX),
            KeyCode::Right | KeyCode::Char('l') => self.scroll = self.scroll.saturating_add(5),
            KeyCode::Left | KeyCode::Char('h') => self.scroll = self.scroll.saturating_sub(5),
            _ => {}
        }
        true
    }

    fn choose(&mut self, index: usize) {
        self.chosen = index.min(self.episodes.len().saturating_sub(1));
        self.scroll = 0;
    }

    fn color(&self, index: usize) -> Style {
        if self.has_colors { Style::new().fg(COLORS[index % COLORS.len()]) } else { Style::new() }
    }

    /// Draws everything, for whatever size the terminal has.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]);
        let [head, body, foot] = rows.areas(frame.area());
        frame.render_widget(Paragraph::new(self.headline()).style(Style::new().add_modifier(Modifier::BOLD)), head);
        match self.view {
            View::Curves => self.draw_curves(frame, body),
            View::Episodes => self.draw_episodes(frame, body),
        }
        let keys = match self.view {
            View::Curves => " 2 episodes   ? keys   q leave",
            View::Episodes => " 1 curves   up/down episode   left/right scroll   ? keys   q leave",
        };
        frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
        if self.is_helping {
            let help = Paragraph::new(KEYS).block(Block::bordered().title(" keys "));
            let area = centered(frame.area(), 50, KEYS.lines().count() as u16 + 2);
            frame.render_widget(Clear, area);
            frame.render_widget(help, area);
        }
    }

    fn headline(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!(" {}: {problem}", self.name);
        }
        let Some(last) = self.curves().last() else {
            return format!(" {}: no iteration is done yet", self.name);
        };
        let figure = |name: &str| last.number(name).filter(|value| value.is_finite());
        let reward = figure(names::REWARD_MEAN).map_or_else(String::new, |value| format!("   reward {value:.3}"));
        let success =
            figure(names::SUCCESS_ALL).map_or_else(String::new, |value| format!("   success {:.0} %", value * 100.0));
        let speed =
            figure(names::TOKENS_ROLLOUT_PER_S).map_or_else(String::new, |value| format!("   {value:.0} tokens/s"));
        format!(" {}   iteration {}{reward}{success}{speed}", self.name, last.step())
    }

    fn draw_curves(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = [Constraint::Fill(3), Constraint::Fill(3), Constraint::Length(5), Constraint::Length(3)];
        let [upper, lower, speed, events] = Layout::vertical(rows).areas(area);
        let halves = |area| Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas::<2>(area);
        let games = self.curves().games();
        let by_game = |prefix: &str| -> Vec<(String, String)> {
            games.iter().map(|game| (game.clone(), format!("{prefix}/{game}"))).collect()
        };
        let single = |name: &str| vec![(String::new(), name.to_owned())];
        let [left, right] = halves(upper);
        self.draw_chart(frame, left, "reward", &by_game("reward"));
        self.draw_chart(frame, right, "success", &by_game("success"));
        let [left, right] = halves(lower);
        self.draw_chart(frame, left, "entropy", &single(names::ENTROPY));
        self.draw_chart(frame, right, "gradient norm", &single(names::GRAD_NORM));
        let [left, right] = halves(speed);
        self.draw_chart(frame, left, "tokens/s", &single(names::TOKENS_ROLLOUT_PER_S));
        self.draw_times(frame, right);
        let lines: Vec<Line<'_>> = self.events().into_iter().rev().map(Line::from).collect();
        frame.render_widget(
            Paragraph::new(lines)
                .wrap(Wrap { trim: false })
                .block(Block::new().borders(ratatui::widgets::Borders::TOP).title(" reloads ")),
            events,
        );
    }

    /// A chart of some figures, each with the name it is shown under.
    fn draw_chart(&self, frame: &mut Frame<'_>, area: Rect, title: &str, figures: &[(String, String)]) {
        let curves: Vec<Vec<(f64, f64)>> =
            figures.iter().map(|(_, name)| thinned(&self.curves().points(name), MAX_POINTS)).collect();
        // The curves' names stand above the chart, and below it where they do not fit.
        let mut headings = [vec![Span::raw(format!(" {title} "))], Vec::new()];
        let mut room = usize::from(area.width).saturating_sub(title.len() + 5);
        for (index, ((label, _), points)) in figures.iter().zip(&curves).enumerate() {
            let Some((_, y)) = points.last() else { continue };
            let sign = if self.has_colors || figures.len() < 2 { "" } else { MARKERS[index % MARKERS.len()].1 };
            let separator = if label.is_empty() { "" } else { " " };
            let text = format!("{sign}{label}{separator}{} ", short(*y));
            room = room.saturating_sub(text.chars().count());
            headings[usize::from(room == 0)].push(Span::styled(text, self.color(index)));
        }
        let [above, below] = headings;
        let all = || curves.iter().flatten();
        let (x0, x1) = bounds(all().map(|point| point.0));
        let (y0, y1) = bounds(all().map(|point| point.1));
        let datasets = curves.iter().enumerate().map(|(index, points)| {
            let marker = if self.has_colors { Marker::Braille } else { MARKERS[index % MARKERS.len()].0 };
            Dataset::default().data(points).marker(marker).graph_type(GraphType::Line).style(self.color(index))
        });
        let mut block = Block::bordered().title(Line::from(above));
        if !below.is_empty() {
            block = block.title_bottom(Line::from(below));
        }
        let chart = Chart::new(datasets.collect())
            .block(block)
            .x_axis(Axis::default().bounds([x0, x1]))
            .y_axis(Axis::default().bounds([y0, y1]).labels([short(y0), short(y1)]));
        frame.render_widget(chart, area);
    }

    /// Where the time of the newest iteration went.
    fn draw_times(&self, frame: &mut Frame<'_>, area: Rect) {
        let last = self.curves().last();
        let seconds = |name: &str| last.and_then(|record| record.number(name)).filter(|s| s.is_finite()).unwrap_or(0.0);
        let (rollout, scripts) = (seconds(names::TIME_ROLLOUT_S), seconds(names::TIME_ENV_S));
        let update = seconds(names::TIME_UPDATE_S);
        let whole = rollout + update;
        let width = usize::from(area.width.saturating_sub(24));
        let parts = [("sampling", (rollout - scripts).max(0.0)), ("environment", scripts), ("update", update)];
        let lines: Vec<Line<'_>> = parts
            .into_iter()
            .enumerate()
            .map(|(index, (name, time))| {
                let share = if whole > 0.0 { time / whole } else { 0.0 };
                let bar = "█".repeat((share * width as f64).round() as usize);
                Line::from(vec![
                    Span::raw(format!("{name:<12}{:>3.0} % ", share * 100.0)),
                    Span::styled(bar, self.color(index)),
                ])
            })
            .collect();
        let title = format!(" time, {whole:.1} s an iteration ");
        frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
    }

    /// What reloading did, in order.
    fn events(&self) -> Vec<String> {
        let event = |record: &crate::metrics::Record| match record.get(names::RELOAD_EVENTS)? {
            MetricValue::Text(text) => Some(format!(" iteration {}: {text}", record.step())),
            _ => None,
        };
        self.curves().records().iter().filter_map(event).collect()
    }

    fn draw_episodes(&self, frame: &mut Frame<'_>, area: Rect) {
        let [left, right] = Layout::horizontal([Constraint::Length(27), Constraint::Min(0)]).areas(area);
        let rows = self.episodes.iter().map(|episode| {
            let mark = if episode["success"] == true { "+" } else { "-" };
            let reward = episode["reward"].as_f64().map_or_else(|| "?".to_owned(), short);
            format!("{mark} {:<12} {reward}", episode["id"].as_str().unwrap_or("?"))
        });
        let step = self.episodes.first().and_then(|episode| episode["step"].as_u64());
        let title = step.map_or_else(|| " no episodes yet ".to_owned(), |step| format!(" of iteration {step} "));
        let list = List::new(rows)
            .block(Block::bordered().title(title))
            .highlight_symbol(">")
            .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = ListState::default().with_selected((!self.episodes.is_empty()).then_some(self.chosen));
        frame.render_stateful_widget(list, left, &mut state);
        let text = self.episodes.get(self.chosen).map(|episode| self.transcript(episode)).unwrap_or_default();
        // The end of the transcript stays on the screen. Wrapped lines are counted by their width, which is close enough.
        let width = usize::from(right.width.saturating_sub(2)).max(1);
        let rows: usize = text.lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
        let most = rows.saturating_sub(usize::from(right.height.saturating_sub(2)));
        let scroll = self.scroll.min(u16::try_from(most).unwrap_or(u16::MAX));
        let block = Block::bordered().title(" transcript: bold was trained on ");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).scroll((scroll, 0)).block(block), right);
    }

    fn transcript(&self, episode: &Value) -> Text<'static> {
        let dim = Style::new().add_modifier(Modifier::DIM);
        let games: Vec<&str> = episode["games"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let is_kept = episode["kept"] == true;
        let fate = if is_kept { "trained on" } else { "group dropped" };
        let advantage = episode["advantage"].as_f64().map_or_else(|| "?".to_owned(), short);
        let mut lines = vec![
            Line::styled(games.join(" + "), Style::new().add_modifier(Modifier::BOLD)),
            Line::styled(format!("advantage {advantage}, {fate}"), dim),
        ];
        let mut begun = None;
        for turn in episode["turns"].as_array().into_iter().flatten() {
            let seat = turn["seat"].as_u64().unwrap_or(0);
            let stage = turn["stage"].as_u64().unwrap_or(0) as usize;
            if games.len() > 1 && begun.replace(stage) != Some(stage) {
                let name = games.get(stage).copied().unwrap_or("?");
                let reward = episode["stage_rewards"][stage].as_f64().map_or_else(|| "?".to_owned(), short);
                lines.push(Line::raw(""));
                lines.push(Line::styled(format!("{name}, reward {reward}"), Style::new().add_modifier(Modifier::BOLD)));
            }
            let is_learner = episode["seats"].get(stage).and_then(Value::as_u64) == Some(seat);
            let is_trained = is_learner && is_kept;
            let who = if is_learner { "learner" } else { "opponent" };
            let mut notes = String::new();
            for (field, note) in [("legal", ", illegal"), ("well_formed", ", malformed")] {
                if turn[field] == false {
                    notes += note;
                }
            }
            if is_trained {
                notes += ", trained on";
            }
            if let Some(reward) = turn["reward"].as_f64().filter(|reward| *reward != 0.0) {
                notes = format!("{notes}, reward {}", short(reward));
            }
            lines.push(Line::raw(""));
            lines.push(Line::styled(format!("seat {seat}, {who}{notes}"), self.color(seat as usize)));
            let observation = turn["observation"].as_str().unwrap_or_default();
            lines.extend(observation.lines().map(|line| Line::styled(format!("  {line}"), dim)));
            let mut style = self.color(seat as usize);
            if is_trained {
                style = style.add_modifier(Modifier::BOLD);
            }
            let answer = turn["answer"].as_str().unwrap_or_default();
            lines.extend(answer.lines().map(|line| Line::styled(format!("> {line}"), style)));
        }
        Text::from(lines)
    }

    /// What is new since `step`, a line an iteration, for an output that is no terminal.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write_lines(&self, after: u64, out: &mut dyn io::Write) -> io::Result<u64> {
        let mut last = after;
        for record in self.curves().records().iter().filter(|record| record.step() > after) {
            let figure = |name: &str| record.number(name).map_or_else(|| "-".to_owned(), short);
            write!(out, "iteration {}", record.step())?;
            for game in self.curves().games() {
                let (reward, success) = (figure(&names::reward(&game)), figure(&names::success(&game)));
                write!(out, " | {game} reward {reward} success {success}")?;
            }
            let (entropy, gradient) = (figure(names::ENTROPY), figure(names::GRAD_NORM));
            let speed = figure(names::TOKENS_ROLLOUT_PER_S);
            writeln!(out, " | entropy {entropy} | grad_norm {gradient} | {speed} tokens/s")?;
            if let Some(MetricValue::Text(text)) = record.get(names::RELOAD_EVENTS) {
                writeln!(out, "  {text}")?;
            }
            last = record.step();
        }
        Ok(last)
    }
}

/// Three digits, which is what fits beside a chart.
fn short(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.0e}"),
    }
}

/// The range of some numbers, widened where it has no extent.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    if low < high { (low, high) } else { (low - 0.5, high + 0.5) }
}

fn centered(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect::new(area.x + (area.width - width) / 2, area.y + (area.height - height) / 2, width, height)
}

#[cfg(test)]
mod tests;
