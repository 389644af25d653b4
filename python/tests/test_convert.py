"""`from_torch` and `from_keras`, beside the models that they take over."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import recurve
from recurve import nn

ROOT = pathlib.Path(__file__).resolve().parents[2]

# f32 beside f32, whose sums are in another order, over few timesteps.
TOLERANCE = 1e-5


def close(got, want):
    got, want = np.asarray(got), np.asarray(want)
    return got.shape == want.shape and float(np.max(np.abs(got - want))) <= TOLERANCE * max(1, np.max(np.abs(want)))


def test_neither_library_is_imported():
    code = (
        "import sys, recurve\n"
        "from recurve import nn\n"
        "for call in (recurve.from_torch, recurve.from_keras):\n"
        "    try: call(3)\n"
        "    except TypeError as e: print(e)\n"
        "assert not {'torch', 'keras', 'tensorflow', 'onnx'} & set(sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [
        "from_torch takes a torch.nn.Module, not a int",
        "from_keras takes a keras.Model, not a int",
    ]
    with pytest.raises(TypeError, match="load_state_dict"):
        recurve.from_torch({"weight": np.zeros(3)})


class TestTorch:
    @pytest.fixture(autouse=True)
    def seeded(self):
        self.torch = pytest.importorskip("torch")
        self.torch.manual_seed(4)

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("RNN", {"num_layers": 2, "nonlinearity": "relu", "bidirectional": True}),
            ("LSTM", {"num_layers": 2, "proj_size": 3, "bias": False, "dropout": 0.3}),
            ("GRU", {"batch_first": True, "bidirectional": True}),
        ],
    )
    def test_recurrent_modules(self, kind, options):
        torch = self.torch
        theirs = getattr(torch.nn, kind)(5, 8, **options)
        ours = recurve.from_torch(theirs, device="cpu")
        assert type(ours) is getattr(nn, kind) and repr(ours) == repr(theirs)
        assert theirs.training and not ours.training
        x = torch.randn(4, 4, 5)
        with torch.no_grad():
            wanted, state = theirs.eval()(x)
        y, own = ours(x)
        pairs = zip(own, state) if kind == "LSTM" else [(own, state)]
        assert close(y, wanted) and all(close(a, b) for a, b in pairs)

    def test_cells_and_tables(self):
        torch = self.torch
        x = torch.randn(3, 5)
        with torch.no_grad():
            for kind, options in [("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {"bias": False}), ("GRUCell", {})]:
                theirs = getattr(torch.nn, kind)(5, 8, **options)
                ours = recurve.from_torch(theirs, device="cpu")
                assert repr(ours) == repr(theirs)
                wanted, own = theirs(x), ours(x)
                pairs = zip(own, wanted) if kind == "LSTMCell" else [(own, wanted)]
                assert all(close(a, b) for a, b in pairs)
            for theirs, given in [
                (torch.nn.Linear(5, 2, bias=False), x),
                (torch.nn.Linear(5, 2), x),
                (torch.nn.Embedding(9, 4, padding_idx=2), torch.tensor([[1, 2], [8, 0]])),
            ]:
                ours = recurve.from_torch(theirs, device="cpu")
                assert repr(ours) == repr(theirs)
                assert close(ours(given), theirs(given))

    def test_weights_that_are_computed(self):
        """Parametrizations have other names in the state dict; what they compute is taken."""
        torch = self.torch
        theirs = torch.nn.GRU(5, 8)
        torch.nn.utils.parametrizations.weight_norm(theirs, "weight_hh_l0")
        ours = recurve.from_torch(theirs, device="cpu")
        x = torch.randn(4, 2, 5)
        with torch.no_grad():
            assert close(ours(x)[0], theirs(x)[0])

    def test_a_tagger_with_any_batch_and_time(self):
        torch = self.torch

        class Tagger(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.table = torch.nn.Embedding(20, 6)
                self.rnn = torch.nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True, dropout=0.4)
                self.norm = torch.nn.LayerNorm(16)
                self.head = torch.nn.Linear(16, 3)

            def forward(self, words):
                y, (h, _) = self.rnn(self.table(words))
                return self.head(torch.relu(self.norm(y))), h

        theirs = Tagger()
        ours = recurve.from_torch(theirs, torch.randint(20, (2, 5)), device="cpu", output_names=["tags", "h"])
        assert theirs.training and theirs.rnn.training
        assert [v.name for v in ours.inputs] == ["words"] and [v.name for v in ours.outputs] == ["tags", "h"]
        assert ours.inputs[0].shape == ("batch", "time")
        theirs.eval()
        for shape in [(2, 5), (1, 1), (7, 13)]:
            words = torch.randint(20, shape)
            with torch.no_grad():
                wanted = theirs(words)
            got = ours.run({"words": words})
            assert close(got["tags"], wanted[0]) and close(got["h"], wanted[1])

    def test_sequential_and_several_inputs(self):
        torch = self.torch
        theirs = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2), torch.nn.Softmax(-1))
        ours = recurve.from_torch(theirs, torch.zeros(2, 4), device="cpu")
        x = torch.randn(9, 4)
        with torch.no_grad():
            assert close(ours(x), theirs(x))

        class Two(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = torch.nn.GRU(4, 5)

            def forward(self, x, state, scale):
                y, h = self.rnn(x, state)
                return y * scale, h

        theirs = Two()
        # Equal sizes of axes that need not be equal: the two layers of a state and two sequences would be one symbol.
        ours = recurve.from_torch(theirs, (torch.zeros(3, 1, 4), torch.zeros(1, 1, 5), torch.ones(1, 1, 5)), device="cpu")
        assert [v.name for v in ours.inputs] == ["x", "state", "scale"]
        given = (torch.randn(6, 2, 4), torch.randn(1, 2, 5), torch.randn(6, 2, 5))
        with torch.no_grad():
            wanted = theirs(*given)
        got = ours(*given)
        assert close(got[0], wanted[0]) and close(got[1], wanted[1])

    def test_a_loop_that_is_written_out_is_refused(self):
        torch = self.torch

        class Loop(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = torch.nn.GRUCell(3, 4)

            def forward(self, x):
                h = torch.zeros(x.shape[1], 4)
                for t in range(x.shape[0]):
                    h = self.cell(x[t], h)
                return h

        theirs, x = Loop(), torch.randn(5, 2, 3)
        with pytest.raises(ValueError, match=r"not for x \((6, 2, 3|5, 3, 3)\).*dynamic_axes=\{\}"):
            recurve.from_torch(theirs, x, device="cpu")
        ours = recurve.from_torch(theirs, x, device="cpu", dynamic_axes={})
        with torch.no_grad():
            assert close(ours(x), theirs(x))

    def test_what_depends_on_the_values_of_the_example_is_found(self):
        torch = self.torch

        class Drops(torch.nn.Module):
            def forward(self, x):
                return x + torch.rand(x.shape)

        with pytest.raises(ValueError, match="from PyTorch, and|cannot write|RandomUniform"):
            recurve.from_torch(Drops(), torch.ones(2, 3), device="cpu")

    def test_classes_that_compute_something_else_are_not_taken_for_their_base(self):
        torch = self.torch

        class Doubled(torch.nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        theirs = Doubled(3, 2)
        with pytest.raises(ValueError, match="example_inputs"):
            recurve.from_torch(theirs)
        x = torch.randn(4, 3)
        with torch.no_grad():
            assert close(recurve.from_torch(theirs, x, device="cpu")(x), theirs(x))
        hooked = torch.nn.Linear(3, 2)
        hooked.register_forward_hook(lambda module, given, y: y + 1)
        with torch.no_grad():
            assert close(recurve.from_torch(hooked, x, device="cpu")(x), hooked(x))

    def test_refusals(self):
        torch = self.torch
        with pytest.raises(recurve.Unsupported, match="max_norm"):
            recurve.from_torch(torch.nn.Embedding(3, 2, max_norm=1.0))
        with pytest.raises(TypeError, match="example_inputs must be tensors or tuples of them, but there is a ndarray"):
            recurve.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)), np.zeros((2, 3)))
        with pytest.raises(ValueError, match="input_names has 2 names, but example_inputs has 1"):
            recurve.from_torch(torch.nn.Sequential(torch.nn.Linear(3, 2)), torch.zeros(2, 3), input_names=["a", "b"])

        class Sorted(torch.nn.Module):
            def forward(self, x):
                return torch.linalg.inv(x)

        with pytest.raises(ValueError, match="Sorted|inv|Inverse"):
            recurve.from_torch(Sorted(), torch.eye(3), device="cpu")
        with pytest.raises(TypeError, match="from_torch"):
            recurve.from_keras(torch.nn.Linear(3, 2))


class TestKeras:
    @pytest.fixture(autouse=True)
    def seeded(self):
        os.environ.setdefault("KERAS_BACKEND", "torch")
        self.keras = pytest.importorskip("keras")
        self.keras.utils.set_random_seed(4)

    def test_sequential(self):
        keras = self.keras
        theirs = keras.Sequential(
            [
                keras.Input((None,)),
                keras.layers.Embedding(20, 6, mask_zero=True),
                keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True)),
                keras.layers.GRU(4, dropout=0.3),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        theirs.compile("adam", "sparse_categorical_crossentropy")
        ours = recurve.from_keras(theirs, device="cpu")
        words = np.random.default_rng(1).integers(0, 20, (3, 7))
        assert close(ours(words), theirs.predict(words, verbose=0))

    def test_several_inputs_and_outputs(self):
        keras = self.keras
        a, b = keras.Input((None, 3), name="a"), keras.Input((4,), name="b")
        y, h = keras.layers.GRU(4, return_sequences=True, return_state=True)(a)
        joined = keras.layers.Concatenate()([h, b])
        theirs = keras.Model([a, b], [keras.layers.Dense(2, name="y")(y), keras.layers.Dense(1, name="z")(joined)])
        ours = recurve.from_keras(theirs, device="cpu")
        rng = np.random.default_rng(1)
        x = {"a": rng.standard_normal((2, 5, 3), np.float32), "b": rng.standard_normal((2, 4), np.float32)}
        wanted = theirs.predict(x, verbose=0)
        got = list(ours.run(x).values())
        assert len(got) == 2 and all(close(g, w) for g, w in zip(got, wanted))

    def test_refusals(self):
        keras = self.keras
        with pytest.raises(TypeError, match="put the layer into a keras.Sequential"):
            recurve.from_keras(keras.layers.LSTM(3))
        with pytest.raises(ValueError, match="is not built"):
            recurve.from_keras(keras.Sequential([keras.layers.LSTM(3)]))
        with pytest.raises(TypeError, match="from_keras"):
            recurve.from_torch(keras.Sequential([keras.layers.LSTM(3)]))
        inputs = keras.Input((8, 3))
        attention = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 2)(inputs, inputs))
        with pytest.raises(recurve.Unsupported, match="MultiHeadAttention"):
            recurve.from_keras(attention)

    def test_the_model_is_as_it_was(self):
        keras = self.keras
        theirs = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(4)])
        before = [w.copy() for w in theirs.get_weights()]
        ours = recurve.from_keras(theirs, device="cpu")
        theirs.set_weights([np.zeros_like(w) for w in before])
        # What was taken over is a copy.
        assert np.asarray(ours(np.ones((1, 5, 3), np.float32))).any()


PYTORCH_FILES = ROOT / "tests" / "fixtures" / "pytorch_files"


def test_weights_of_files_go_into_modules():
    """Without PyTorch: a checkpoint's weights, and the modules that they belong to."""
    weights = nn.load_weights(PYTORCH_FILES / "zip.pt", "rnn")
    rows, features = weights["weight_ih_l0"].shape
    rnn = nn.LSTM(features, rows // 4, 2, bidirectional=True, batch_first=True, device="cpu")
    rnn.load_state_dict(weights)
    assert rnn(np.ones((1, 3, features), np.float32))[0].any()
    whole = nn.load_weights(PYTORCH_FILES / "zip.pt")
    assert set(whole) > {f"rnn.{name}" for name in weights} and "embedding.weight" in whole
    with pytest.raises(ValueError, match='begin with "rnn."'):
        rnn.load_state_dict(whole)
    torch = pytest.importorskip("torch")
    theirs = torch.load(PYTORCH_FILES / "zip.pt", weights_only=True)
    assert sorted(theirs) == sorted(whole)
    assert all(np.array_equal(whole[name], w.float().numpy()) for name, w in theirs.items())


def test_weights_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"nothing\.….*embedding\.weight"):
        nn.load_weights(PYTORCH_FILES / "zip.pt", "nothing")
    with pytest.raises(FileNotFoundError, match="missing"):
        nn.load_weights(PYTORCH_FILES / "missing.pt")
    with pytest.raises(ValueError, match="system"):
        nn.load_weights(PYTORCH_FILES / "bad_system.pt")


def test_weights_alone_are_no_model():
    """The refusal lists the modules, as `recurve summary` does, and says what to do."""
    with pytest.raises(recurve.Unsupported) as caught:
        recurve.load(PYTORCH_FILES / "zip.pt", device="cpu")
    text = str(caught.value)
    assert "no description of layers" in text and "recurve.nn.load_weights" in text
    (line,) = [line for line in text.splitlines() if line.lstrip().startswith("rnn ")]
    assert "LSTM" in line and "2 layers, bidirectional" in line
