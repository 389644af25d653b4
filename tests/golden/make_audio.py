"""make_audio.py OUT.npz: what ONNX Runtime makes of models/gtcrn.onnx, models/silero_vad.onnx and the two models of DTLN
over models/noisy_speech.wav, float32, one call a frame with the states fed back. Run in the project's folder, with
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

# DTLN: frames of 512 samples, 128 apart, the first one with 384 zeros before the recording. The first model gives a mask
# of the magnitudes, the second one filters the samples that it makes.
a, b = session("dtln_1.onnx"), session("dtln_2.onnx")
h1, h2 = np.zeros((1, 2, 128, 2), np.float32), np.zeros((1, 2, 128, 2), np.float32)
frame, late = np.zeros(512, np.float32), np.zeros(512, np.float32)
log = {k: [] for k in ("magnitude", "mask", "block", "filtered")}
heard = []
for k in range(len(x) // 128):
    frame = np.concatenate([frame[128:], x[k * 128:(k + 1) * 128]])
    f = np.fft.rfft(frame)
    magnitude = np.abs(f).astype(np.float32)[None, None]
    mask, h1 = a.run(["activation_2", "tf_op_layer_stack_2"], {"input_2": magnitude, "input_3": h1})
    block = np.fft.irfft(f * mask[0, 0]).astype(np.float32)[None, None]
    filtered, h2 = b.run(["conv1d_3", "tf_op_layer_stack_5"], {"input_4": block, "input_5": h2})
    late = np.concatenate([late[128:], np.zeros(128, np.float32)]) + filtered.reshape(-1)
    heard.append(late[:128])
    if k < 24:
        for key, v in zip(log, (magnitude, mask, block, filtered)):
            log[key].append(v.reshape(-1))
dtln = {f"dtln_{k}": np.array(v) for k, v in log.items()}
dtln["dtln_states"] = np.stack([h1[0], h2[0]])
# 16 bits a sample, as a file has them.
dtln["dtln_wave"] = np.clip(np.rint(np.concatenate(heard) * 32768), -32768, 32767).astype(np.int16)
np.savez_compressed(sys.argv[1], frames=np.array(frames), enhanced=np.array(enhanced), wave=out[256:256 + len(x)].astype(np.float16),
                    probabilities=np.array(probabilities, np.float32), **dtln)
