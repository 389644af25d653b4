"""Models from files: their numbers, their inputs and outputs, sessions, devices, copies."""

from __future__ import annotations

import copy
import pickle
import wave
from pathlib import Path

import numpy as np
import pytest

import recurve


@pytest.fixture(scope="module")
def silero(models: Path) -> recurve.Model:
    return recurve.load(models / "silero_vad.onnx", device="cpu")


@pytest.fixture(scope="module")
def sentiment(models: Path) -> recurve.Model:
    return recurve.load(models / "sentiment.safetensors", device="cpu")


def recording(models: Path) -> np.ndarray:
    with wave.open(str(models / "noisy_speech.wav")) as f:
        return np.frombuffer(f.readframes(f.getnframes()), "<i2").astype(np.float32) / 32768


def frames(samples: np.ndarray) -> list[np.ndarray]:
    """Calls of 512 samples behind 64 of the call before, as silero-vad takes them."""
    padded = np.concatenate([np.zeros(64, np.float32), samples, np.zeros(-len(samples) % 512, np.float32)])
    return [padded[None, n : n + 576] for n in range(0, len(padded) - 64, 512)]


def test_a_session_gives_onnx_runtimes_numbers(silero: recurve.Model, models: Path, audio: dict[str, np.ndarray]) -> None:
    want = audio["probabilities"]
    with silero.session() as session:
        assert session.states == ["state"]
        for _ in range(2):
            got = [session.run({"input": x, "sr": 16_000})["output"] for x in frames(recording(models))]
            assert all(y.shape == (1, 1) and y.dtype == np.float32 for y in got)
            np.testing.assert_allclose(np.concatenate(got)[:, 0], want, rtol=0, atol=2e-5)
            assert session.state("state").shape == (2, 1, 128)
            assert np.abs(session.state("stateN")).max() > 0.1
            session.reset()
            assert not session.state("state").any()
    # One changed frame is another result.
    with silero.session() as session:
        other = [session.run({"input": x / 8, "sr": 16_000})["output"][0, 0] for x in frames(recording(models))]
    assert np.abs(np.array(other) - want).max() > 1e-2


def test_states_by_hand_are_those_of_a_session(silero: recurve.Model, models: Path) -> None:
    state = np.zeros((2, 1, 128), np.float32)
    with silero.session() as session:
        for x in frames(recording(models))[:10]:
            outputs = silero.run({"input": x, "sr": np.int64(16_000), "state": state})
            assert list(outputs) == ["output", "stateN"]
            state = outputs["stateN"]
            np.testing.assert_array_equal(session.run({"input": x, "sr": 16_000})["output"], outputs["output"])
        session.set_state("state", np.zeros((2, 1, 128)))
        assert not session.state("stateN").any()
        with pytest.raises(ValueError, match=r"`sound`: is no state of this session; its states are state"):
            session.state("sound")
        with pytest.raises(ValueError, match=r"`state`: must be f32\[2, batch, 128\]|`state`: must be"):
            session.set_state("state", np.zeros((2, 128)))


def test_a_session_of_several_states(models: Path, audio: dict[str, np.ndarray]) -> None:
    model = recurve.load(models / "gtcrn.onnx", device="cpu")
    assert [v.name for v in model.inputs] == ["mix", "conv_cache", "tra_cache", "inter_cache"]
    assert model.inputs[0] == ("mix", (1, 257, 1, 2), "float32")
    with model.session() as session:
        got = [session.run({"mix": x})["enh"] for x in audio["frames"]]
    np.testing.assert_allclose(got, audio["enhanced"], rtol=0, atol=2e-5)
    with model.session(states={"conv_cache": "conv_cache_out"}) as session:
        assert session.states == ["conv_cache"]
        with pytest.raises(ValueError, match="`tra_cache`: is missing"):
            session.run({"mix": audio["frames"][0]})
    with pytest.raises(ValueError, match="`mix`: cannot come from `x`"):
        model.session(states={"mix": "x"})
    for batch in (0, -1):
        with pytest.raises(ValueError, match=f"`batch` must be at least 1, but it is {batch}"):
            model.session(batch=batch)
    with pytest.raises(TypeError, match="`states` must be a mapping from inputs to outputs, but it is a list"):
        model.session(states=["conv_cache"])  # type: ignore[arg-type]
    for inputs in (None, "mix", [audio["frames"][0]]):
        with pytest.raises(TypeError, match="`inputs` must be arrays by name .`mix`, `conv_cache`, .* but it is a "):
            model.run(inputs)  # type: ignore[arg-type]


