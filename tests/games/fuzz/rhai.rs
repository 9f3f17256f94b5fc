//! Random Rhai: a whole game with hostile bodies, or pieces to put into a real one.

use gift_host::seed::Stream;

use super::words::{fill, once_in, pick};

/// Names, numbers and strings that replace tokens of a real game.
pub(super) const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "64",
    "1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "1000000",
    "0.0/0.0",
    "()",
    "true",
    "false",
    "[]",
    "#{}",
    "\"\"",
    "'x'",
    "`${state}`",
    "state",
    "rng",
    "seat",
    "action",
    "this",
    "gift",
    "global",
    "let",
    "const",
    "fn",
    "private",
    "if",
    "else",
    "while",
    "loop",
    "do",
    "until",
    "for",
    "in",
    "continue",
    "break",
    "return",
    "throw",
    "try",
    "catch",
    "import",
    "export",
    "as",
    "switch",
    "is_shared",
    "eval",
    "sleep",
    "timestamp",
    "print",
    "debug",
    "Fn",
    "curry",
    "call",
    "type_of",
    "is_def_fn",
    "is_def_var",
    "0..10",
    "0..=999999999",
    "==",
    "+=",
    "**",
    "<<",
    "??",
    "?.",
    "|x| x",
    "||",
    ".",
    "gift.nash",
    "gift.illegal",
    "gift.dataset",
    "gift.json",
    "push",
    "pad",
    "map",
    "filter",
    "reduce",
    "sort",
    "blob",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "-1",
    "0.5",
    "7",
    "100",
    "1000",
    "65536",
    "1000000",
    "1000000000",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "(0.0/0.0)",
    "(1.0/0.0)",
    "0xff",
    "1_000",
    "0b11",
];

const STRINGS: &[&str] = &[
    "\"\"",
    "\"a\"",
    "'x'",
    "\"abcabc\"",
    "`n is ${1 + 1}`",
    "\"../secret.jsonl\"",
    "\"/etc/passwd\"",
    "\"data/rows.jsonl\"",
    "\"\\u202eé🎲\"",
    "\"[1,[2,{\\\"a\\\":null}]]\"",
    "\"{a} {{b}}\"",
    "\"\\\\frac{1}{2}\"",
    "\"while true {}\"",
    "\"helper\"",
    "\"eval\"",
    "\"sleep\"",
    "\"long long text \"",
];

/// Calls of the library, of what is taken away and of the host's functions.
const CALLS: &[&str] = &[
    "$E.len()",
    "$E.push($E)",
    "$E.pop()",
    "$E.shift()",
    "$E.insert($N, $E)",
    "$E.remove($N)",
    "$E.append($E)",
    "$E.pad($N, $E)",
    "$E.truncate($N)",
    "$E.chop($N)",
    "$E.reverse()",
    "$E.clear()",
    "$E.split($N)",
    "$E.split($E)",
    "$E.split()",
    "$E.extract($N, $N)",
    "$E.extract($N..$N)",
    "$E.splice($N, $N, $E)",
    "$E.drain($F)",
    "$E.drain($N, $N)",
    "$E.retain($F)",
    "$E.dedup()",
    "$E.dedup($F)",
    "$E.sort()",
    "$E.sort($F)",
    "$E.order()",
    "$E.sort_desc()",
    "$E.map($F)",
    "$E.filter($F)",
    "$E.reduce($F, $E)",
    "$E.reduce_rev($F)",
    "$E.for_each($F)",
    "$E.some($F)",
    "$E.all($F)",
    "$E.find($F)",
    "$E.find_map($F)",
    "$E.index_of($E)",
    "$E.contains($E)",
    "$E.get($E)",
    "$E.set($E, $E)",
    "$E.keys()",
    "$E.values()",
    "$E.mixin($E)",
    "$E.fill_with($E)",
    "$E.to_json()",
    "parse_json($E)",
    "$E.zip($E, $F)",
    "$E.sub_string($N, $N)",
    "$E.crop($N, $N)",
    "$E.replace($E, $E)",
    "$E.to_upper()",
    "$E.trim()",
    "$E.starts_with($E)",
    "$E.bytes()",
    "$E.chars()",
    "$E.chars($N, $N)",
    "$E.to_blob()",
    "$E.to_array()",
    "$E.to_string()",
    "$E.to_debug()",
    "$E.to_int()",
    "parse_int($E)",
    "parse_int($E, $N)",
    "parse_float($E)",
    "$E.bits()",
    "$E.get_bit($N)",
    "$E.set_bits($N..$N, $N)",
    "blob($N)",
    "blob($N, $N)",
    "$E.as_string()",
    "$E.write_utf8($N, $N, $E)",
    "$E.parse_le_int($N, $N)",
    "range($N, $N)",
    "range($N, $N, $N)",
    "$E.start()",
    "$E.is_empty()",
    "$E.abs()",
    "$E.sqrt()",
    "$E.floor()",
    "$E.to_float()",
    "$E ** $N",
    "$E % $N",
    "$N << $N",
    "$N / $N",
    "max($E, $E)",
    "type_of($E)",
    "is_shared($V)",
    "Fn($E)",
    "Fn(\"helper\").call($E)",
    "Fn(\"helper\").curry($E).curry($E)",
    "$F.call($E)",
    "$E.call($E)",
    "call($F, $E)",
    "is_def_fn($E, $N)",
    "is_def_var($E)",
    "helper($E)",
    "helper(helper)",
    "deep($N)",
    "eval($E)",
    "sleep($N)",
    "timestamp()",
    "print($E)",
    "debug($E)",
    "Fn(\"eval\").call($E)",
    "Fn(\"print\").call($E)",
    "gift.illegal(\"no\")",
    "gift.clone($E)",
    "gift.nash($E, $E)",
    "gift.nash([[1, 2], [3, 4]], [[1, $N], [$N, 0]])",
    "gift.math_equal($E, $E)",
    "gift.dataset($E)",
    "gift.grid($E, $N)",
    "gift.free($E)",
    "gift.line($E, $N, $N, $N)",
    "gift.template($E, $E)",
    "gift.json.encode($E)",
    "gift.json.decode($E)",
    "gift.log($E)",
    "gift.mean($E)",
    "gift.all($E)",
    "gift.min($E)",
    "gift.product($E)",
    "rng.int($N, $N)",
    "rng.float()",
    "rng.pick($E)",
    "rng.shuffle($E)",
    "global::memo",
    "global::$V",
    "$E[$E]",
    "$E.$V",
    "$E?.$V",
    "$E?[$E]",
    "if $E == $E { $E } else { $E }",
    "switch $E { 1 => $E, _ => $E }",
    "{ $S; $E }",
    "$E in $E",
    "$E ?? $E",
];

