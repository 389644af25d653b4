"""`recurve.nn` beside PyTorch: numbers from tests/fixtures/pytorch.safetensors, which tests/golden/make_pytorch.py made,
and, where PyTorch is installed, modules side by side."""

import copy
import json
import pathlib
import pickle
import random
import re
import struct

import numpy as np
import pytest

import recurve
from recurve import nn

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures"

# Sums of at most 40 products in f32 beside f64, over 9 timesteps.
TOLERANCE = 2e-6


def safetensors(path):
    """The arrays of a safetensors file of f32, and its metadata."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, about in header.items():
        start, end = (8 + size + n for n in about["data_offsets"])
        arrays[name] = np.frombuffer(data[start:end], "<f4").reshape(about["shape"])
    return arrays, metadata


ARRAYS, METADATA = safetensors(FIXTURES / "pytorch.safetensors")
CASES = json.loads(METADATA["cases"])


def weights_of(net):
    start = f"{net}/weights."
    return {name[len(start) :]: array for name, array in ARRAYS.items() if name.startswith(start)}


def module_of(case, device="cpu"):
    """The module that made a case, with its weights."""
    weights = weights_of(case["net"])
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[case["kind"]]
    options = {"nonlinearity": case["nonlinearity"]} if case["nonlinearity"] else {}
    if "weight_hr_l0" in weights:
        options["proj_size"] = len(weights["weight_hr_l0"])
    module = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[case["kind"]](
        weights["weight_ih_l0"].shape[1],
        len(weights["weight_ih_l0"]) // gates,
        2 if "weight_ih_l1" in weights else 1,
        bias="bias_ih_l0" in weights,
        batch_first=case["batch_first"],
        bidirectional="weight_ih_l0_reverse" in weights,
        device=device,
        **options,
    )
    assert repr(module.load_state_dict(weights)) == "<All keys matched successfully>"
    return module


def state_of(name, kind):
    if f"{name}/h0" not in ARRAYS:
        return None
    return (ARRAYS[f"{name}/h0"], ARRAYS[f"{name}/c0"]) if kind == "lstm" else ARRAYS[f"{name}/h0"]


def error(got, want):
    got = np.asarray(got)
    assert got.shape == want.shape and got.dtype == np.float32
    return float(np.max(np.abs(got - want)))


def run(name, case, module, lengths=True):
    """The largest errors of a case's outputs."""
    given = ARRAYS.get(f"{name}/lengths")
    options = {"lengths": given.astype(np.int64)} if given is not None and lengths else {}
    y, last = module(ARRAYS[f"{name}/x"], state_of(name, case["kind"]), **options)
    last = last if case["kind"] == "lstm" else (last,)
    errors = [error(y, ARRAYS[f"{name}/y"])]
    return errors + [error(end, ARRAYS[f"{name}/{key}"]) for key, end in zip("hc", last)]


def test_every_case_of_pytorch():
    assert len(CASES) > 300
    for name, case in CASES.items():
        errors = run(name, case, module_of(case))
        assert all(e <= TOLERANCE for e in errors), (name, errors)


@pytest.mark.parametrize(
    "change",
    ["gates", "directions", "lengths", "state", "time"],
)
def test_cases_notice_what_is_wrong(change):
    """Each mistake that a binding could make shows in the numbers."""
    name = "lstm_l2_h7_bi_init_lengths_b4"
    case = CASES[name]
    module = module_of(case)
    weights = weights_of(case["net"])
    options = {}
    x, state = ARRAYS[f"{name}/x"], state_of(name, "lstm")
    lengths = ARRAYS[f"{name}/lengths"].astype(int)
    if change == "gates":
        w = weights["weight_ih_l1"]
        weights["weight_ih_l1"] = np.concatenate([w[7:14], w[:7], w[14:]])
    if change == "directions":
        weights["weight_hh_l0"], weights["weight_hh_l0_reverse"] = (
            weights["weight_hh_l0_reverse"],
            weights["weight_hh_l0"],
        )
    if change == "lengths":
        lengths = np.array([6, 5, 6, 6])
    if change == "state":
        state = (state[0][::-1], state[1])
    if change == "time":
        module.batch_first = False
        x = x.transpose(1, 0, 2)[::-1]
    module.load_state_dict(weights)
    y, _ = module(x, state, lengths=lengths, **options)
    y = y.transpose(1, 0, 2) if change == "time" else y
    assert error(y, ARRAYS[f"{name}/y"]) > 1e-3


