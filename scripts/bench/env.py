#!/usr/bin/env python3
"""Steps per second of tic-tac-toe here and elsewhere: TextArena's raw TicTacToe-v0, OpenSpiel bare and OpenSpiel with the
prompt of our game made in Python. All sides play the same random episodes, take turns at the machine several times, and
have to agree on every outcome; ratios are of medians.

    cargo build --release
    python3 scripts/bench/env.py [--out scripts/bench/results/env.json] [--rounds 9] [--seconds 1] [--venv DIR]

A step reads an answer, applies it, looks for the end, lists the legal answers and makes the next prompt. Ours also keeps
every limit on scripts. What TextArena's default wrapper adds (a history that grows from episode to episode) is left out.
Rates are given by wall-clock time and by processor time; when other programs use the machine, believe the latter.

The first call makes a virtual environment (about 200 MB) below `target/` and installs the two packages with pip. Set
GIFT_HOST to measure another binary.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv

from host import ROOT, call

PACKAGES = ["textarena==0.7.4", "open_spiel==2.0.2"]
LUA, RHAI = "games/tictactoe.lua", "tests/games/tictactoe.rhai"
# The rules without anything put together beforehand: what a first version of a game takes.
PLAIN = "scripts/bench/games/tictactoe_plain.lua"
EPISODES = 2000


def inside_venv(folder):
    """Goes on inside the virtual environment, which is made if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if pathlib.Path(sys.prefix).resolve() == folder.resolve():
        return
    if not (folder / "installed").exists():
        print(f"installing {', '.join(PACKAGES)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "installed").write_text("\n".join(PACKAGES))
    os.execv(python, [str(python), *sys.argv])


def recorded(game):
    """The cells (0 to 8) in the order in which they were taken, and the score of whoever moved first, by episode."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "episodes.jsonl"
        call(["bench", "env", "--games", game, "--record", str(file), "--episodes", str(EPISODES)])
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    episodes = []
    for line in lines:
        start = line["start"]
        first = start["turn"]
        # Random marks on the board were made before the first turn, one of each side: a bit of a number in one language, in the
        # other a mark in a list.
        if "cells" in start:
            marked = [bits.bit_length() - 1 for bits in start["cells"] if bits]
        else:
            marked = [start["board"].index(mark) for mark in ("X", "O") if mark in start["board"]]
        opening = marked if first == 1 else marked[::-1]
        cells = opening + [int(turn["action"]) - 1 for turn in line["turns"]]
        episodes.append((cells, line["scores"][first - 1]))
    return episodes


class Rounds:
    """Plays episodes, from where it stopped, for some seconds."""

    def __init__(self, episodes, play):
        self.episodes, self.play, self.at = episodes, play, 0

    def measure(self, seconds):
        steps, start, cpu = 0, time.perf_counter(), time.thread_time()
        while (spent := time.perf_counter() - start) < seconds:
            # The clock is read once in a while only.
            for _ in range(20):
                steps += self.play(self.episodes[self.at])
                self.at = (self.at + 1) % len(self.episodes)
        return {"steps_per_s": steps / spent, "steps_per_cpu_s": steps / (time.thread_time() - cpu)}


def textarena_side(episodes):
    import textarena

    env = textarena.make("TicTacToe-v0-raw")
    moves = [f"[{cell}]" for cell in range(9)]

    def play(episode):
        cells, _ = episode
        env.reset(num_players=2, seed=0)
        for cell in cells:
            env.get_observation()
            done, _ = env.step(moves[cell])
        assert done
        return len(cells)

    def check(episode):
        cells, score = episode
        play(episode)
        # The first mover is player 0; a win is 1, a draw 0, a loss -1.
        rewards, _ = env.close()
        assert (rewards[0] + 1) / 2 == score, (cells, score, rewards)

    return Rounds(episodes, play), check


RULES = (
    "You are playing tic-tac-toe against one opponent on a 3x3 board. The cells carry the numbers 1 to 9, from the top "
    "left to the bottom right. The players take turns; a turn puts one mark into a free cell. Your mark is {mark}, "
    "your opponent's is {other}."
)
QUESTION = (
    "Which free cell do you mark? Answer with its number, in the form <think>...</think><answer>...</answer>"
)


def openspiel_side(episodes, prompt):
    import pyspiel

    game = pyspiel.load_game("tic_tac_toe")
    digits = [str(cell) for cell in range(1, 10)]

    def observe(state, taken, last):
        board = [digits[cell] if mark == "." else mark for cell, mark in enumerate(str(state).replace("\n", ""))]
        parts = []
        if taken < 2:
            mark, other = ("x", "o") if state.current_player() == 0 else ("o", "x")
            parts.append(RULES.format(mark=mark, other=other))
        if last is None:
            parts.append("The board is empty and you move first:")
        else:
            parts.append(f"Your opponent's latest move was cell {last + 1}. The board is now:")
        rows = [" " + " | ".join(board[row:row + 3]) for row in (0, 3, 6)]
        parts.append("\n---+---+---\n".join(rows))
        parts.append(QUESTION)
        return "\n\n".join(parts)

    def play(episode):
        cells, _ = episode
        state, last = game.new_initial_state(), None
        for taken, cell in enumerate(cells):
            if prompt:
                observe(state, taken, last)
                [digits[action] for action in state.legal_actions()]
                answer = f"<think></think><answer>{cell + 1}</answer>"
                start = answer.rfind("<answer>") + len("<answer>")
                last = int(answer[start:answer.find("</answer>", start)]) - 1
            else:
                str(state)
                state.legal_actions()
                last = cell
            state.apply_action(last)
            done = state.is_terminal()
        assert done
        return len(cells)

    def check(episode):
        cells, score = episode
        state = game.new_initial_state()
        for cell in cells:
            state.apply_action(cell)
        assert state.is_terminal() and (state.returns()[0] + 1) / 2 == score, (cells, score)

    return Rounds(episodes, play), check


def ours(game, seconds, threads):
    out = call(["bench", "env", "--games", game, "--seconds", str(seconds), "--rounds", "1", "--threads", str(threads), "--json"])
    rate = json.loads(out)["games"][0]["rates"][0]
    return {key: rate[key] for key in ("steps_per_s", "steps_per_cpu_s")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "target" / "bench-venv")
    arguments = parser.parse_args()
    inside_venv(arguments.venv)

    episodes = recorded(LUA)
    assert episodes == recorded(RHAI), "Lua and Rhai play different episodes"
    textarena, check_textarena = textarena_side(episodes)
    spiel, check_spiel = openspiel_side(episodes, prompt=False)
    spiel_prompt, _ = openspiel_side(episodes, prompt=True)
    for episode in episodes:
        check_textarena(episode)
        check_spiel(episode)
    print(f"{len(episodes)} episodes end alike on all sides", file=sys.stderr)

    threads = os.cpu_count() or 1
    sides = {
        "textarena_raw": textarena.measure,
        "gift_host_lua": lambda seconds: ours(LUA, seconds, 1),
        "gift_host_lua_plain": lambda seconds: ours(PLAIN, seconds, 1),
        "gift_host_rhai": lambda seconds: ours(RHAI, seconds, 1),
        "openspiel_bare": spiel.measure,
        "openspiel_prompt": spiel_prompt.measure,
        f"gift_host_lua_{threads}_threads": lambda seconds: ours(LUA, seconds, threads),
    }
    found = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, measure in sides.items():
            found[name].append(measure(arguments.seconds))

    def median(name, key):
        return statistics.median(rate[key] for rate in found[name])

    base = {key: median("textarena_raw", key) for key in ("steps_per_s", "steps_per_cpu_s")}
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": threads},
        "python": platform.python_version(),
        "packages": PACKAGES,
        "load_average": os.getloadavg(),
        "episodes": len(episodes),
        "rounds": arguments.rounds,
        "sides": {},
    }
    print(f"{'':<26}{'steps/s':>10}{'x TextArena':>13}{'steps/cpu s':>14}{'x TextArena':>13}")
    for name in sides:
        wall, cpu = median(name, "steps_per_s"), median(name, "steps_per_cpu_s")
        ratios = wall / base["steps_per_s"], cpu / base["steps_per_cpu_s"]
        print(f"{name:<26}{wall:>10.0f}{ratios[0]:>13.2f}{cpu:>14.0f}{ratios[1]:>13.2f}")
        report["sides"][name] = {
            "steps_per_s": wall,
            "steps_per_cpu_s": cpu,
            "times_textarena": ratios[0],
            "times_textarena_cpu": ratios[1],
            "rounds": found[name],
        }
    scaling = median(f"gift_host_lua_{threads}_threads", "steps_per_s") / median("gift_host_lua", "steps_per_s")
    report["threads_over_one"] = scaling
    print(f"{threads} threads over one: {scaling:.2f}; load average {os.getloadavg()[0]:.1f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
