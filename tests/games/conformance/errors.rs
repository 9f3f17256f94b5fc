//! Errors name the author's file and line, in the script and in its modules.

use super::*;

#[test]
fn errors_have_the_authors_file_and_line() {
    let at =
        |diagnostic: &Diagnostic| diagnostic.place.as_ref().map(|place| (place.file.display().to_string(), place.line));
    for (language, text, line) in [
        (Language::Lua, "local game = {}\nfunction game.run(\nreturn game", 3),
        (Language::Rhai, "fn run(state) {\n  let = 3;\n}\n#{}", 2),
    ] {
        let diagnostic = compile(&modules(language, text, &[])).err().expect("a diagnostic");
        assert_eq!(diagnostic.code, "script::syntax", "{diagnostic}");
        assert_eq!(at(&diagnostic), Some((format!("games/case.{}", language.extension()), line)), "{diagnostic}");
    }
    for (language, text, line) in [
        (
            Language::Lua,
            "local game = {}\nlocal function f(s, ...)\n  return s.a.b\nend\nfunction game.run(s)\n  local x = f(s)\n  return x\nend\nreturn game",
            3,
        ),
        (Language::Rhai, "fn f(s) {\n  s.a.b.c\n}\nfn run(s) {\n  let x = f(s);\n  x\n}\n#{}", 2),
    ] {
        let script = compile(&modules(language, text, &[])).expect("a script");
        let diagnostic = fault(script.call("run", &mut [Argument::Data(&map(&[("b", 1_i64.into())]))]));
        assert_eq!(diagnostic.code, "script::runtime");
        assert_eq!(at(&diagnostic), Some((format!("games/case.{}", language.extension()), line)), "{diagnostic}");
        assert_eq!(diagnostic.stack.len(), 2, "{diagnostic}");
    }
    for (language, text, module) in [
        (
            Language::Lua,
            "local m = require('m')\nreturn { run = function(s) return m.f(s) end }",
            "return {\n  f = function(s)\n    error('bad')\n  end }",
        ),
        (Language::Rhai, "import \"m\" as m;\nfn run(s) { m::f(s) }\n#{}", "fn f(s) {\n\n  throw \"bad\";\n}"),
    ] {
        let script = compile(&modules(language, text, &[("m", module)])).expect("a script");
        let diagnostic = fault(script.call("run", &mut [Argument::Data(&Value::Nil)]));
        assert_eq!(at(&diagnostic), Some((format!("scripts/lib/m.{}", language.extension()), 3)), "{diagnostic}");
        assert_eq!(diagnostic.message, "bad");
    }
}

#[test]
fn an_error_at_the_top_level_is_told_with_its_line() {
    for (language, text) in
        [(Language::Lua, "local x = 1\nerror('stop')"), (Language::Rhai, "let x = 1;\nthrow \"stop\";")]
    {
        let diagnostic = compile(&modules(language, text, &[])).err().expect("a diagnostic");
        assert_eq!((diagnostic.code, diagnostic.message.as_str()), ("script::runtime", "stop"));
        assert_eq!(diagnostic.place.map(|place| place.line), Some(2));
    }
}