def test_states_passed_back_are_one_call():
    """T timesteps in one call are T calls of one timestep, with states that are never read."""
    case = CASES["lstm_l2_h7_init_lengths_b4"]
    module = module_of(case)
    x = np.random.default_rng(3).standard_normal((4, 9, 5), np.float32)
    whole, (h, c) = module(x)
    states, parts = None, []
    for t in range(9):
        y, states = module(x[:, t : t + 1], states)
        assert all(type(s) is recurve.Tensor and s._read is None for s in states)
        parts.append(y)
    assert error(np.concatenate(parts, 1), whole) <= 1e-6
    assert error(states[0], np.asarray(h)) <= 1e-6
    assert error(states[1], np.asarray(c)) <= 1e-6
    # Arrays of the states do the same.
    y, (h, c) = module(x[:, :4])
    y, _ = module(x[:, 4:], (h.numpy(), np.asarray(c).tolist()))
    assert error(y, whole[:, 4:]) <= 1e-6


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_one_sequence_without_a_batch(kind, batch_first):
    module = getattr(nn, kind)(3, 4, 2, bidirectional=True, batch_first=batch_first, device="cpu")
    x = np.random.default_rng(1).standard_normal((6, 3), np.float32)
    y, last = module(x)
    batch = x[None] if batch_first else x[:, None]
    wanted, wanted_last = module(batch)
    assert y.shape == (6, 8)
    assert np.array_equal(y, wanted.reshape(6, 8))
    pairs = zip(last, wanted_last) if kind == "LSTM" else [(last, wanted_last)]
    for own, other in pairs:
        assert own.shape == (4, 4)
        assert np.array_equal(own, np.asarray(other)[:, 0])
    # States go back in without a batch too, read or not.
    again, _ = module(x, last)
    read = tuple(s.numpy() for s in last) if kind == "LSTM" else last.numpy()
    assert np.array_equal(again, module(x, read)[0])
    assert not np.array_equal(again, y)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_cells_are_layers_of_one_timestep(nonlinearity):
    x = np.random.default_rng(5).standard_normal((6, 2, 3), np.float32)
    options = {"nonlinearity": nonlinearity}
    for layer, cell in [
        (nn.RNN(3, 4, **options, device="cpu"), nn.RNNCell(3, 4, **options, device="cpu")),
        (nn.LSTM(3, 4, device="cpu"), nn.LSTMCell(3, 4, device="cpu")),
        (nn.GRU(3, 4, bias=False, device="cpu"), nn.GRUCell(3, 4, bias=False, device="cpu")),
    ]:
        cell.load_state_dict({name.removesuffix("_l0"): w for name, w in layer.state_dict().items()})
        wanted, _ = layer(x)
        state, one = None, None
        for t in range(6):
            state = cell(x[t], state)
            one = cell(x[t, 0], one)
            h = state[0] if isinstance(state, tuple) else state
            assert h.shape == (2, 4)
            assert error(h, wanted[t]) <= 1e-6
            own = one[0] if isinstance(one, tuple) else one
            assert own.shape == (4,)
            assert error(own, wanted[t, 0]) <= 1e-6


