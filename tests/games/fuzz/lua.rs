//! Random Luau: a whole game with hostile bodies, or pieces to put into a real one.

use gift_host::seed::Stream;

use super::words::{fill, once_in, pick};

/// Names, numbers and strings that replace tokens of a real game, the library's and what must not be there.
pub(super) const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "64",
    "1e308",
    "-1e308",
    "9007199254740993",
    "2147483648",
    "1e7",
    "0/0",
    "1/0",
    "nil",
    "true",
    "false",
    "{}",
    "''",
    "'\\255'",
    "'%s'",
    "'('",
    "state",
    "game",
    "rng",
    "seat",
    "action",
    "self",
    "_G",
    "gift",
    "math",
    "string",
    "table",
    "bit32",
    "utf8",
    "coroutine",
    "pcall",
    "error",
    "while",
    "for",
    "do",
    "end",
    "then",
    "if",
    "repeat",
    "until",
    "function",
    "return",
    "break",
    "continue",
    "local",
    "and",
    "or",
    "not",
    "==",
    "..",
    "+=",
    "#",
    "...",
    "os",
    "io",
    "debug",
    "require",
    "loadstring",
    "load",
    "dofile",
    "getfenv",
    "setfenv",
    "collectgarbage",
    "print",
    "setmetatable",
    "getmetatable",
    "rawset",
    "rawget",
    "next",
    "pairs",
    "ipairs",
    "select",
    "unpack",
    "tostring",
    "tonumber",
    "type",
    "typeof",
    "newproxy",
    "buffer",
    "vector",
    "table.freeze(state)",
    "coroutine.wrap",
    "gift.nash",
    "gift.illegal",
    "gift.math_equal",
    "string.rep",
    "string.format",
    "gift.json.decode",
    "gift.dataset",
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
    "1e3",
    "65536",
    "1e6",
    "1e9",
    "2^31",
    "2^53",
    "-2^63",
    "1e308",
    "0/0",
    "1/0",
    "-1/0",
    "math.huge",
    "math.pi",
];

const STRINGS: &[&str] = &[
    "''",
    "'a'",
    "'%d%s%q%*'",
    "'.-.-.-b'",
    "'%b()'",
    "'%f[a]'",
    "'(a*)*b'",
    "'[^a]'",
    "'%1'",
    "'\\0'",
    "'\\255\\254'",
    "string.rep('a', 1000)",
    "string.rep('ab', 30000)",
    "'{a} {{b}}'",
    "'\\\\frac{1}{2}'",
    "'[1,[2,{\"a\":null}]]'",
    "'data/rows.jsonl'",
    "'../secret.jsonl'",
    "'/etc/passwd'",
    "'PATH'",
    "'\u{202e}é🎲'",
    "'>I8z'",
    "'%99999d'",
];

/// Calls of the library, of what is taken away and of the host's functions.
const CALLS: &[&str] = &[
    "string.byte($E, $N, $N)",
    "string.char($N, $N)",
    "string.find($E, $E, $N, $E)",
    "string.format($E, $E, $E)",
    "string.gmatch($E, $E)",
    "string.gsub($E, $E, $E)",
    "string.gsub($E, $E, $E, $N)",
    "string.len($E)",
    "string.lower($E)",
    "string.match($E, $E)",
    "string.rep($E, $N)",
    "string.rep($E, 100000000)",
    "string.reverse($E)",
    "string.sub($E, $N, $N)",
    "string.upper($E)",
    "string.split($E, $E)",
    "string.pack($E, $N)",
    "string.packsize($E)",
    "string.unpack($E, $E)",
    "table.concat($E, $E)",
    "table.concat($E, $E, $N, $N)",
    "table.foreach($E, $E)",
    "table.maxn($E)",
    "table.insert($E, $N, $E)",
    "table.insert($E, $E)",
    "table.remove($E, $N)",
    "table.sort($E)",
    "table.sort($E, $E)",
    "table.pack($E, $E)",
    "table.unpack($E)",
    "table.unpack($E, $N, $N)",
    "table.move($E, $N, $N, $N)",
    "table.move($E, $N, $N, $N, $E)",
    "table.create($N, $E)",
    "table.find($E, $E)",
    "table.clear($E)",
    "table.freeze($E)",
    "table.isfrozen($E)",
    "table.clone($E)",
    "math.random($N)",
    "math.floor($N)",
    "math.noise($N, $N)",
    "math.clamp($N, $N, $N)",
    "bit32.lshift($N, $N)",
    "bit32.extract($N, $N, $N)",
    "utf8.char($N)",
    "utf8.codepoint($E, $N, $N)",
    "utf8.len($E)",
    "utf8.offset($E, $N)",
    "utf8.codes($E)",
    "coroutine.create($F)",
    "coroutine.wrap($F)",
    "coroutine.wrap($F)()",
    "coroutine.resume($E)",
    "coroutine.resume(coroutine.create($F))",
    "coroutine.yield($E)",
    "coroutine.running()",
    "coroutine.close($E)",
    "coroutine.status($E)",
    "pcall($F)",
    "pcall($E, $E)",
    "xpcall($F, $F)",
    "error($E)",
    "error($E, $N)",
    "assert($E)",
    "select($N, $E)",
    "select('#', $E)",
    "next($E)",
    "pairs($E)",
    "ipairs($E)",
    "rawset($E, $E, $E)",
    "rawget($E, $E)",
    "rawlen($E)",
    "rawequal($E, $E)",
    "getmetatable($E)",
    "setmetatable($E, $E)",
    "setmetatable($T, $M)",
    "setmetatable({}, $M)",
    "tostring($E)",
    "tonumber($E, $N)",
    "type($E)",
    "typeof($E)",
    "unpack($E)",
    "require($E)",
    "require('cards')",
    "loadstring($E)",
    "getfenv($N)",
    "setfenv($N, $E)",
    "collectgarbage($E)",
    "newproxy(true)",
    "print($E)",
    "os.execute($E)",
    "os.getenv($E)",
    "io.open($E)",
    "debug.info($N, 's')",
    "debug.traceback()",
    "gift.illegal($E)",
    "gift.clone($E)",
    "gift.nash($E, $E)",
    "gift.nash({{1,2},{3,4}}, {{1,$N},{$N,0}})",
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
    "gift.min($E, $N)",
    "gift.product($E)",
    "rng:int($N, $N)",
    "rng:float()",
    "rng:pick($E)",
    "rng:shuffle($E)",
    "kept:int(1, 6)",
    "memo[$E]",
    "(memo)[$E]",
    "helper($E)",
    "helper(helper)",
];

