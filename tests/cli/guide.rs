//! The guides as they are written: every script, configuration and command in README.md and games/README.md is run.
//!
//! What a block is stands behind its three backquotes: `lua game`, `rhai game`, `lua nest`, `lua reward`, `lua fragment`,
//! `rhai fragment` (a few lines with `rng` and `options` at hand), `toml`, `sh`, or `text` for what is only shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gift_host::game::{EpisodeSummary, GameDef, Nest, RewardScript, ScriptHost, Seat, StageResult, Turn, check_game};
use gift_host::script::{Language, Source, Value};
use gift_host::seed::Seed;

use super::support::Place;

/// A block of a guide.
struct Block {
    /// The guide and the line where the block begins.
    place: String,
    kind: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for file in ["README.md", "games/README.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = gift_host::checkpoint::read_text(&path).expect("the guide");
        let mut open: Option<Block> = None;
        for (index, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(kind), None) => {
                    let place = format!("{file}:{}", index + 1);
                    open = Some(Block { place, kind: kind.to_owned(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{file}: a block is not closed");
    }
    blocks
}

fn of(kinds: &[&str]) -> Vec<Block> {
    let found: Vec<Block> = blocks().into_iter().filter(|block| kinds.contains(&block.kind.as_str())).collect();
    assert!(!found.is_empty(), "no block of {kinds:?}");
    found
}

/// A script in the folder of the shipped games, so that data sets and modules are found.
fn source(block: &Block, text: &str) -> Source {
    let language = if block.kind.starts_with("rhai") { Language::Rhai } else { Language::Lua };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("games").join(format!("guide.{}", language.extension()));
    Source::new(&path, language, text, BTreeMap::new())
}

#[test]
fn every_block_says_what_it_is() {
    let known =
        ["lua game", "rhai game", "lua nest", "lua reward", "lua fragment", "rhai fragment", "toml", "sh", "text"];
    for block in blocks() {
        assert!(known.contains(&block.kind.as_str()), "{}: `{}` is none of {known:?}", block.place, block.kind);
    }
}

#[test]
fn every_game_passes_the_check() {
    for block in of(&["lua game", "rhai game"]) {
        let game = GameDef::compile(&source(&block, &block.text), Value::Map(BTreeMap::new()), &ScriptHost::default());
        let game = Arc::new(game.unwrap_or_else(|problem| panic!("{}: {problem}", block.place)));
        let problems = check_game(&game, 30, Seed::new(1));
        assert!(problems.is_empty(), "{}: {}", block.place, problems[0]);
    }
}

#[test]
fn every_nest_gives_an_order_and_a_reward() {
    let games = ["math", "matrix", "tictactoe", "spy"].map(str::to_owned);
    for block in of(&["lua nest"]) {
        let fine = || -> Result<(), Box<gift_host::diag::Diagnostic>> {
            let nest = Nest::compile(&source(&block, &block.text), &games, &ScriptHost::default())?;
            let stages = nest.stages(&games, &BTreeMap::new(), &mut Seed::new(0).stream())?;
            let result = |game: &String| StageResult { game: game.clone(), reward: 0.5, success: true };
            nest.reward(&stages.iter().map(result).collect::<Vec<_>>())?;
            assert!(nest.misspelt_fields()?.is_empty());
            Ok(())
        };
        fine().unwrap_or_else(|problem| panic!("{}: {problem}", block.place));
    }
}

#[test]
fn every_reward_gives_a_number() {
    let turn = Turn { seat: Seat(1), action: "5".into(), legal: true, well_formed: true, refusal: None };
    let episode = EpisodeSummary {
        game: "tictactoe",
        seat: 1,
        scores: &[1.0, 0.0],
        success: &[true, false],
        turns: &[turn],
        texts: &[("the board".to_owned(), "<think></think><answer>5</answer>".to_owned())],
        prompt_tokens: 9,
        response_tokens: 3,
        penalty: -0.1,
        truncated: false,
    };
    for block in of(&["lua reward"]) {
        let reward = RewardScript::compile(source(&block, &block.text), &ScriptHost::default())
            .and_then(|script| script.reward(&episode))
            .unwrap_or_else(|problem| panic!("{}: {problem}", block.place));
        assert!((reward - 0.9).abs() < 1e-9, "{}: {reward}", block.place);
    }
}

#[test]
fn every_fragment_runs() {
    for block in of(&["lua fragment", "rhai fragment"]) {
        let text = if block.kind.starts_with("lua") {
            format!(
                "local game = {{ name = \"guide\", seats = 1, max_turns = 1 }}\nfunction game.init(rng, options)\n{}\nreturn \
                 {{}} end\nfunction game.to_act() end\nfunction game.observe() end\nfunction game.apply() end\nfunction \
                 game.outcome() end\nreturn game",
                block.text
            )
        } else {
            format!(
                "fn init(rng, options) {{\n{}\n#{{}} }}\nfn to_act() {{}}\nfn observe() {{}}\nfn apply() {{}}\nfn outcome() \
                 {{}}\n#{{ name: \"guide\", seats: 1, max_turns: 1 }}",
                block.text
            )
        };
        GameDef::compile(&source(&block, &text), Value::Map(BTreeMap::new()), &ScriptHost::default())
            .and_then(|game| game.init(Seed::new(3)))
            .unwrap_or_else(|problem| panic!("{}: {problem}", block.place));
    }
}

#[test]
fn every_configuration_is_read() {
    for block in of(&["toml"]) {
        let read = gift_host::config::from_toml(Some((Path::new("guide.toml"), &block.text)), &[]);
        read.unwrap_or_else(|problem| panic!("{}: {problem}", block.place));
    }
}

/// Commands are not run, which would take long; their subcommands, flags and files are looked up.
#[test]
fn every_command_names_what_is_there() {
    let place = Place::new();
    let help = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mut seen = 0;
    for block in of(&["sh"]) {
        for line in block.text.lines() {
            let command = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
            let [program, subcommand, rest @ ..] = words.as_slice() else { continue };
            if *program != "gift-host" {
                continue;
            }
            seen += 1;
            let text = match rest {
                // What these do is said by the next word.
                [part, ..] if ["bench", "model"].contains(subcommand) => help(&[subcommand, part, "--help"]),
                _ => help(&[subcommand, "--help"]),
            };
            for word in rest {
                let flag = word.split('=').next().unwrap_or_default();
                assert!(
                    !word.starts_with("--") || text.contains(flag),
                    "{}: `{subcommand}` has no `{word}`",
                    block.place
                );
                let is_ours = ["scripts/", "configs/", "games/"].iter().any(|folder| word.starts_with(folder));
                // `NAME`, and the games that the guides tell how to write.
                let is_example = word.contains(['*', '=']) || ["NAME", "guess"].iter().any(|name| word.contains(name));
                let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
                assert!(!is_ours || is_example || file.exists(), "{}: there is no `{word}`", block.place);
            }
        }
    }
    assert!(seen > 10, "the commands are found");
}

/// The guide names every function, field, code of a message and module there is to know.
#[test]
fn the_guide_is_complete() {
    let guide = include_str!("../../games/README.md");
    for field in gift_host::game::GAME_FIELDS {
        assert!(guide.contains(&format!("`{field}`")) || guide.contains(&format!("`{field}(")), "`{field}`");
    }
    for field in gift_host::game::NEST_FIELDS {
        assert!(guide.contains(&format!("{field} = ")), "`{field}`");
    }
    let library = include_str!("../../scripts/types/gift.lua");
    for name in library.lines().filter_map(|line| line.strip_prefix("function ")?.split_once('(').map(|(name, _)| name))
    {
        let shown = if name == "require" { "require(" } else { name };
        assert!(guide.contains(&shown.replace("Rng:", "rng:")), "`{name}`");
    }
    // Every code that a script can bring about.
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = gift_host::checkpoint::read_text(&path).unwrap_or_default();
            for part in text.split('"').filter(|part| part.len() < 40 && !part.contains(char::is_whitespace)) {
                let Some((room, _)) = part.split_once("::") else { continue };
                let is_told = ["game", "nest", "reward", "script"].contains(&room);
                // Nothing that an author could mend.
                let is_hosts = ["script::engine", "nest::no_script", "script::unreadable"].contains(&part);
                let is_code = part.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == ':');
                // The example in a test of how problems are drawn.
                if is_told && is_code && !is_hosts && part != "game::missing_reward" {
                    assert!(guide.contains(&format!("`{part}`")), "`{part}` of {}", path.display());
                }
            }
        }
    }
}
