"""A made-up file in the form of Keras's `imdb.npz`, and what Keras's `load_data` makes of it.

    KERAS_BACKEND=torch python3 tests/golden/make_python_imdb.py

Writes `python/tests/fixtures/imdb.npz` and `imdb.json`. There is no word of a review in it: the numbers are drawn, and a
sequence is positive if it has more words of one group than of another.
"""

import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "python" / "tests" / "fixtures"
PATH = FOLDER / "imdb.npz"


def rows(r, count):
    x = np.empty(count, dtype=object)
    y = np.zeros(count, dtype="int64")
    for n in range(count):
        y[n] = r.integers(0, 2)
        words = np.minimum(r.geometric(0.08, r.integers(4, 24)), 60)
        marks = np.where(r.random(r.integers(2, 5)) < 0.9, 61 + y[n], 62 - y[n])
        words = np.concatenate([words, marks])
        r.shuffle(words)
        x[n] = words.tolist()
    return x, y


r = np.random.default_rng(5)
(x_train, y_train), (x_test, y_test) = rows(r, 240), rows(r, 60)
np.savez_compressed(PATH, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
keras.src.datasets.imdb.get_file = lambda **_: str(PATH)
OPTIONS = [
    {},
    {"num_words": 30},
    {"num_words": 40, "skip_top": 8, "oov_char": None},
    {"maxlen": 15, "seed": 7},
    {"start_char": None, "index_from": 0, "oov_char": 9, "num_words": 20},
]
out = []
for options in OPTIONS:
    parts = keras.datasets.imdb.load_data(**options)
    # The whole is told by its first sequences and by sums.
    out.append({"options": options, "parts": [
        {"x": [list(map(int, row)) for row in x[:3]], "y": [int(v) for v in y], "lengths": [len(row) for row in x],
         "sums": [int(sum(row)) for row in x]} for x, y in parts]})
(FOLDER / "imdb.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
print(PATH.stat().st_size, "bytes")
