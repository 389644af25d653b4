"""What models take as arrays and what they give: layouts, element types, copies, and what is refused."""

import array as arrays
import copy
import ctypes
import pathlib
import pickle
import re
import warnings

import numpy as np
import pytest

import recurve
from recurve import _recurve
from recurve._dlpack import as_numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIT = ROOT / "tests" / "fixtures" / "fit"


@pytest.fixture(scope="module")
def floats():
    """A network of x [B, T, 3] with two outputs."""
    return recurve.load(FIT / "outputs.keras", device="cpu")


@pytest.fixture(scope="module")
def ids():
    """A network of word ids [B, T]."""
    return recurve.load(FIT / "masked.keras", device="cpu")


@pytest.fixture(scope="module")
def silero():
    """An ONNX file with a state and a whole number."""
    return recurve.load(ROOT / "models" / "silero_vad.onnx", device="cpu")


def silero_inputs(batch=1):
    rng = np.random.default_rng(5)
    return {
        "input": rng.standard_normal((batch, 576), np.float32),
        "state": np.zeros((2, batch, 128), np.float32),
        "sr": np.int64(16000),
    }


def x_of(shape=(2, 5, 3)):
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(p, q) for p, q in zip(a, b))


def address(array):
    return array.__array_interface__["data"][0]


class Interface:
    """An object that only has `__array_interface__`."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


class OnlyDlpack:
    """An object that only speaks DLPack."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


def unaligned(x):
    """A view of the same elements at an odd address."""
    memory = np.zeros(x.nbytes + 8, np.uint8)
    at = next(n for n in range(1, 5) if (address(memory) + n) % 4)
    view = memory[at : at + x.nbytes].view(np.float32).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned and view.flags.c_contiguous
    return view


def strided(x):
    wide = np.zeros((x.shape[0], 2 * x.shape[1], 3 * x.shape[2]), np.float32)
    wide[:, ::2, ::3] = x
    return wide[:, ::2, ::3]


