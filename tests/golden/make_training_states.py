"""States in training by PyTorch and Keras: writes fixtures/training_states.safetensors.

`states_*`: gradients of a loss by all weights, the input and the initial states of a network of two layers, with sequences
of different lengths (packed). `truncated_*`: a loop that takes a step for each piece of a long sequence and detaches the
states between them. `stateful`: steps of a Keras model whose layers are stateful, with a reset between them. Everything
is computed in float64 from numbers that are f32. Weights have Recurve's names.

    KERAS_BACKEND=torch python3 tests/golden/make_training_states.py
"""

import os
import pathlib

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from safetensors.torch import save_file

torch.manual_seed(21)
torch.set_default_dtype(torch.float64)
arrays = {}


def random(*shape):
    return torch.randn(*shape).float().double()


def store(case, values):
    for name, v in values.items():
        arrays[f"{case}/{name}"] = torch.as_tensor(v).detach().float().contiguous().clone()


def named(layer, dense):
    all = {f"layers.0.{n}": p for n, p in layer.named_parameters()}
    return all | {"layers.1.weight": dense.weight, "layers.1.bias": dense.bias}


def network(kind, i, h, out, both):
    layer = kind(i, h, num_layers=2, batch_first=True, bidirectional=both)
    dense = torch.nn.Linear(h * (1 + both), out)
    for p in [*layer.parameters(), *dense.parameters()]:
        p.data = p.data.float().double()
    return layer, dense


def states():
    b, t, i, h, out = 3, 5, 3, 4, 2
    for name, kind, both in [("lstm", torch.nn.LSTM, True), ("gru", torch.nn.GRU, False)]:
        layer, dense = network(kind, i, h, out, both)
        lengths = torch.tensor([2, 5, 3])
        x = random(b, t, i).requires_grad_()
        y = random(b, t, out)
        h0 = random(2 * (1 + both), b, h).requires_grad_()
        c0 = random(2 * (1 + both), b, h).requires_grad_() if name == "lstm" else None
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        o, last = layer(packed, h0 if c0 is None else (h0, c0))
        o, _ = torch.nn.utils.rnn.pad_packed_sequence(o, batch_first=True, total_length=t)
        last = last if isinstance(last, tuple) else (last,)
        # Padded timesteps do not count.
        valid = torch.arange(t)[None] < lengths[:, None]
        loss = torch.nn.functional.mse_loss(dense(o)[valid], y[valid])
        loss.backward()
        case = {"in.x": x, "in.y": y, "in.lengths": lengths, "in.h0": h0, "loss": loss.reshape(1), "g.x": x.grad}
        case |= {"g.h0": h0.grad} | dict(zip(["end.h", "end.c"], last))
        if c0 is not None:
            case |= {"in.c0": c0, "g.c0": c0.grad}
        for n, p in named(layer, dense).items():
            case |= {f"w.{n}": p, f"g.{n}": p.grad}
        store(f"states_{name}", case)


def truncated():
    b, t, i, h, out = 3, 23, 2, 5, 2
    adam = lambda p: torch.optim.Adam(p, lr=0.01)
    sgd = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)
    for name, kind, k, make in [("lstm", torch.nn.LSTM, 5, adam), ("gru", torch.nn.GRU, 7, sgd)]:
        layer, dense = network(kind, i, h, out, False)
        case = {f"w.{n}": p.clone() for n, p in named(layer, dense).items()}
        x, y = random(b, t, i), random(b, t, out)
        optimizer = make([*layer.parameters(), *dense.parameters()])
        state, losses = None, []
        for px, py in zip(x.split(k, 1), y.split(k, 1)):
            o, state = layer(px, state)
            loss = torch.nn.functional.mse_loss(dense(o), py)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
            losses.append(loss.item())
        last = state if isinstance(state, tuple) else (state,)
        case |= {"in.x": x, "in.y": y, "in.k": [k], "loss": losses} | dict(zip(["end.h", "end.c"], last))
        case |= {f"after.{n}": p for n, p in named(layer, dense).items()}
        store(f"truncated_{name}", case)


def keras_weights(lstm, rnn, dense):
    result = {}
    for n, layer in enumerate([lstm, rnn]):
        kernel, recurrent, bias = (w.numpy() for w in layer.cell.weights)
        result |= {f"layers.{n}.weight_ih_l0": kernel.T, f"layers.{n}.weight_hh_l0": recurrent.T}
        result |= {f"layers.{n}.bias_ih_l0": bias}
    kernel, bias = (w.numpy() for w in dense.weights)
    return result | {"layers.2.weight": kernel.T, "layers.2.bias": bias}


def stateful():
    # With `stateful=True` Keras assigns the state within the step, which its PyTorch backend then cannot differentiate.
    # So the states are inputs and outputs of the model, and zeros after a reset.
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(3)
    b, t, i, steps, reset = 3, 4, 2, 6, 4
    own = dict(return_sequences=True, return_state=True)
    parts = keras.layers.LSTM(4, **own), keras.layers.SimpleRNN(3, **own), keras.layers.Dense(2)
    inputs = [keras.Input((None, i))] + [keras.Input((n,)) for n in (4, 4, 3)]
    o, h, c = parts[0](inputs[0], initial_state=inputs[1:3])
    o, r = parts[1](o, initial_state=inputs[3:])
    model = keras.Model(inputs, [parts[2](o), h, c, r])
    for w in model.weights:
        w.assign(w.numpy().astype("float32").astype("float64"))
    case = {f"w.{n}": v.copy() for n, v in keras_weights(*parts).items()}
    model.compile(optimizer=keras.optimizers.RMSprop(0.01), loss=["mean_squared_error", None, None, None])
    x, y = random(steps, b, t, i), random(steps, b, t, 2)
    zeros = [np.zeros((b, n)) for n in (4, 4, 3)]
    state, losses = zeros, []
    for n in range(steps):
        given = [x[n].numpy(), *(zeros if n == reset else state)]
        state = [v.detach().numpy() for v in model(given)[1:]]
        result = model.train_on_batch(given, [y[n].numpy(), *zeros])
        losses.append(float(np.atleast_1d(result)[0]))
        model.reset_metrics()
    case |= {"in.x": x, "in.y": y, "in.reset": [reset], "loss": losses}
    case |= {f"after.{n}": v for n, v in keras_weights(*parts).items()}
    store("stateful", case)


states()
truncated()
stateful()
path = pathlib.Path(__file__).parent.parent / "fixtures" / "training_states.safetensors"
save_file(arrays, path)
print(len(arrays), path.stat().st_size)
