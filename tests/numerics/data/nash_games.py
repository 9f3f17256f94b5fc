"""Makes nash_games.json: bimatrix games with the equilibria that nashpy's support enumeration lists.

    python3 -m venv venv && venv/bin/pip install nashpy==0.0.43 && venv/bin/python nash_games.py

Every game is also solved with fractions by the same enumeration, because nashpy's doubles are not stable. It drops an
equilibrium when the solver returns a strategy outside the support as -1e-18 instead of 0 (its test is `prob >= 0`),
which happens on ordinary games of unequal sides too and can leave a game without any equilibrium; and where rows are
linearly dependent it may list one too many or too few. Where nashpy's list differs from the exact one the game is kept
with both lists, `nashpy` and `exact`: the Rust test counts those games,
expects the exact list for them and nashpy's list for all the others. Nothing is left out.
"""

import json
import random
import warnings
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import nashpy
import numpy

warnings.simplefilter("ignore", RuntimeWarning)  # "an even number of equilibria": expected on degenerate games

DUOPOLY = [
    [0, 0, 0, 0, 0, 0],
    [9, 7, 5, 3, 1, -1],
    [14, 10, 6, 2, -2, -2],
    [15, 9, 3, -3, -3, -3],
    [12, 4, -4, -4, -4, -4],
    [5, -5, -5, -5, -5, -5],
]
# The nine matrix games of GIFT (arXiv:2601.05633): the row player's payoffs, then the column player's.
PAPER = {
    "prisoner's dilemma": ([[3, 0], [5, 1]], [[3, 5], [0, 1]]),
    "battle of the sexes": ([[2, 0], [0, 1]], [[1, 0], [0, 2]]),
    "chicken": ([[-10, 1], [-1, 0]], [[-10, -1], [1, 0]]),
    "stag hunt": ([[3, 0], [1, 1]], [[3, 1], [0, 1]]),
    "radio station": ([[25, 50, 50], [30, 15, 30], [20, 20, 10]], [[25, 30, 20], [50, 15, 20], [50, 30, 10]]),
    "IESDS": ([[13, 1, 7], [4, 3, 6], [-1, 2, 8]], [[3, 4, 3], [1, 3, 2], [2, 3, -1]]),
    "duopoly": (DUOPOLY, [list(line) for line in zip(*DUOPOLY)]),
    "GAME": ([[1, -1, 5, 1], [2, 1, 3, 5], [1, 0, 1, 0]], [[1, 2, 0, 1], [3, 2, 0, 1], [1, 5, 7, 1]]),
    "weakly dominated": ([[5, 4], [6, 3], [6, 4]], [[1, 0], [0, 1], [4, 1]]),
}


def paper_games():
    """Each of the nine as printed, with the sign changed and with both offsets, as the paper's training draws them."""
    for name, (a, b) in PAPER.items():
        for sign in (1, -1):
            for offset in (0, 100, -100):
                change = lambda matrix: [[sign * value + offset for value in line] for line in matrix]
                yield f"{name} * {sign} + {offset}", change(a), change(b)


def random_games(rng):
    def game(kind, rows, columns, draw):
        matrix = lambda: [[draw() for _ in range(columns)] for _ in range(rows)]
        return kind, matrix(), matrix()

    size = lambda: rng.randint(1, 6)
    for rows in range(1, 7):
        for columns in range(1, 7):
            yield game("whole", rows, columns, lambda: rng.randint(-50, 50))
            yield game("decimal", rows, columns, lambda: round(rng.uniform(-10, 10), 3))
    for _ in range(200):
        yield game("whole", size(), size(), lambda: rng.randint(-1000, 1000))
    for _ in range(160):
        yield game("decimal", size(), size(), lambda: round(rng.uniform(-10, 10), rng.choice((1, 2, 3))))
    for _ in range(10):
        yield game("large", size(), size(), lambda: rng.randint(-9, 9) * 10**9 + rng.randint(0, 99))
    for _ in range(60):  # many ties
        yield game("tied", rng.randint(1, 4), rng.randint(1, 4), lambda: rng.randint(0, 2))
    for _ in range(20):  # a row and a column that occur twice
        kind, a, b = game("duplicate", rng.randint(2, 4), rng.randint(2, 4), lambda: rng.randint(0, 9))
        for matrix in (a, b):
            matrix[-1] = list(matrix[0])
            for line in matrix:
                line[-1] = line[0]
        yield kind, a, b
    for _ in range(30):  # a row that is the mean of two others, in tenths: singular, but perhaps not in doubles
        kind, a, b = game("mean", 3, 3, lambda: rng.randint(0, 9) / 10)
        a[2] = [round((x + y) / 2, 2) for x, y in zip(a[0], a[1])]
        yield kind, a, b
    for _ in range(20):  # zero-sum
        kind, a, _ = game("zero-sum", size(), size(), lambda: rng.randint(-9, 9))
        yield kind, a, [[-value for value in line] for line in a]