def test_cells_read_the_states_of_other_cells():
    """Stacked cells pass their states on without reading them."""
    a, b = nn.GRUCell(3, 4, device="cpu"), nn.LSTMCell(4, 5, device="cpu")
    x = np.random.default_rng(2).standard_normal((2, 3), np.float32)
    h = a(x)
    states = b(h)
    assert h._read is None
    wanted = b(h.numpy())
    assert all(np.array_equal(own, other) for own, other in zip(states, wanted))
    assert np.array_equal(nn.Linear(4, 2, device="cpu")(h).shape, (2, 2))


def test_linear_and_embedding_by_hand():
    linear = nn.Linear(3, 2, device="cpu")
    x = np.random.default_rng(2).standard_normal((4, 5, 3), np.float32)
    wanted = x @ linear.weight.T + linear.bias
    assert np.allclose(linear(x), wanted, atol=1e-6)
    assert np.allclose(linear(x[0, 0]), wanted[0, 0], atol=1e-6)
    bare = nn.Linear(3, 2, bias=False, device="cpu")
    assert bare.bias is None and list(bare.state_dict()) == ["weight"]
    assert np.allclose(bare(x), x @ bare.weight.T, atol=1e-6)

    table = nn.Embedding(10, 4, padding_idx=-1, device="cpu")
    ids = np.array([[1, 9], [3, 0]])
    assert np.array_equal(table(ids), table.weight[ids])
    assert not table.weight[9].any() and table.weight[8].any()
    assert np.array_equal(table(np.int32(3)), table.weight[3])
    with pytest.raises(ValueError, match="contains 10, but there are only 10 rows"):
        table([3, 10])
    with pytest.raises(ValueError, match="contains -1"):
        table([-1])
    with pytest.raises(TypeError, match="integers"):
        table([1.0])
    own = nn.Embedding.from_pretrained(np.eye(3), device="cpu")
    assert np.array_equal(own([2]), [[0, 0, 1]])


def test_modules_of_ones_own():
    class Tagger(nn.Module):
        def __init__(self, tied=False):
            super().__init__()
            self.table = nn.Embedding(10, 3, device="cpu")
            self.rnn = nn.GRU(3, 4, batch_first=True, device="cpu")
            self.head = nn.Linear(4, 5, device="cpu")
            if tied:
                self.again = self.head

        def forward(self, ids):
            return self.head(self.rnn(self.table(ids))[0])

    a, b = Tagger(), Tagger()
    ids = [[1, 2, 3]]
    assert a(ids).shape == (1, 3, 5)
    assert not np.array_equal(a(ids), b(ids))
    assert list(a.state_dict())[:2] == ["table.weight", "rnn.weight_ih_l0"]
    b.load_state_dict(a.state_dict())
    assert np.array_equal(a(ids), b(ids))
    assert [name for name, _ in a.named_modules()] == ["", "table", "rnn", "head"]
    tied = Tagger(tied=True)
    assert "again.weight" in tied.state_dict()
    assert len(list(tied.parameters())) == len(list(a.parameters())) == 7
    assert repr(a).splitlines() == [
        "Tagger(",
        "  (table): Embedding(10, 3)",
        "  (rnn): GRU(3, 4, batch_first=True)",
        "  (head): Linear(in_features=4, out_features=5, bias=True)",
        ")",
    ]

    class Late(nn.Module):
        def __init__(self):
            self.rnn = nn.GRU(3, 4)

    with pytest.raises(AttributeError, match="before Module"):
        Late()
    with pytest.raises(NotImplementedError, match="no `forward`"):
        nn.Module()()