def test_what_a_model_says_of_itself(silero: recurve.Model, sentiment: recurve.Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert [tuple(v) for v in silero.inputs] == [
        ("input", ("batch", "sequence"), "float32"),
        ("state", (2, "batch", 128), "float32"),
        ("sr", (), "int64"),
    ]
    assert [v.name for v in silero.outputs] == ["output", "stateN"]
    assert silero.name == "silero_vad" and "silero_vad" in repr(silero) and str(silero.device) in repr(silero)
    assert any("LSTM" in line for line in silero.explain())
    assert [tuple(v) for v in sentiment.inputs] == [("tokens", (None, None), "uint32")]
    assert [tuple(v) for v in sentiment.outputs] == [("probability", (None, 1), "float32")]
    sentiment.summary()
    text = capsys.readouterr().out
    assert "Total params" in text and text.rstrip("\n") == sentiment.summary_text()
    assert "state   state <- stateN" in silero.summary_text()


def test_calls_by_place_and_by_name(sentiment: recurve.Model, silero: recurve.Model) -> None:
    ids = [[1, 2, 3, 0], [4, 5, 0, 0]]
    y = sentiment(ids)
    assert y.shape == (2, 1) and y.flags.owndata and y.flags.writeable
    np.testing.assert_array_equal(sentiment(tokens=ids), y)
    np.testing.assert_array_equal(sentiment({"tokens": ids}), y)
    np.testing.assert_array_equal(sentiment.run({"tokens": np.array(ids, np.uint8)})["probability"], y)
    np.testing.assert_array_equal(sentiment(ids, mask=np.array(ids) != 0), y)
    # Its embedding makes a mask of the ids already.
    with pytest.raises(ValueError, match="`mask` cannot be given together with lengths"):
        sentiment(ids, lengths=[3, 2])
    x, state = np.ones((1, 576), np.float32), np.zeros((2, 1, 128), np.float32)
    output, state_out = silero(x, state, 16_000)
    assert (output.shape, state_out.shape) == ((1, 1), (2, 1, 128))
    np.testing.assert_array_equal(silero([x, state, 16_000])[0], output)
    with pytest.raises(TypeError, match="has 1 inputs .`tokens`., but 2 were given"):
        sentiment(ids, ids)
    with pytest.raises(TypeError, match="input `tokens` is given twice"):
        sentiment(ids, tokens=ids)


def test_a_session_of_a_network_goes_on_where_a_call_ended(models: Path) -> None:
    stars = recurve.load(models / "stars.safetensors", device="cpu")
    ids = np.arange(12).reshape(2, 6) % 26
    whole = stars(ids)
    with stars.session() as session:
        assert session.states == []
        parts = [session.run({"tokens": ids[:, n : n + 2]})["logits"] for n in (0, 2, 4)]
        assert session.states[0] == "0.h" and session.state("0.h").shape == (1, 2, 64)
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=1e-5)
        session.reset()
        np.testing.assert_array_equal(session.run({"tokens": ids[:, :2]})["logits"], parts[0])
        with pytest.raises(ValueError, match="its states are `0.h`"):
            session.state("h")
        with pytest.raises(ValueError, match="can be read and reset, but not set"):
            session.set_state("0.h", np.zeros((1, 2, 64)))
    with pytest.raises(ValueError, match="`states`: names the states of an ONNX file"):
        stars.session(states={"a": "b"})
    # What reads sequences backwards cannot go on.
    with pytest.raises(ValueError, match="bidirectional|backwards|single timesteps"):
        recurve.load(models / "g2pm.safetensors", device="cpu").session()


def test_closed_sessions(silero: recurve.Model) -> None:
    session = silero.session()
    assert not session.closed
    session.close()
    session.close()
    assert session.closed
    for call in (
        lambda: session.run({"input": np.ones((1, 576)), "sr": 16_000}),
        lambda: session.state("state"),
        lambda: session.states,
        session.reset,
    ):
        with pytest.raises(RuntimeError, match="the session is closed"):
            call()


def test_copies_and_pickles(silero: recurve.Model, sentiment: recurve.Model) -> None:
    ids = [[1, 2, 3], [4, 5, 6]]
    for copied in (pickle.loads(pickle.dumps(sentiment)), copy.copy(sentiment), copy.deepcopy(sentiment)):
        assert type(copied) is recurve.Model and copied.name == sentiment.name
        assert copied.device.selector == "cpu"
        np.testing.assert_array_equal(copied(ids), sentiment(ids))
    x, state = np.ones((1, 576), np.float32), np.zeros((2, 1, 128), np.float32)
    copied = pickle.loads(pickle.dumps(silero))
    np.testing.assert_array_equal(copied(x, state, 16_000)[0], silero(x, state, 16_000)[0])
    # A copy of a copy has no file.
    again = pickle.loads(pickle.dumps(copied))
    np.testing.assert_array_equal(again(x, state, 16_000)[0], silero(x, state, 16_000)[0])
    for value, words in [(silero.device, "a device cannot be pickled"), (silero.session(), "a session cannot be pickled")]:
        with pytest.raises(TypeError, match=words):
            pickle.dumps(value)
        with pytest.raises(TypeError, match=words):
            copy.copy(value)