/// Forms of statements; `$B` is a block.
const STATEMENTS: &[&str] = &[
    "let $V = $E",
    "$V = $E",
    "let $V = $C",
    "$V = $C",
    "$C",
    "$V[$E] = $E",
    "$V.$V = $E",
    "state.$V = $E",
    "count += 1",
    "memo.push($E)",
    "memo += memo",
    "$V += $E",
    "$V -= $E",
    "for i in 0..$N { $B }",
    "for i in range($N, $N, $N) { $B }",
    "for (x, i) in ($E) { $B }",
    "for x in ($E) { $B }",
    "while $E == $E { $B break; }",
    "loop { $B }",
    "loop { try { loop { } } catch { } }",
    "do { $B } until $E != $E",
    "if $E == $E { $B } else { $B }",
    "try { $B } catch (e) { $V = e; }",
    "try { throw $E; } catch { }",
    "let f = |x| f.call(x); f.call($E)",
    "let f = $F; f.call($E)",
    "let f = || 0; for i in 0..2000 { let g = f; f = || g.call(); }",
    "let t = 0; for i in 0..700 { t = [t]; } $V = t",
    "let s = \"ab\"; for i in 0..40 { s += s; }",
    "let t = [0, 1]; for i in 0..40 { t += t; }",
    "let t = #{}; for i in 0..3000 { t[`k${i}`] = i; } $V = t",
    "let big = []; big.pad(50000, 1); $V = big",
    "let text = \"\"; text.pad(500000, \"x\"); $V = text",
    "gift = $E",
    "const NEW = $E",
    "import $E as m",
    "import \"cards\" as cards",
    "state.f = $F",
    "state = $E",
    "return $E",
    "throw $E",
    "this = $E",
    "this.x = $E",
];

/// A random expression.
fn expression(stream: &mut Stream, depth: usize) -> String {
    match stream.index(if depth == 0 { 5 } else { 13 }) {
        0 => pick(stream, NUMBERS).to_owned(),
        1 => pick(stream, STRINGS).to_owned(),
        2 | 3 => variable(stream),
        4 => pick(
            stream,
            &["()", "true", "false", "[]", "[1, 2, 3]", "#{}", "#{ a: 1 }", "state", "memo", "rng", "gift", "0..10"],
        )
        .to_owned(),
        5 => format!("[{}, {}]", expression(stream, depth - 1), expression(stream, depth - 1)),
        6 => format!("#{{ {}: {} }}", variable(stream), expression(stream, depth - 1)),
        7 => format!(
            "({} {} {})",
            expression(stream, depth - 1),
            pick(stream, &["+", "-", "*", "/", "%", "**", "==", "<", "&&", "||", "&", "<<"]),
            expression(stream, depth - 1)
        ),
        8 => format!("{}{}", pick(stream, &["-", "!", "+"]), expression(stream, depth - 1)),
        9 => format!("({})", expression(stream, depth - 1)),
        10 => function(stream, depth - 1),
        _ => {
            let call = CALLS[stream.index(CALLS.len())];
            format!("({})", form(stream, call, depth - 1))
        }
    }
}