def test_initial_weights():
    nn.manual_seed(7)
    a = nn.LSTM(20, 64)
    b = nn.LSTM(20, 64)
    nn.manual_seed(7)
    c = nn.LSTM(20, 64)
    assert np.array_equal(a.weight_hh_l0, c.weight_hh_l0)
    assert not np.array_equal(a.weight_hh_l0, b.weight_hh_l0)
    before = random.getstate(), np.random.get_state()
    recurve.utils.set_random_seed(7)
    assert np.array_equal(nn.LSTM(20, 64).weight_hh_l0, a.weight_hh_l0)
    random.setstate(before[0])
    np.random.set_state(before[1])
    limit = 1 / np.sqrt(64)
    for _, w in a.named_parameters():
        assert w.dtype == np.float32
        assert -limit <= w.min() and w.max() <= limit
    w = a.weight_hh_l0
    # 16,384 draws: the mean is within 4 of its standard deviations, the deviation that of a uniform distribution.
    assert abs(w.mean()) < 4 * limit / np.sqrt(3) / np.sqrt(w.size)
    assert abs(w.std() * np.sqrt(3) / limit - 1) < 0.02


def test_parameters_cannot_be_changed_unnoticed():
    module = nn.GRU(3, 4, device="cpu")
    x = np.ones((5, 2, 3), np.float32)
    before, _ = module(x)
    with pytest.raises(ValueError, match="read-only"):
        module.weight_hh_l0[0] = 1
    given = np.zeros((12, 4))
    module.weight_hh_l0 = given
    after, _ = module(x)
    assert not np.array_equal(before, after)
    given[:] = 1
    assert np.array_equal(module(x)[0], after)
    weights = module.state_dict()
    weights["weight_hh_l0"][:] = 5
    assert np.array_equal(module(x)[0], after)
    with pytest.raises(ValueError, match=r"`weight_hh_l0` must have shape \(12, 4\), but it has \(4, 12\)"):
        module.weight_hh_l0 = given.T
    # What is refused changes nothing.
    assert np.array_equal(module(x)[0], after)
    before = {name: w.copy() for name, w in module.named_parameters()}
    module.reset_parameters()
    assert all(not np.array_equal(w, before[name]) for name, w in module.named_parameters())


def test_load_state_dict_says_what_is_wrong():
    module = nn.LSTM(3, 4, device="cpu")
    good = module.state_dict()
    bad = dict(good)
    bad["extra"] = bad.pop("bias_hh_l0")
    bad["weight_ih_l0"] = np.zeros((16, 2))
    with pytest.raises(ValueError) as caught:
        module.load_state_dict(bad)
    assert str(caught.value).split("\n\t") == [
        "Error(s) in loading state_dict for LSTM:",
        'Missing key(s) in state_dict: "bias_hh_l0". ',
        'Unexpected key(s) in state_dict: "extra". ',
        "size mismatch for weight_ih_l0: copying a param with shape [16, 2] from checkpoint, the shape in current model "
        "is [16, 3].",
    ]
    assert all(np.array_equal(w, good[name]) for name, w in module.named_parameters())
    del bad["weight_ih_l0"]
    keys = module.load_state_dict(bad, strict=False)
    assert keys.missing_keys == ["weight_ih_l0", "bias_hh_l0"] and keys.unexpected_keys == ["extra"]
    # A checkpoint of a larger model: the message shows the way.
    with pytest.raises(ValueError, match=re.escape('k.removeprefix("encoder.rnn.")')):
        module.load_state_dict({f"encoder.rnn.{name}": w for name, w in good.items()} | {"head.weight": 0})
    with pytest.raises(TypeError, match="dict-like"):
        module.load_state_dict(list(good.items()))
    with pytest.raises(TypeError, match="`bias_ih_l0` must be an array of floats"):
        module.load_state_dict(good | {"bias_ih_l0": ["a"] * 16})


def test_modes():
    module = nn.LSTM(3, 4, 2, dropout=0.5, device="cpu")
    assert not module.training and module.eval() is module
    with pytest.raises(recurve.Unsupported, match="dropout=0.5"):
        module.train()
    assert not module.training
    assert nn.LSTM(3, 4).train().training
    with pytest.raises(recurve.Unsupported, match="no gradients"):
        module.requires_grad_()
    assert module.requires_grad_(False) is module
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        nn.GRU(3, 4, dropout=0.5)


