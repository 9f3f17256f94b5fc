//! `gift-host watch`: a run on the terminal, while it goes on.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::report::Screen;

use super::ExitStatus;
use super::logging::without_controls;
use super::output::clock;
use super::report::check_run;

/// How long the run directory is left alone between two looks.
const REST: Duration = Duration::from_millis(500);

/// Flags of `gift-host watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// The run's directory
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
}

/// Shows the run until the user leaves. Where standard output is no terminal, prints a line for each iteration that is
/// stored and ends.
pub(crate) fn run(args: &WatchArgs, out: &mut dyn Write) -> anyhow::Result<ExitStatus> {
    check_run(&args.run, "cli::watch", "gift-host watch runs/NAME")?;
    if !has_terminal() {
        let mut screen = Screen::new(&args.run, false);
        screen.poll();
        let mut lines = Vec::new();
        screen.write_lines(0, &mut lines)?;
        // Names and messages come from scripts.
        out.write_all(without_controls(&String::from_utf8_lossy(&lines)).as_bytes())?;
        return Ok(ExitStatus::Done);
    }
    show_run(&args.run, &AtomicBool::new(false)).context("the terminal cannot be used")?;
    Ok(ExitStatus::Done)
}

/// Why a screen was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// By the key for it.
    Quit,
    /// By Ctrl-C.
    Interrupted,
    /// By its owner.
    Stopped,
}

/// Whether there is a terminal to show a screen on and to read keys from.
pub(crate) fn has_terminal() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Whether the terminal is a screen at the moment.
static IS_UP: AtomicBool = AtomicBool::new(false);

/// Makes the terminal what it was before the screen; does nothing if there is none.
pub(crate) fn give_back_terminal() {
    if IS_UP.swap(false, Ordering::Relaxed) {
        ratatui::restore();
    }
}

/// Shows a run until the user leaves or `stop` is set.
///
/// # Errors
/// Those of the terminal, which is given back in any case.
pub(crate) fn show_run(folder: &Path, stop: &AtomicBool) -> std::io::Result<Left> {
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(folder, has_colors);
    screen.poll();
    let mut terminal = ratatui::try_init()?;
    IS_UP.store(true, Ordering::Relaxed);
    let result = show(&mut screen, &mut terminal, stop);
    give_back_terminal();
    result
}

fn show(screen: &mut Screen, terminal: &mut ratatui::DefaultTerminal, stop: &AtomicBool) -> std::io::Result<Left> {
    let mut looked = clock();
    let mut is_new = true;
    loop {
        // Drawing costs milliseconds of the processor that trains, so it waits for something new.
        if std::mem::take(&mut is_new) {
            terminal.draw(|frame| screen.draw(frame))?;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Left::Stopped);
        }
        // A key or a new size is drawn at once; the run directory is looked at in between, however many keys come.
        if event::poll(REST)? {
            is_new = true;
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
                    return Ok(Left::Interrupted);
                }
                if !screen.key(key.code) {
                    return Ok(Left::Quit);
                }
            }
        }
        if clock().saturating_sub(looked) >= REST {
            is_new |= screen.poll();
            looked = clock();
        }
    }
}
