//! What the program runs on and how it was called, for those who look at a run later.

use std::path::Path;

use crate::config::RunConfig;
use crate::metrics::Launch;

use super::logging::without_secrets;

/// This start of the program, on a run of which `step` iterations are done. `device` is where the
/// model is.
pub(crate) fn launch(step: u64, config: &RunConfig, device: &str) -> Launch {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Launch {
        step,
        command: command(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processor: entry("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores,
        threads: if config.threads == 0 { cores } else { config.threads },
        memory_bytes: memory_bytes().unwrap_or(0),
        device: match graphics_processor().filter(|_| device.starts_with("cuda")) {
            Some(name) => format!("{device}, {name}"),
            None => device.to_owned(),
        },
    }
}

/// The graphics processor as NVIDIA's driver names it, if the machine has exactly one.
fn graphics_processor() -> Option<String> {
    let mut cards = Path::new("/proc/driver/nvidia/gpus").read_dir().ok()?.filter_map(Result::ok);
    match (cards.next(), cards.next()) {
        (Some(card), None) => entry(&card.path().join("information").to_string_lossy(), "Model"),
        _ => None,
    }
}

/// The command line as it can be given again in a shell, its secrets hidden.
fn command() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| quoted(&argument.to_string_lossy()));
    let line = std::iter::once("gift-host".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ");
    without_secrets(&line).into_owned()
}

/// An argument as a shell reads it back.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// The first value under a name in a table of the kernel.
fn entry(file: &str, name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel, whose absence is no error")]
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Memory of the machine, if the kernel tells.
pub(crate) fn memory_bytes() -> Option<u64> {
    entry("/proc/meminfo", "MemTotal")?.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_read_them_otherwise() {
        for (argument, expected) in [
            ("games/a.lua", "games/a.lua"),
            ("games/*.lua", "'games/*.lua'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("a=b,c=d", "a=b,c=d"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(argument), expected);
        }
    }
}