@pytest.mark.parametrize(
    ("kind", "error", "text", "arguments"),
    [
        ("LSTM", TypeError, "hidden_size should be of type int, got: float", {"hidden_size": 4.0}),
        ("LSTM", TypeError, "input_size should be of type int, got: bool", {"input_size": True}),
        ("LSTM", ValueError, "hidden_size must be greater than zero", {"hidden_size": 0}),
        ("GRU", ValueError, "num_layers must be greater than zero", {"num_layers": 0}),
        ("GRU", TypeError, "bias should be of type bool, got: int", {"bias": 1}),
        ("GRU", TypeError, "batch_first should be of type bool, got: str", {"batch_first": "yes"}),
        ("GRU", ValueError, r"dropout should be a number in range \[0, 1\]", {"dropout": 1.5}),
        ("GRU", ValueError, r"dropout should be a number in range \[0, 1\]", {"dropout": True}),
        ("LSTM", ValueError, "proj_size has to be smaller than hidden_size", {"proj_size": 4}),
        ("LSTM", ValueError, "proj_size should be a positive integer or zero", {"proj_size": -1}),
        ("RNN", ValueError, "Unknown nonlinearity 'gelu'", {"nonlinearity": "gelu"}),
        ("RNN", recurve.Unsupported, "dtype=float64", {"dtype": "float64"}),
    ],
)
def test_arguments_that_are_refused(kind, error, text, arguments):
    with pytest.raises(error, match=text):
        getattr(nn, kind)(**({"input_size": 3, "hidden_size": 4} | arguments))


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "LSTM: Expected input to be 2D or 3D, got 4D instead", lambda m: m(np.zeros((1, 1, 1, 3)))),
        (ValueError, "Expected 3, got 4", lambda m: m(np.zeros((5, 2, 4)))),
        (ValueError, r"must not be empty, but its shape is \(0, 2, 3\)", lambda m: m(np.zeros((0, 2, 3)))),
        (TypeError, "array of floats, but its elements are complex128", lambda m: m(np.zeros((5, 2, 3), complex))),
        (TypeError, "array of floats, but its elements are <U1", lambda m: m(np.full((5, 2, 3), "a"))),
        (TypeError, r"pair \(h_0, c_0\), but it is a ndarray", lambda m: m(np.zeros((5, 2, 3)), np.zeros((1, 2, 4)))),
        (
            ValueError,
            r"Expected hidden size \(1, 2, 4\) of `h_0`, got \[1, 3, 4\]",
            lambda m: m(np.zeros((5, 2, 3)), (np.zeros((1, 3, 4)), np.zeros((1, 2, 4)))),
        ),
        (
            ValueError,
            r"Expected cell size \(1, 2, 4\) of `c_0`, got \[2, 2, 4\]",
            lambda m: m(np.zeros((5, 2, 3)), (np.zeros((1, 2, 4)), np.zeros((2, 2, 4)))),
        ),
        (
            ValueError,
            "For batched 3-D input, h_0 should also be 3-D but got 2-D",
            lambda m: m(np.zeros((5, 2, 3)), (np.zeros((1, 4)), np.zeros((1, 4)))),
        ),
        (
            ValueError,
            "For unbatched 2-D input, h_0 should also be 2-D but got 3-D",
            lambda m: m(np.zeros((5, 3)), (np.zeros((1, 1, 4)), np.zeros((1, 1, 4)))),
        ),
        (ValueError, "lengths contains 6, but the input has 5", lambda m: m(np.zeros((5, 2, 3)), lengths=[6, 1])),
        (ValueError, "greater than 0", lambda m: m(np.zeros((5, 2, 3)), lengths=[5, 0])),
        (ValueError, r"lengths must have shape \(2,\)", lambda m: m(np.zeros((5, 2, 3)), lengths=[5])),
        (ValueError, "contains -1", lambda m: m(np.zeros((5, 2, 3)), lengths=[5, -1])),
        (TypeError, "array of integers", lambda m: m(np.zeros((5, 2, 3)), lengths=[5.0, 1.0])),
        (ValueError, "one sequence without a batch", lambda m: m(np.zeros((5, 3)), lengths=[5])),
        (TypeError, "unexpected keyword", lambda m: m(np.zeros((5, 2, 3)), batch=3)),
    ],
)
def test_calls_that_are_refused(error, text, call):
    module = nn.LSTM(3, 4, device="cpu")
    with pytest.raises(error, match=text):
        call(module)
    assert module(np.zeros((5, 2, 3)))[0].shape == (5, 2, 4)


