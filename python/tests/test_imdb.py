"""The Keras book's chapter on IMDB with only its imports changed, on a made-up file, and the reading of such files."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recurve
from recurve.datasets import imdb

FIXTURES = Path(__file__).parent / "fixtures"

CHAPTER = """
from keras.datasets import imdb
from keras.preprocessing import sequence
from keras.models import Sequential
from keras.layers import Dense, Embedding, LSTM, SimpleRNN

max_features = 10000
maxlen = 500
batch_size = 32

print('Loading data...')
(input_train, y_train), (input_test, y_test) = imdb.load_data(num_words=max_features)
print(len(input_train), 'train sequences')
print(len(input_test), 'test sequences')

print('Pad sequences (samples x time)')
input_train = sequence.pad_sequences(input_train, maxlen=maxlen)
input_test = sequence.pad_sequences(input_test, maxlen=maxlen)
print('input_train shape:', input_train.shape)
print('input_test shape:', input_test.shape)

model = Sequential()
model.add(Embedding(max_features, 32))
model.add(SimpleRNN(32))
model.add(Dense(1, activation='sigmoid'))

model.compile(optimizer='rmsprop', loss='binary_crossentropy', metrics=['acc'])
history = model.fit(input_train, y_train, epochs=10, batch_size=128, validation_split=0.2)

acc = history.history['acc']
val_acc = history.history['val_acc']
loss = history.history['loss']
val_loss = history.history['val_loss']
epochs = range(len(acc))

rnn = model
model = Sequential()
model.add(Embedding(max_features, 32))
model.add(LSTM(32))
model.add(Dense(1, activation='sigmoid'))

model.compile(optimizer='rmsprop', loss='binary_crossentropy', metrics=['acc'])
lstm_history = model.fit(input_train, y_train, epochs=10, batch_size=128, validation_split=0.2)
scores = model.evaluate(input_test, y_test)
"""

#: The same with sizes for a file of 240 short sequences.
SMALL = [
    ("max_features = 10000", "max_features = 70"),
    ("maxlen = 500", "maxlen = 24"),
    ("epochs=10, batch_size=128", "epochs=12, batch_size=8"),
]


def test_the_chapter_runs_with_only_its_imports_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".keras" / "datasets"
    folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "imdb.npz", folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recurve.utils.set_random_seed(3)
    text, changed = re.subn(r"^from keras\.", "from recurve.", CHAPTER, flags=re.M)
    assert changed == 4 and "keras" not in text
    for long, short in SMALL:
        assert long in text
        text = text.replace(long, short)
    names: dict[str, Any] = {}
    exec(compile(text, "chapter", "exec"), names)
    out = capsys.readouterr().out
    assert "input_train shape: (240, 24)" in out and out.count("Epoch 12/12") == 2
    for history in (names["history"], names["lstm_history"]):
        assert history.epoch == list(range(12)) and history.params["steps"] == 24
        assert history["loss"][-1] < 0.75 * history["loss"][0]
        assert max(history["val_acc"]) > 0.85
    loss, accuracy = names["scores"]
    assert accuracy > 0.85 and loss < 0.5
    summary = names["rnn"].summary_text()
    assert "simple_rnn" in summary


@pytest.mark.parametrize("case", json.loads((FIXTURES / "imdb.json").read_text()), ids=lambda c: str(c["options"]))
def test_the_data_are_those_that_keras_loads(case: dict[str, Any]) -> None:
    parts = imdb.load_data(FIXTURES / "imdb.npz", **case["options"])
    for (x, y), want in zip(parts, case["parts"]):
        assert x.dtype == object and [list(row) for row in x[:3]] == want["x"]
        assert y.tolist() == want["y"]
        assert [len(row) for row in x] == want["lengths"] and [sum(row) for row in x] == want["sums"]


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"imdb\.npz.*downloads nothing"):
        imdb.load_data()
    with pytest.raises(FileNotFoundError):
        imdb.get_word_index()
    folder = tmp_path / ".recurve" / "datasets"
    folder.mkdir(parents=True)
    (folder / "imdb_word_index.json").write_text('{"the": 1}')
    assert imdb.get_word_index() == {"the": 1}
    with pytest.raises(ValueError, match="no review is shorter"):
        imdb.load_data(FIXTURES / "imdb.npz", maxlen=2)


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    rows = np.empty(1, dtype=object)
    rows[0] = Opens(made)
    path = tmp_path / "bad.npz"
    np.savez(path, x_train=rows, y_train=np.zeros(1), x_test=rows, y_test=np.zeros(1))
    with pytest.raises(ValueError, match=r"open.*is not read"):
        imdb.load_data(path)
    assert not made.exists()
    # The test would notice: numpy's own reader runs it.
    np.load(path, allow_pickle=True)["x_train"][0].close()
    assert made.exists()

    def damaged(data: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
            for name in ("x_train", "x_test"):
                archive.writestr(f"{name}.npy", data)
            for name in ("y_train", "y_test"):
                with io.BytesIO() as f:
                    np.save(f, np.zeros(1))
                    archive.writestr(f"{name}.npy", f.getvalue())
        return tmp_path / "odd.npz"

    with io.BytesIO() as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        header = f.getvalue()
    with pytest.raises(ValueError, match="no array of lists"):
        imdb.load_data(damaged(header + pickle.dumps([[1, 2]])))
    texts = np.empty(1, dtype=object)
    texts[0] = ["word"]
    with pytest.raises(ValueError, match="no array of lists"):
        imdb.load_data(damaged(header + pickle.dumps(texts)))
    for data in (b"nothing", header, header + b"\x80\x04."):
        with pytest.raises(ValueError):
            imdb.load_data(damaged(data))
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="text.npz"):
        imdb.load_data(tmp_path / "text.npz")
