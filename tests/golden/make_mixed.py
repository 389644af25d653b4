#!/usr/bin/env python3
"""Loss scales step by step by PyTorch's GradScaler and Keras's LossScaleOptimizer, weights of SGD with momentum and of
Adam whose steps they skip with the states of the latter, and losses of Keras's `mixed_float16` and PyTorch's `autocast`:
fixtures/mixed.json. A network of Keras whose weights, but those of normalizations, are rounded to f16, with averages and
a schedule, over steps of which some overflow: fixtures/mixed_before.keras, mixed_after.keras, mixed_average.keras.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_mixed.py
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch

# Whether the gradients of a step overflow.
bad = [bool(int(c)) for c in "11000000100100010000000001100000"]
cases = []


def recorded(framework, initial, interval, scales):
    cases.append({"framework": framework, "initial": initial, "interval": interval, "bad": bad, "scales": scales})


for initial, interval in [(65536.0, 3), (4.0, 1), (1024.0, 5), (2.0**126, 2)]:
    scaler = torch.amp.GradScaler("cpu", init_scale=initial, growth_interval=interval)
    w = torch.zeros(1, requires_grad=True)
    opt = torch.optim.SGD([w], lr=0.1)
    scales = []
    for b in bad:
        opt.zero_grad()
        scaler.scale(w * 1.0).backward()
        if b:
            w.grad.fill_(float("inf"))
        scaler.step(opt)
        scaler.update()
        scales.append(scaler.get_scale())
    recorded("pytorch", initial, interval, scales)

for initial, interval in [(32768.0, 3), (1024.0, 5)]:
    w = keras.Variable(np.zeros(1, np.float32))
    opt = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=initial, dynamic_growth_steps=interval)
    opt.build([w])
    scales = []
    for b in bad:
        g = torch.full((1,), float("inf") if b else 1.0)
        opt.apply([g], [w])
        scales.append(float(opt.dynamic_scale.numpy()))
    recorded("keras", initial, interval, scales)

# One weight w with the loss (w x)², whose gradient is 2 w x². Where x is 1e20, it overflows.
weights = []
for name, make in [("sgd", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
                   ("adam", lambda p: torch.optim.Adam(p, lr=0.05))]:
    w = torch.tensor([1.5], requires_grad=True)
    opt = make([w])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    seen = []
    for b in bad:
        opt.zero_grad()
        x = torch.tensor([1e20 if b else 0.5])
        # As autocast: what is computed from an f16 copy, with an f16 gradient of that copy.
        copy = w.detach().half().float().requires_grad_()
        scaler.scale(((copy * x) ** 2).sum()).backward()
        w.grad = copy.grad.half().float()
        scaler.step(opt)
        scaler.update()
        seen.append(w.item())
    state = opt.state[w]
    states = [state[k].item() for k in ("momentum_buffer", "exp_avg", "exp_avg_sq") if k in state]
    steps = int(state["step"].item()) if "step" in state else sum(not b for b in bad)
    weights.append({"optimizer": name, "weights": seen, "states": states, "steps": steps})



def stack():
    layers = keras.layers
    return [layers.Input((None, 3)), layers.BatchNormalization(momentum=0.8), layers.LSTM(4, return_sequences=True),
            layers.LayerNormalization(), layers.GRU(3), layers.Dense(2)]


def network(r):
    """A network of Keras in f32 of which everything but the rounding and the scale is Keras's."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(stack())
    for v in model.variables:
        if "normalization" in v.path:
            v.assign(v.numpy() + r.uniform(0.01, 0.4, v.shape).astype("float32"))
    model.save("fixtures/mixed_before.keras")
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.7)
    # Numbers that f32 has, because Keras computes 1 - beta^t in f32.
    inner = keras.optimizers.Adam(rate, beta_1=0.875, beta_2=0.984375, global_clipnorm=0.5, use_ema=True, ema_momentum=0.7)
    opt = keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**14, dynamic_growth_steps=3)
    opt.build(model.trainable_variables)
    x = r.standard_normal((5, 6, 3)).astype("float32")
    y = r.standard_normal((5, 2)).astype("float32")
    overflows = [bool(int(c)) for c in "100010011000"]
    losses, scales = [], []
    for b in overflows:
        trained, others = model.trainable_variables, model.non_trainable_variables
        rounds = ["normalization" not in v.path for v in trained]
        copies = [v.value.detach().clone() for v in trained]
        copies = [(c.half().float() if r else c).requires_grad_() for c, r in zip(copies, rounds)]
        out, moved = model.stateless_call(copies, [v.value for v in others], x, training=True)
        loss = keras.losses.MeanSquaredError()(y * (1e12 if b else 1.0), out)
        opt.scale_loss(loss).backward()
        grads = [c.grad.half().float() if r else c.grad for c, r in zip(copies, rounds)]
        opt.apply(grads, trained)
        for v, new in zip(others, moved):
            v.assign(new)
        losses.append(float(loss))
        scales.append(float(opt.dynamic_scale.numpy()))
    steps = int(opt.iterations.numpy())
    model.save("fixtures/mixed_after.keras")
    opt.finalize_variable_values(model.trainable_variables)
    model.save("fixtures/mixed_average.keras")
    return {"x": x.ravel().tolist(), "y": y.ravel().tolist(), "bad": overflows, "losses": losses, "scales": scales,
            "steps": steps}


def policy(x, y):
    """Losses of Keras's mixed_float16 with the same network, and of f32."""
    before = keras.models.load_model("fixtures/mixed_before.keras", compile=False).get_weights()
    found = {}
    for name in ["mixed_float16", "float32"]:
        keras.config.set_dtype_policy(name)
        model = keras.Sequential(stack())
        model.set_weights(before)
        model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mean_squared_error")
        found[name] = []
        for _ in range(10):
            found[name].append(float(model.train_on_batch(x, y)))
            model.reset_metrics()
    keras.config.set_dtype_policy("float32")
    return found


def autocast(x, y):
    """Losses of PyTorch's autocast to f16 with a GradScaler, and of f32, of a linear layer and a tanh before another."""
    found = {}
    for name in ["mixed", "plain"]:
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        if name == "mixed":
            found["weights"] = {k: v.ravel().tolist() for k, v in net.state_dict().items()}
        opt = torch.optim.Adam(net.parameters(), lr=0.02)
        scaler = torch.amp.GradScaler("cpu", enabled=name == "mixed")
        found[name] = []
        for _ in range(10):
            opt.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16, enabled=name == "mixed"):
                out = net(torch.tensor(x))
            assert (out.dtype == torch.float16) == (name == "mixed")
            loss = ((out.float() - torch.tensor(y)) ** 2).mean()
            scaler.scale(loss).backward()
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
            scaler.step(opt)
            scaler.update()
            found[name].append(loss.item())
    return found


kerass = network(np.random.default_rng(3))
shape = np.array(kerass["x"], "float32").reshape(5, 6, 3), np.array(kerass["y"], "float32").reshape(5, 2)
everything = {"scales": cases, "weights": weights, "network": kerass, "policy": policy(*shape),
              "autocast": autocast(*shape)}
with open("fixtures/mixed.json", "w") as f:
    json.dump(everything, f, separators=(",", ":"))
    f.write("\n")
print(len(cases), "sequences;", kerass["losses"], kerass["scales"], kerass["steps"], everything["policy"],
      everything["autocast"]["mixed"], everything["autocast"]["plain"])