fn variable(stream: &mut Stream) -> String {
    pick(stream, &["a", "b", "c", "state", "x", "memo", "count"]).to_owned()
}

fn function(stream: &mut Stream, depth: usize) -> String {
    let parameters = pick(stream, &["||", "|x|", "|x|", "|x, y|"]);
    format!("{parameters} {{ {} {} }}", block(stream, depth), expression(stream, depth.min(1)))
}

fn form(stream: &mut Stream, text: &str, depth: usize) -> String {
    let depth = depth.min(2);
    fill(text, |part| match part {
        'N' => pick(stream, NUMBERS).to_owned(),
        'V' => variable(stream),
        'C' => {
            let call = CALLS[stream.index(CALLS.len())];
            form(stream, call, depth.saturating_sub(1))
        }
        'S' => {
            if depth == 0 {
                "x = 1".to_owned()
            } else {
                statement(stream, depth - 1)
            }
        }
        'F' => function(stream, depth.saturating_sub(1)),
        'B' => block(stream, depth.saturating_sub(1)),
        _ => expression(stream, depth.saturating_sub(1)),
    })
}

fn block(stream: &mut Stream, depth: usize) -> String {
    if depth == 0 {
        return if once_in(stream, 2) { String::new() } else { "x = a;".to_owned() };
    }
    (0..=stream.index(2)).map(|_| format!("{};", statement(stream, depth))).collect::<Vec<_>>().join(" ")
}

/// A random statement.
pub(super) fn statement(stream: &mut Stream, depth: usize) -> String {
    let text = STATEMENTS[stream.index(STATEMENTS.len())];
    form(stream, text, depth)
}

/// A statement whose error is mostly caught, so that the game goes on.
fn caught(stream: &mut Stream) -> String {
    let text = statement(stream, 3);
    if once_in(stream, 4) { format!("  {text};\n") } else { format!("  try {{ {text}; }} catch {{ }}\n") }
}

/// A whole game whose functions do what they should, after some random statements; as functions or as closures that
/// share the script's variables.
pub(super) fn game(stream: &mut Stream) -> String {
    let hostile = |stream: &mut Stream| -> String {
        if once_in(stream, 3) { String::new() } else { (0..=stream.index(2)).map(|_| caught(stream)).collect() }
    };
    let [top, init, to_act, observe, actions, apply, outcome, bot] = std::array::from_fn(|_| hostile(stream));
    let seats = 1 + stream.index(2);
    let (scores, success) = if seats == 1 { ("[state.n]", "[true]") } else { ("[state.n, 1]", "[true, false]") };
    let variables = "let memo = []; let count = 0; let a = #{}; let b = \"b\"; let c = 3; let x = ();\n";
    let functions = [
        ("init", "rng, options", format!("let state = #{{ n: 0, list: [1, 2, 3] }};\n{init}  state")),
        ("to_act", "state", format!("{to_act}  if state.n < 3 {{ 1 }}")),
        ("observe", "state, seat", format!("{observe}  `n is ${{state.n}}`")),
        ("actions", "state, seat", format!("{actions}  [\"a\", \"b\"]")),
        ("apply", "state, seat, action", format!("{apply}  state.n += 1; state")),
        ("outcome", "state", format!("{outcome}  #{{ scores: {scores}, success: {success} }}")),
        ("bot", "state, seat, rng", format!("{bot}  rng.pick([\"a\", \"b\"])")),
    ];
    let as_functions = once_in(stream, 2);
    let mut text =
        format!("{variables}fn helper(x) {{ x }}\nfn deep(n) {{ if n > 0 {{ deep(n - 1) }} else {{ n }} }}\n{top}");
    if as_functions {
        for (name, parameters, body) in &functions {
            let variables = if once_in(stream, 2) { variables } else { "" };
            text.extend(["fn ", name, "(", parameters, ") {\n", variables, body, "\n}\n"]);
        }
    }
    text.extend(["#{ name: \"fuzz\", max_turns: 3, seats: ", &seats.to_string()]);
    if !as_functions {
        for (name, parameters, body) in &functions {
            text.extend([",\n  ", name, ": |", parameters, "| {\n", body, "\n  }"]);
        }
    }
    text + " }\n"
}