def test_cells_refuse():
    cell = nn.LSTMCell(3, 4, device="cpu")
    with pytest.raises(ValueError, match="Expected input to be 1D or 2D, got 3D"):
        cell(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="inconsistent input_size: got 2 expected 3"):
        cell(np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"Expected hx\[1\] of shape \(2, 4\), got \[2, 3\]"):
        cell(np.zeros((2, 3)), (np.zeros((2, 4)), np.zeros((2, 3))))


def test_pickles_and_copies_are_modules_of_their_own():
    module = nn.LSTM(3, 4, 2, bidirectional=True, device="cpu")
    x = np.random.default_rng(1).standard_normal((5, 2, 3), np.float32)
    wanted, _ = module(x)
    for other in (
        pickle.loads(pickle.dumps(module)),
        copy.copy(module),
        copy.deepcopy(module),
    ):
        assert repr(other) == repr(module)
        assert np.array_equal(other(x)[0], wanted)
        other.weight_hh_l0 = np.zeros((16, 4))
        assert not np.array_equal(other(x)[0], wanted)
        with pytest.raises(ValueError, match="read-only"):
            other.weight_hh_l1[0] = 1
        assert np.array_equal(module(x)[0], wanted)
    device = recurve.Device("cpu")
    held = nn.GRU(3, 4, device=device)
    assert held.device is device
    assert pickle.loads(pickle.dumps(held)).device.backend == "cpu"


def test_devices():
    module = nn.GRU(3, 4, device="cpu")
    assert module.device.backend == "cpu"
    assert module.to("cpu") is module is module.cpu()
    with pytest.raises(ValueError, match="no device matches `gpu:no such adapter`"):
        module.to("gpu:no such adapter")
    assert module(np.zeros((5, 3)))[0].shape == (5, 4)
    with pytest.raises(TypeError):
        nn.GRU(3, 4, device=3)(np.zeros((5, 3)))


def test_a_gpu_computes_the_same():
    adapters = [d for d in recurve.devices() if d.backend == "vulkan"]
    if not adapters:
        pytest.skip("no Vulkan adapter")
    name = "lstm_l2_h7_bi_init_lengths_b4"
    module = module_of(CASES[name], adapters[0].selector)
    errors = run(name, CASES[name], module)
    assert all(e <= 1e-5 for e in errors), errors
    x = np.random.default_rng(1).standard_normal((4, 6, 5), np.float32)
    _, states = module(x)
    y, _ = module(x, states)
    assert states[0].device == str(module.device) and states[0]._read is None
    # States of one device are moved to another.
    other = module_of(CASES[name])
    assert error(other(x, states)[0], y) <= 1e-5


