//! `gift-host watch`: a run on the terminal, while it goes on.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::report::Screen;

use super::ExitStatus;
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
    let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::new(&args.run, has_colors);
    screen.poll();
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        screen.write_lines(0, out)?;
        return Ok(ExitStatus::Done);
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let result = show(&mut screen, &mut terminal);
    ratatui::restore();
    result?;
    Ok(ExitStatus::Done)
}

fn show(screen: &mut Screen, terminal: &mut ratatui::DefaultTerminal) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| screen.draw(frame))?;
        // A key or a new size is drawn at once; the run directory is looked at when neither comes.
        if !event::poll(REST)? {
            screen.poll();
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if is_interrupt || !screen.key(key.code) {
                return Ok(());
            }
        }
    }
}
