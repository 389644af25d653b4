"""make_audio.py OUT.npz: what ONNX Runtime makes of models/gtcrn.onnx and models/silero_vad.onnx over
models/noisy_speech.wav, float32, one call a frame with the states fed back. Run in the project's folder, with
onnxruntime 1.32 and numpy."""
import sys, wave
import numpy as np, onnxruntime as ort

w = wave.open("models/noisy_speech.wav")
x = np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float32) / 32768
session = lambda f: ort.InferenceSession(f"models/{f}", providers=["CPUExecutionProvider"])

# GTCRN: frames of 512 samples, 256 apart, through the square root of a periodic Hann window; [1, 257, 1, 2].
g, window = session("gtcrn.onnx"), np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)).astype(np.float32)
padded = np.pad(x, (256, 256), mode="reflect")
caches = {i.name: np.zeros(i.shape, np.float32) for i in g.get_inputs() if i.name != "mix"}
out, frames, enhanced = np.zeros(len(padded), np.float32), [], []
for k in range(1 + (len(padded) - 512) // 256):
    f = np.fft.rfft(padded[k * 256:k * 256 + 512] * window)
    mix = np.stack([f.real, f.imag], -1).astype(np.float32)[None, :, None, :]
    y = dict(zip([o.name for o in g.get_outputs()], g.run(None, {"mix": mix, **caches})))
    caches = {n: y[f"{n}_out"] for n in caches}
    if k < 24:
        frames.append(mix), enhanced.append(y["enh"])
    out[k * 256:k * 256 + 512] += np.fft.irfft(y["enh"][0, :, 0, 0] + 1j * y["enh"][0, :, 0, 1]).astype(np.float32) * window

# silero-vad: 512 samples after 64 of context; [1, 576].
s = session("silero_vad.onnx")
state, before, probabilities = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
for k in range(0, len(x), 512):
    part = np.pad(x[k:k + 512], (0, max(0, k + 512 - len(x))))
    p, state = s.run(["output", "stateN"], {"input": np.concatenate([before, part])[None], "state": state, "sr": np.array(16000)})
    before = part[-64:]
    probabilities.append(p[0, 0])
np.savez_compressed(sys.argv[1], frames=np.array(frames), enhanced=np.array(enhanced), wave=out[256:256 + len(x)].astype(np.float16),
                    probabilities=np.array(probabilities, np.float32))