const METAMETHODS: &[&str] = &[
    "__index",
    "__newindex",
    "__call",
    "__eq",
    "__lt",
    "__le",
    "__len",
    "__concat",
    "__tostring",
    "__iter",
    "__mode",
    "__metatable",
    "__unm",
    "__add",
    "__idiv",
    "__gc",
    "__close",
    "__pairs",
    "__type",
    "__namecall",
];

/// Forms of statements; `$B` is a block.
const STATEMENTS: &[&str] = &[
    "local $V = $E",
    "$V = $E",
    "local $V = $C",
    "$V = $C",
    "$C",
    "$V[$E] = $E",
    "$V.$V = $E",
    "state.$V = $E",
    "memo[$E] = $E",
    "count = (count or 0) + 1",
    "count += 1",
    "kept = kept or rng",
    "global_$V = $E",
    "_G.$V = $E",
    "gift.$V = $E",
    "string.$V = $E",
    "for i = 1, $N do $B end",
    "for i = $N, $N, $N do $B end",
    "for k, v in $E do $B end",
    "for k, v in pairs($E) do $B end",
    "while $E do $B break end",
    "while true do $B end",
    "while true do pcall($F) end",
    "repeat $B until $E",
    "if $E then $B else $B end",
    "do $B end",
    "local function $V(...) $B return $E end",
    "local function f() return pcall(f) end f()",
    "local function f(x) return f({x}) end f(1)",
    "pcall($F)",
    "local ok, e = pcall($F) $V = e",
    "local co = coroutine.create($F) coroutine.resume(co, $E)",
    "for _ in coroutine.wrap(function() while true do coroutine.yield($E) end end) do $B end",
    "xpcall($F, function(e) $B return e end)",
    "do local t = {} for i = 1, $N do t[i] = i if i > 3000 then break end end $V = t end",
    "do local s = 'x' for i = 1, 40 do s = s .. s end end",
    "do local t = {} for i = 1, 60 do t = {t, t, t} end $V = t end",
    "table.insert(memo, $E)",
    "setmetatable($V, $M)",
    "helper($E)",
    "return $E",
    "error($E)",
    "state.self = state",
];

/// A random expression.
fn expression(stream: &mut Stream, depth: usize) -> String {
    let leaf = depth == 0;
    match stream.index(if leaf { 5 } else { 13 }) {
        0 => pick(stream, NUMBERS).to_owned(),
        1 => pick(stream, STRINGS).to_owned(),
        2 | 3 => variable(stream),
        4 => pick(
            stream,
            &["nil", "true", "false", "{}", "{1, 2, 3}", "state", "memo", "game", "rng", "_G", "string", "kept"],
        )
        .to_owned(),
        5 => format!("{{ {}, {} }}", expression(stream, depth - 1), expression(stream, depth - 1)),
        6 => format!("{{ {} = {} }}", variable(stream), expression(stream, depth - 1)),
        7 => format!(
            "({} {} {})",
            expression(stream, depth - 1),
            pick(stream, &["+", "-", "*", "/", "//", "%", "^", "..", "==", "<", "and", "or"]),
            expression(stream, depth - 1)
        ),
        8 => format!("{}{}", pick(stream, &["#", "-", "not "]), expression(stream, depth - 1)),
        9 => format!("({})[{}]", expression(stream, depth - 1), expression(stream, depth - 1)),
        10 => function(stream, depth - 1),
        _ => {
            let call = pick_call(stream);
            form(stream, call, depth - 1)
        }
    }
}