LAYOUTS = {
    "Fortran's order": np.asfortranarray,
    "axes exchanged": lambda x: np.ascontiguousarray(x.transpose(2, 0, 1)).transpose(1, 2, 0),
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "gaps": strided,
    "not aligned": unaligned,
    "the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "f64": lambda x: x.astype(np.float64),
    "f64 of the other byte order": lambda x: x.astype(">f8"),
    "long double": lambda x: x.astype(np.longdouble),
    "a list": lambda x: x.tolist(),
    "tuples of arrays": lambda x: tuple(tuple(row) for row in x),
    "memoryview": memoryview,
    "DLPack": OnlyDlpack,
    "array interface": Interface,
    "a subclass": lambda x: x.view(type("Mine", (np.ndarray,), {})),
    "one of a structure": lambda x: np.rec.fromarrays([x, x], names="a,b").a,
    "broadcast": lambda x: np.broadcast_to(x[:1, :1], x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same(floats, layout):
    x = x_of()
    if layout == "broadcast":
        x = np.ascontiguousarray(np.broadcast_to(x[:1, :1], x.shape))
    given = LAYOUTS[layout](x)
    before = np.array(given) if isinstance(given, np.ndarray) else None
    assert same(floats(given), floats(x))
    if before is not None:
        assert np.array_equal(given, before) and given.flags.writeable == LAYOUTS[layout](x).flags.writeable


@pytest.mark.parametrize("dtype", ["f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">i2", ">u8"])
def test_numbers_of_every_width_become_floats(floats, dtype):
    whole = (np.abs(x_of()) * 3).astype(np.uint8)
    whole = whole.astype(dtype)
    assert whole.any()
    assert same(floats(whole), floats(whole.astype(np.float32)))


def test_bfloat16(floats):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = x_of().astype(ml_dtypes.bfloat16)
    assert same(floats(x), floats(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u8"])
def test_ids_of_every_width(ids, dtype):
    words = np.array([[1, 2, 3, 0], [3, 1, 0, 0]])
    wanted = ids(words)
    assert np.array_equal(ids(words.astype(dtype)), wanted)
    assert np.array_equal(ids(np.asfortranarray(words.astype(dtype))), wanted)
    assert np.array_equal(ids(words[::-1, ::-1].astype(dtype)[::-1, ::-1]), wanted)
    assert np.array_equal(ids(words.tolist()), wanted)
    assert not np.array_equal(ids(words[::-1]), wanted)


def test_scalars(silero):
    inputs = silero_inputs()
    wanted = silero.run(inputs)["output"]
    for rate in (16000, np.int32(16000), np.array(16000), np.uint16(16000), [16000][0]):
        assert np.array_equal(silero.run(inputs | {"sr": rate})["output"], wanted)
    with pytest.raises(TypeError, match="`sr`.*float"):
        silero.run(inputs | {"sr": 16000.0})


# Without a copy


def test_f32_in_c_order_is_read_where_it_is():
    for x in (x_of(), x_of((1, 1, 3)), x_of((64, 50, 3)), x_of((4, 5, 3))[1:3], np.zeros((2, 1, 3), np.float32)):
        assert _recurve.borrows(x) == address(x)
        frozen = x.view()
        frozen.flags.writeable = False
        assert _recurve.borrows(frozen) == address(x)
    # Memory of others.
    memory = arrays.array("f", range(12))
    own = np.frombuffer(memory, np.float32).reshape(2, 2, 3)
    assert _recurve.borrows(own) == memory.buffer_info()[0]
    whole = (ctypes.c_float * 12)()
    assert _recurve.borrows(np.ctypeslib.as_array(whole)) == ctypes.addressof(whole)
    x = x_of()
    assert _recurve.borrows(OnlyDlpack(x)) == address(x)
    assert _recurve.borrows(memoryview(x)) == address(x)


@pytest.mark.parametrize("layout", ["Fortran's order", "negative strides", "gaps", "not aligned", "f64", "the other byte order"])
def test_other_layouts_are_copied(layout):
    given = LAYOUTS[layout](x_of())
    start = address(given)
    at = _recurve.borrows(given)
    assert not start - given.nbytes <= at < start + given.nbytes


def test_tensors_of_pytorch_are_read_where_they_are(floats):
    torch = pytest.importorskip("torch")
    x = torch.randn(2, 5, 3)
    assert _recurve.borrows(x) == x.data_ptr()
    assert same(floats(x), floats(x.numpy()))
    across = torch.randn(5, 2, 3).transpose(0, 1)
    assert _recurve.borrows(across) != across.data_ptr()
    assert same(floats(across), floats(across.numpy()))
    half = x.to(torch.bfloat16)
    assert same(floats(half), floats(half.float()))
    with pytest.raises(TypeError, match=r"requires gradients.*detach\(\)"):
        floats(x.requires_grad_())
    assert same(floats(x.detach()), floats(x.detach().numpy()))
    with pytest.raises(TypeError, match="sparse|layout|DLPack"):
        floats(torch.zeros(2, 5, 3).to_sparse())


def test_outputs_are_arrays_of_their_own(floats, silero):
    x = x_of()
    first, second = floats(x), floats(x)
    for y in first:
        assert type(y) is np.ndarray and y.dtype == np.float32
        assert y.flags.owndata or type(y.base) is np.ndarray
        assert y.flags.writeable and y.flags.c_contiguous and y.flags.aligned
        assert not np.shares_memory(y, x)
    assert not any(np.shares_memory(a, b) for a in first for b in second)
    kept = [y.copy() for y in second]
    for y in first:
        y[:] = 7
    assert same(second, kept) and same(floats(x), kept)
    # They live longer than the model.
    model = recurve.load(FIT / "outputs.keras", device="cpu")
    alone = model(x)
    del model
    assert same(alone, kept)
    # A state that is passed through, and the one that comes back, are not the same memory.
    inputs = silero_inputs()
    outputs = silero.run(inputs)
    assert not any(np.shares_memory(y, x) for y in outputs.values() for x in inputs.values())
    back = np.from_dlpack(first[0])
    assert np.shares_memory(back, first[0])


def test_arrays_are_given_back_as_they_were(floats):
    x = x_of()
    floats(x)
    assert x.flags.writeable
    x[0] = 0
    x.flags.writeable = False
    floats(x)
    assert not x.flags.writeable
    # Also after an error, and where one array is two inputs or several calls use it.
    y = x_of((2, 5, 4))
    with pytest.raises(ValueError):
        floats(y)
    assert y.flags.writeable
    z = x_of()
    with pytest.raises(ValueError):
        floats.run({"nothing": z})
    assert z.flags.writeable


def test_huge_numbers_and_numbers_that_are_none(floats):
    x = x_of()
    for value in (np.inf, -np.inf, 1e300):
        given = x.astype(np.float64)
        given[1, 2, 1] = value
        with np.errstate(over="ignore"):
            wanted = floats(given.astype(np.float32))
        # numpy warns of what becomes infinite.
        with np.errstate(over="ignore"):
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(floats(given), wanted))
    x[1, 2, 1] = np.nan
    first, second = floats(x)
    clean = floats(x_of())
    # NaN stays NaN, in its own sequence.
    assert np.isnan(first[1]).all() and np.array_equal(first[0], clean[0][0])
    assert np.isnan(second[1]).any() and np.array_equal(second[0], clean[1][0])


# What is refused


BAD = [
    (TypeError, np.full((2, 5, 3), None, object), "object"),
    (TypeError, np.full((2, 5, 3), "a"), "<U1"),
    (TypeError, np.full((2, 5, 3), b"a"), "S1"),
    (TypeError, np.zeros((2, 5, 3), complex), "complex128"),
    (TypeError, np.zeros((2, 5, 3), "M8[s]"), r"datetime64\[s\]"),
    (TypeError, np.zeros((2, 5, 3), "m8[s]"), r"timedelta64\[s\]"),
    (TypeError, np.zeros((2, 5, 3), [("a", "f4")]), "a"),
    (TypeError, np.ma.masked_less(x_of(), 0), r"masked array.*filled"),
    (TypeError, "text", "text|<U4"),
    (TypeError, None, "None|object"),
    (TypeError, object(), "object"),
    (TypeError, {1, 2}, "set"),
    (TypeError, [[["a"]]], "<U1"),
    (TypeError, OnlyDlpack(x_of(), (2, 0)), r"CUDA.*cpu\(\)"),
    (ValueError, [[[1.0, 2.0, 3.0], [1.0]]], "inhomogeneous"),
    (ValueError, np.zeros((0, 5, 3), np.float32), r"empty.*\(0, 5, 3\)"),
    (ValueError, np.zeros((2, 0, 3), np.float32), r"empty.*\(2, 0, 3\)"),
    (ValueError, [], "empty"),
]


@pytest.mark.parametrize("n", range(len(BAD)))
def test_what_is_no_array_of_numbers_is_refused(floats, n):
    error, value, text = BAD[n]
    name = floats.inputs[0].name
    with pytest.raises(error, match=text) as caught:
        floats(value)
    assert f"`{name}`" in str(caught.value)
    assert same(floats(x_of()), floats(x_of()))


@pytest.mark.parametrize(
    "value",
    [np.zeros((2, 5, 4), np.float32), np.zeros((5, 3)), np.zeros((1, 2, 5, 3), np.float32), np.float32(1), [[1, 2, 3]]],
)
def test_shapes_say_expected_and_got(floats, value):
    got = re.escape(str(list(np.shape(value))))
    with pytest.raises(ValueError, match=rf"must be \[batch, timesteps, features\] = \(None, None, 3\), .*{got}"):
        floats(value)


def test_ids_that_are_refused(ids):
    with pytest.raises(TypeError, match="float64"):
        ids(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="-1"):
        ids(np.array([[1, -1]]))
    with pytest.raises(ValueError, match="5000"):
        ids(np.array([[1, 5000]]))
    for most in (np.uint64(2**64 - 1), np.int64(2**62)):
        with pytest.raises(ValueError, match=str(most)):
            ids(np.array([[1, most]], most.dtype))
    with pytest.raises(TypeError, match="complex"):
        ids(np.zeros((2, 3), complex))


def test_names_that_are_refused(floats, silero):
    x = x_of()
    name = floats.inputs[0].name
    with pytest.raises(ValueError, match=f"`nothing`.*`{name}`"):
        floats.run({"nothing": x})
    with pytest.raises(ValueError, match="`more`"):
        floats.run({name: x, "more": x})
    with pytest.raises(ValueError, match=f"`{name}`"):
        floats.run({})
    with pytest.raises(TypeError, match="int"):
        floats.run({3: x})
    with pytest.raises((TypeError, ValueError)):
        floats.run(x)
    with pytest.raises(TypeError, match="1 input.*2 were given"):
        floats(x, x)
    with pytest.raises(TypeError, match="twice"):
        floats(x, **{name: x})
    inputs = silero_inputs()
    with pytest.raises(ValueError, match="`state`.*missing"):
        silero.run({"input": inputs["input"], "sr": inputs["sr"]})
    # Expected and got, with the symbols of the file.
    with pytest.raises(ValueError, match=r"`state`.*2.*batch.*128.*\b3\b"):
        silero.run(inputs | {"state": np.zeros((3, 1, 128), np.float32)})
    with pytest.raises(ValueError, match="`input`"):
        silero.run(inputs | {"input": np.zeros(576, np.float32)})
    with pytest.raises(ValueError, match="batch"):
        silero.run(inputs | {"state": np.zeros((2, 4, 128), np.float32)})
    assert silero.run(inputs)["output"].shape == (1, 1)


def test_an_array_that_asks_for_too_much(floats):
    """A broadcast array of 2⁵⁰ elements is no memory; the copy of it would be."""
    huge = np.broadcast_to(np.float32(1), (2**20, 2**30, 3))
    with pytest.raises(MemoryError):
        floats(huge)
    assert len(floats(x_of())) == 2


# Models and sessions


def test_pickles_and_copies_of_models(floats, silero):
    x, inputs = x_of(), silero_inputs()
    for copied in (pickle.loads(pickle.dumps(floats)), copy.copy(floats), copy.deepcopy(floats)):
        assert copied is not floats and type(copied) is recurve.Model
        assert same(copied(x), floats(x)) and copied.inputs == floats.inputs
        assert copied.device.backend == "cpu"
    for copied in (pickle.loads(pickle.dumps(silero)), copy.deepcopy(silero)):
        assert np.array_equal(copied.run(inputs)["output"], silero.run(inputs)["output"])
    text = pickle.dumps(floats)
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
        pickle.loads(text[: len(text) // 2])


def test_what_is_on_a_device_is_not_pickled(floats, silero):
    for value in (recurve.Device("cpu"), silero.session(), floats._runner):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(value)


def test_sessions_that_are_closed(silero):
    inputs = silero_inputs()
    del inputs["state"]
    with silero.session() as session:
        first = session.run(inputs)
        second = session.run(inputs)
        assert not np.array_equal(first["output"], second["output"])
        session.reset()
        assert np.array_equal(session.run(inputs)["output"], first["output"])
        assert not session.closed
    assert session.closed
    for call in (lambda: session.run(inputs), session.reset, lambda: session.state("state"), lambda: session.states):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    session.close()
    with pytest.raises(RuntimeError, match="closed"), session:
        session.run(inputs)
    with pytest.raises(ValueError, match="batch"):
        silero.session(batch=0)


def test_as_numpy_takes_as_it_says():
    x = x_of()
    assert as_numpy(x, "x") is x
    with warnings.catch_warnings():
        # numpy advises against its own class.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        plain = as_numpy(np.matrix([[1.0]]), "x")
    assert type(plain) is np.ndarray and plain.shape == (1, 1)
    assert np.shares_memory(as_numpy(OnlyDlpack(x), "x"), x)
    with pytest.raises(TypeError, match="`x` is on a device of kind 99"):
        as_numpy(OnlyDlpack(x, (99, 0)), "x")
