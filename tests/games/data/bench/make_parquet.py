"""Makes the Parquet samples from the JSONL ones, with the columns and types of the published files.

    pip install pyarrow && python3 tests/games/data/bench/make_parquet.py
"""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

FOLDER = Path(__file__).parent
STRING, LONG, INT, TEXTS = pyarrow.string(), pyarrow.int64(), pyarrow.int32(), pyarrow.list_(pyarrow.string())
COLUMNS = {
    "mmlu": {"question": STRING, "subject": STRING, "choices": TEXTS, "answer": LONG},
    "mmlu_pro": {
        "question_id": LONG, "question": STRING, "options": TEXTS, "answer": STRING, "answer_index": LONG,
        "cot_content": STRING, "category": STRING, "src": STRING,
    },
    "social_iqa": {
        "context": STRING, "question": STRING, "answerA": STRING, "answerB": STRING, "answerC": STRING, "label": STRING,
    },
    "commongen": {"concept_set_idx": INT, "concepts": TEXTS, "target": STRING},
}

for name, columns in COLUMNS.items():
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(set(row) == set(columns) for row in rows), name
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(list(columns.items())))
    pyarrow.parquet.write_table(table, FOLDER / f"{name}.parquet", compression="snappy")