fn pick_call(stream: &mut Stream) -> &'static str {
    CALLS[stream.index(CALLS.len())]
}

fn variable(stream: &mut Stream) -> String {
    pick(stream, &["a", "b", "c", "state", "x", "memo", "count"]).to_owned()
}

fn function(stream: &mut Stream, depth: usize) -> String {
    format!("function(x, y, ...) {} return {} end", block(stream, depth), expression(stream, depth.min(1)))
}

fn form(stream: &mut Stream, text: &str, depth: usize) -> String {
    let depth = depth.min(2);
    fill(text, |part| match part {
        'N' => pick(stream, NUMBERS).to_owned(),
        'V' => variable(stream),
        'C' => {
            let call = pick_call(stream);
            form(stream, call, depth.saturating_sub(1))
        }
        'F' => function(stream, depth.saturating_sub(1)),
        'B' => block(stream, depth.saturating_sub(1)),
        'T' => "{ a = 1, 2 }".to_owned(),
        'M' => {
            let (name, other) = (pick(stream, METAMETHODS), pick(stream, METAMETHODS));
            format!(
                "{{ {name} = {}, {other} = {} }}",
                function(stream, depth.saturating_sub(1)),
                expression(stream, depth.saturating_sub(1))
            )
        }
        _ => expression(stream, depth.saturating_sub(1)),
    })
}

fn block(stream: &mut Stream, depth: usize) -> String {
    if depth == 0 {
        return if once_in(stream, 2) { String::new() } else { "x = a".to_owned() };
    }
    // In a block of its own, so that a `return` may stand anywhere.
    (0..=stream.index(2)).map(|_| format!("do {} end", statement(stream, depth))).collect::<Vec<_>>().join("\n")
}

/// A random statement.
pub(super) fn statement(stream: &mut Stream, depth: usize) -> String {
    let text = STATEMENTS[stream.index(STATEMENTS.len())];
    let text = form(stream, text, depth);
    // A call is a statement; anything else that is not one is assigned.
    if text.starts_with('(') || text.starts_with("memo[") && !text.contains('=') { format!("a = {text}") } else { text }
}

/// A statement whose error is mostly caught, so that the game goes on.
fn caught(stream: &mut Stream) -> String {
    let text = statement(stream, 3);
    if once_in(stream, 4) { format!("  do {text} end\n") } else { format!("  pcall(function() {text} end)\n") }
}

/// A whole game whose functions do what they should, after some random statements.
pub(super) fn game(stream: &mut Stream) -> String {
    let hostile = |stream: &mut Stream| {
        if once_in(stream, 3) { String::new() } else { (0..=stream.index(3)).map(|_| caught(stream)).collect() }
    };
    let [top, init, to_act, observe, actions, apply, outcome, bot] = std::array::from_fn(|_| hostile(stream));
    let (late, seats) = (hostile(stream), 1 + stream.index(2));
    format!(
        "local memo, count, kept, a, b, c, x = {{}}, 0, nil, {{}}, 'b', 3, nil\n\
         local function helper(x, ...) if type(x) == 'function' and count < 50 then count += 1 return x(x) end return x end\n\
         {top}local game = {{ name = 'fuzz', seats = {seats}, max_turns = 3 }}\n\
         function game.init(rng, options)\nlocal state = {{ n = 0, list = {{ 1, 2, 3 }} }}\n{init}return state end\n\
         function game.to_act(state)\n{to_act}if state.n >= 3 then return nil end return 1 end\n\
         function game.observe(state, seat)\n{observe}return 'n is ' .. state.n end\n\
         function game.actions(state, seat)\n{actions}return {{ 'a', 'b' }} end\n\
         function game.apply(state, seat, action)\n{apply}state.n += 1 return state end\n\
         function game.outcome(state)\n{outcome}local s, w = {{}}, {{}} for i = 1, {seats} do s[i] = state.n w[i] = true end return {{ scores = s, success = w }} end\n\
         function game.bot(state, seat, rng)\n{bot}return rng:pick({{ 'a', 'b' }}) end\n\
         {late}return game\n"
    )
}