def solve(system):
    """The solution of a square system of fractions, or None if it is singular."""
    size = len(system)
    for step in range(size):
        pivot = next((i for i in range(step, size) if system[i][step] != 0), None)
        if pivot is None:
            return None
        system[step], system[pivot] = system[pivot], system[step]
        top = system[step] = [value / system[step][step] for value in system[step]]
        for i in range(size):
            if i != step and system[i][step] != 0:
                factor = system[i][step]
                system[i] = [value - factor * above for value, above in zip(system[i], top)]
    return [line[-1] for line in system]


def mixture(payoffs, rows, columns, count):
    first = payoffs[rows[0]]
    system = [[payoffs[i][j] - first[j] for j in columns] + [Fraction(0)] for i in rows[1:]]
    system.append([Fraction(1)] * (len(columns) + 1))
    weights = solve(system)
    if weights is None or any(weight <= 0 for weight in weights):
        return None
    value = lambda line: sum(line[j] * weight for j, weight in zip(columns, weights))
    if any(value(line) > value(first) for line in payoffs):
        return None
    probabilities = [Fraction(0)] * count
    for j, weight in zip(columns, weights):
        probabilities[j] = weight
    return probabilities


def exact(a, b):
    """Support enumeration with fractions, each payoff read as the decimal that is written."""
    a = [[Fraction(str(value)) for value in line] for line in a]
    b = [list(line) for line in zip(*[[Fraction(str(value)) for value in line] for line in b])]
    found = []
    for size in range(1, min(len(a), len(b)) + 1):
        for rows in combinations(range(len(a)), size):
            for columns in combinations(range(len(b)), size):
                x = mixture(b, columns, rows, len(a))
                y = mixture(a, rows, columns, len(b)) if x else None
                if y:
                    found.append([[float(p) for p in x], [float(p) for p in y]])
    return found


def agree(ours, theirs):
    return len(ours) == len(theirs) and all(
        numpy.allclose(x, y, rtol=0, atol=1e-9) for one, other in zip(ours, theirs) for x, y in zip(one, other)
    )


def main():
    rng = random.Random(20260105)
    games, unstable, equilibria = [], 0, 0
    for kind, a, b in [*paper_games(), *random_games(rng)]:
        matrices = [numpy.array(matrix, dtype=float) for matrix in (a, b)]
        listed = [[list(map(float, x)), list(map(float, y))] for x, y in nashpy.Game(*matrices).support_enumeration()]
        precise = exact(a, b)
        game = {"kind": kind, "a": a, "b": b, "nashpy": listed}
        if not agree(listed, precise):
            game["exact"] = precise
            unstable += 1
        games.append(game)
        equilibria += len(listed)

    rounded = lambda value: round(value, 12) + 0.0 if isinstance(value, float) else value
    walk = lambda value: [walk(item) for item in value] if isinstance(value, list) else rounded(value)
    lines = [json.dumps({key: walk(value) for key, value in game.items()}, separators=(",", ":")) for game in games]
    made_with = f"nashpy {nashpy.__version__}, numpy {numpy.__version__}"
    text = '{"made_with":' + json.dumps(made_with) + ',"games":[\n' + ",\n".join(lines) + "\n]}\n"
    Path(__file__).with_name("nash_games.json").write_text(text)
    print(f"{len(games)} games, {equilibria} equilibria, {unstable} unstable in nashpy, {len(text)} bytes")


if __name__ == "__main__":
    main()
