//! Scripts that stay inside one operation where nothing can stop them, at the top level and where a nest is asked for its
//! order: every command ends with the reason.

use std::time::{Duration, Instant};

use super::support::{ECHO, Place, QUICK, show};

/// Far longer than a command may take, and far shorter than the scripts would.
const HANG: Duration = Duration::from_secs(100);

/// Luau: comparing two long strings has no safepoint, and neither has sorting without a function.
const HOLD: &str = "local function hold()
  local start = string.rep(\"x\", 10000000)
  local a, b, list = start .. \"a\", start .. \"b\", {}
  for index = 1, 20000 do list[index] = if index % 2 == 0 then a else b end
  table.sort(list)
end
";

/// Rhai: the parser compares each field of a map with all before it.
fn held_parser() -> String {
    let fields: Vec<String> = (0..95_000).map(|number| format!("a{number}:1")).collect();
    format!("let large = #{{{}}};\n#{{}}\n", fields.join(","))
}

fn place() -> Place {
    let place = Place::with_echo();
    place.write("lua_top.lua", &format!("{HOLD}hold()\n{ECHO}"));
    place.write("rhai_top.rhai", &held_parser());
    let nest = format!("{HOLD}return {{ stages = function() hold() return {{ \"echo\" }} end }}\n");
    place.write("lua_nest.lua", &nest);
    place.write("lua_reward.lua", &format!("{HOLD}return function(episode) hold() return 1 end\n"));
    place
}

/// The command fails in time, with the reason and the file.
fn fails(place: &Place, arguments: &[&str], file: &str) {
    let start = Instant::now();
    let output = place.run(&[arguments, &["--set", "scripts.call_ms=500"]].concat());
    let took = start.elapsed();
    let said = show(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error[script::stuck]") && said.contains(&format!("--> {file}")), "{said}");
    assert!(took < HANG, "{took:?}");
}

#[test]
fn check_ends_whatever_a_script_does() {
    let place = place();
    for file in ["lua_top.lua", "rhai_top.rhai", "lua_nest.lua", "lua_reward.lua"] {
        fails(&place, &["check", file, "games/echo.lua", "--episodes", "2"], file);
    }
}

#[test]
fn train_ends_whatever_a_script_does() {
    let place = place();
    let train = |more: &[&'static str]| {
        let mut arguments = vec!["train", "--out", "run", "--steps", "1"];
        arguments.extend(QUICK);
        arguments.extend(more);
        arguments
    };
    fails(&place, &train(&["--games", "lua_top.lua"]), "lua_top.lua");
    fails(&place, &train(&["--games", "rhai_top.rhai"]), "rhai_top.rhai");
    fails(&place, &train(&["--games", "games/echo.lua", "--nest", "lua_nest.lua"]), "lua_nest.lua");
    fails(&place, &train(&["--games", "games/echo.lua", "--reward", "lua_reward.lua"]), "lua_reward.lua");
}