def test_tensors_act_as_arrays():
    gru = nn.GRU(3, 4, device="cpu")
    _, h = gru(np.random.default_rng(1).standard_normal((5, 2, 3), np.float32))
    array = h.numpy()
    assert type(h) is recurve.Tensor and array.shape == h.shape == (1, 2, 4)
    assert (h.ndim, h.size, h.dtype, len(h)) == (3, 8, np.float32, 1)
    assert np.array_equal(h[0, 1], array[0, 1]) and np.array_equal(h[-1], array[-1])
    assert np.array_equal(h + 1, array + 1) and np.array_equal(2 * h, 2 * array)
    assert np.array_equal(np.tanh(h), np.tanh(array)) and np.array_equal(np.stack([h, h])[1], array)
    assert np.array_equal(h == h, np.ones((1, 2, 4), bool))
    assert np.array_equal(h.reshape(-1), array.reshape(-1)) and h.mean() == array.mean()
    assert np.array_equal(h.T, array.T) and h.tolist() == array.tolist()
    assert np.asarray(h, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        h.__array__(np.float64, copy=False)
    # Nothing changes it.
    for change in (lambda: h.fill(0), lambda: h.sort(), lambda: np.asarray(h).fill(0), lambda: h[0].fill(0)):
        with pytest.raises(ValueError, match="read-only"):
            change()
    with pytest.raises(TypeError, match="cannot be changed"):
        np.add(array, array, out=h)
    with pytest.raises(TypeError):
        h[0] = 1
    with pytest.raises(AttributeError):
        h._nothing  # noqa: B018
    assert np.array_equal(h, array)
    own = h.numpy()
    own[:] = 0
    assert np.array_equal(h, array)
    assert copy.deepcopy(h) is h
    again = pickle.loads(pickle.dumps(h))
    assert type(again) is recurve.Tensor and np.array_equal(again, array)
    assert np.array_equal(np.from_dlpack(h), array)


# Beside PyTorch itself


def test_modules_beside_pytorch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    for kind, options in [
        ("RNN", {"num_layers": 2, "nonlinearity": "relu"}),
        ("LSTM", {"num_layers": 3, "bidirectional": True, "proj_size": 5}),
        ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}),
    ]:
        theirs = getattr(torch.nn, kind)(6, 17, **options)
        ours = getattr(nn, kind)(6, 17, **options, device="cpu")
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert [w.shape for w in ours.parameters()] == [tuple(w.shape) for w in theirs.parameters()]
        # As tensors, as parameters that require gradients, as arrays, in half of the width.
        ours.load_state_dict(dict(theirs.named_parameters()))
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(11, 4, 6)
        with torch.no_grad():
            wanted, state = theirs(x)
            further, _ = theirs(x, state)
        y, own = ours(x)
        assert error(y, wanted.numpy()) <= 1e-6
        assert error(ours(x, own)[0], further.numpy()) <= 1e-6
        assert error(ours(x, state)[0], further.numpy()) <= 1e-6
        # And back.
        theirs.load_state_dict({name: torch.from_numpy(w) for name, w in ours.state_dict().items()})
        ours.load_state_dict({name: w.to(torch.bfloat16) for name, w in theirs.state_dict().items()})
        assert np.allclose(ours(x)[0], wanted, atol=0.05) and not np.array_equal(ours(x)[0], y)


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    gru = nn.GRU(3, 4, device="cpu")
    x = torch.randn(5, 2, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"`input` requires gradients.*detach\(\)"):
        gru(x)
    y, h = gru(x.detach())
    assert np.array_equal(y, gru(x.detach().numpy())[0])
    back = torch.from_dlpack(h)
    assert back.dtype == torch.float32 and np.array_equal(back.numpy(), h)
    back.zero_()
    assert np.asarray(h).any()
    with pytest.raises(TypeError, match="`input` cannot be read|`input` is on"):
        gru(torch.zeros(5, 2, 3, device="meta"))


def test_packed_sequences_are_lengths():
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True)
    ours = recurve.from_torch(theirs, device="cpu")
    x, lengths = torch.randn(7, 3, 3), torch.tensor([4, 7, 1])
    with torch.no_grad():
        packed, state = theirs(pack_padded_sequence(x, lengths, enforce_sorted=False))
    wanted, _ = pad_packed_sequence(packed)
    y, own = ours(x, lengths=lengths)
    assert error(y, wanted.numpy()) <= 1e-6
    assert all(error(a, b.numpy()) <= 1e-6 for a, b in zip(own, state))