def test_files_are_written_and_opened_again(sentiment: recurve.Model, silero: recurve.Model, tmp_path: Path) -> None:
    ids = [[1, 2, 3], [4, 5, 6]]
    for name in ("m.safetensors", "m.onnx"):
        sentiment.save(tmp_path / name)
        opened = recurve.load(tmp_path / name, device="cpu")
        np.testing.assert_allclose(opened(ids), sentiment(ids), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"m\.bin: a model is written to a file that ends in"):
        sentiment.save(tmp_path / "m.bin")
    with pytest.raises(TypeError, match="the graph of an ONNX file, which has no layers"):
        silero.save(tmp_path / "m.safetensors")
    with pytest.raises(OSError, match="No such file"):
        sentiment.save(tmp_path / "none" / "m.safetensors")


def test_files_that_are_not_models(tmp_path: Path, models: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx: No such file"):
        recurve.load(tmp_path / "missing.onnx")
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        recurve.load(tmp_path / "missing.keras")
    for name in ("m.onnx", "m.safetensors", "m.keras"):
        (tmp_path / name).write_bytes(b"no model at all, but some bytes")
        with pytest.raises(ValueError, match=name):
            recurve.load(tmp_path / name, device="cpu")
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=name):
            recurve.load(tmp_path / name, device="cpu")
    cut = (models / "silero_vad.onnx").read_bytes()[:-1000]
    (tmp_path / "cut.onnx").write_bytes(cut)
    with pytest.raises(ValueError, match=r"cut\.onnx"):
        recurve.load(tmp_path / "cut.onnx", device="cpu")
    with pytest.raises(TypeError):
        recurve.load(3)  # type: ignore[arg-type]


def test_devices(sentiment: recurve.Model) -> None:
    found = recurve.devices()
    assert found[0].backend == "cpu" and found[0].selector == "cpu"
    assert all(a.name and a.kind and isinstance(a.float16, bool) for a in found)
    # A software adapter is on no bus.
    assert all(a.pci is None for a in found if a.kind in ("CPU", "software"))
    for selector, words in [
        ("gpu:no such name", "no device matches"),
        ("tpu", "`tpu` is not one of auto, cpu"),
        ("pci:FFFF:ff:1f.7", "no device matches `pci:ffff:ff:1f.7`"),
        ("pci:65", "is not of the form 0000:65:00.0"),
    ]:
        with pytest.raises(ValueError, match=words):
            recurve.Device(selector)
        with pytest.raises(ValueError, match=words):
            sentiment.to(selector)
    with pytest.raises(TypeError, match="`device` must be a text such as"):
        sentiment.to(3)  # type: ignore[arg-type]
    moved = sentiment.to(recurve.Device("cpu"))
    np.testing.assert_array_equal(moved([[1, 2]]), sentiment([[1, 2]]))


@pytest.mark.parametrize("name", ["sentiment.safetensors", "silero_vad.onnx"])
def test_a_gpu_gives_the_numbers_of_the_cpu(models: Path, name: str) -> None:
    adapters = [a for a in recurve.devices() if a.backend != "cpu"]
    if not adapters:
        pytest.fail("there is no adapter; `cargo xtask setup` installs Mesa's software adapter")
    cpu = recurve.load(models / name, device="cpu")
    gpu = cpu.to(adapters[0].selector)
    assert gpu.device.backend == adapters[0].backend
    random = np.random.default_rng(7)
    if name == "sentiment.safetensors":
        inputs = {"tokens": random.integers(1, 16, (3, 9))}
    else:
        inputs = {"input": random.standard_normal((2, 576)).astype(np.float32), "sr": 16_000}
        inputs["state"] = np.zeros((2, 2, 128), np.float32)
    for (_, want), (_, got) in zip(cpu.run(inputs).items(), gpu.run(inputs).items()):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    again = pickle.loads(pickle.dumps(gpu))
    assert again.device.backend == gpu.device.backend


def test_a_vocabulary_reads_text(models: Path) -> None:
    g2pm = recurve.load(models / "g2pm.safetensors", device="cpu")
    readings = g2pm.read_text("然而，他红了20年以后，他竟退出了大家的视线。")
    assert ("的", "de5") in [(c, label) for _, c, label in readings]
    with pytest.raises(ValueError, match="has no vocabulary"):
        recurve.load(models / "sentiment.safetensors", device="cpu").read_text("text")
