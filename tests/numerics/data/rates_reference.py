"""Makes rates_reference.json: exact McNemar p-values and Wilson intervals as SciPy computes them.

    pip install scipy && python3 tests/numerics/data/rates_reference.py

The exact test is the two-sided binomial test of the episodes with different results at probability 1/2 (the same as
statsmodels' `mcnemar(table, exact=True)`).
"""

import json
from pathlib import Path

import scipy
from scipy.stats import binomtest

PAIRS = [(0, 1), (1, 0), (1, 5), (5, 1), (0, 6), (2, 9), (8, 8), (10, 25), (59, 6), (101, 121), (480, 520), (900, 1100), (0, 1000), (3000, 3300)]
COUNTS = [(0, 1), (1, 1), (0, 10), (7, 20), (10, 10), (26, 200), (199, 200), (500, 1000), (873, 1000), (14000, 14042)]

document = {
    "scipy": scipy.__version__,
    "mcnemar": [{"b": b, "c": c, "p": binomtest(min(b, c), b + c, 0.5).pvalue} for b, c in PAIRS],
    "wilson": [
        {"successes": k, "trials": n, "interval": list(binomtest(k, n).proportion_ci(0.95, "wilson"))} for k, n in COUNTS
    ],
}
text = json.dumps(document, indent=1) + "\n"
Path(__file__).with_suffix(".json").write_text(text, encoding="utf-8")
