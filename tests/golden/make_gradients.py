"""Gradients of PyTorch's recurrent layers: writes fixtures/gradients.safetensors.

One layer in one direction or both, with sequences of different lengths (packed), initial states and projections. The
loss is the sum of all results times random weights. Everything is computed in float64 from inputs that are f32 numbers.

    python3 tests/golden/make_gradients.py
"""

import pathlib

import torch
from safetensors.torch import save_file

torch.manual_seed(12)
B, T, I, H = 3, 4, 3, 5
KINDS = {
    "lstm": lambda bi: torch.nn.LSTM(I, H, batch_first=True, bidirectional=bi),
    "lstm_projection": lambda bi: torch.nn.LSTM(I, H, batch_first=True, bidirectional=bi, proj_size=2),
    "gru": lambda bi: torch.nn.GRU(I, H, batch_first=True, bidirectional=bi),
    "rnn_tanh": lambda bi: torch.nn.RNN(I, H, batch_first=True, bidirectional=bi),
    "rnn_relu": lambda bi: torch.nn.RNN(I, H, batch_first=True, bidirectional=bi, nonlinearity="relu"),
}
# Name, both directions, lengths, initial states.
FORMS = [
    ("plain", False, False, False),
    ("states", False, False, True),
    ("lengths", False, True, False),
    ("both", True, False, True),
    ("both_lengths", True, True, True),
]
WEIGHTS = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "w_hr": "weight_hr"}


def random(*shape):
    return torch.randn(*shape).double()


arrays = {}
for kind, make in KINDS.items():
    for form, both, with_lengths, with_states in FORMS:
        layer = make(both).double()
        for p in layer.parameters():
            p.data = p.data.float().double()
        d, w = 1 + both, 2 if kind == "lstm_projection" else H
        x = random(B, T, I).requires_grad_()
        h0 = random(d, B, w).requires_grad_()
        c0 = random(d, B, H).requires_grad_() if kind.startswith("lstm") else None
        states = None
        if with_states:
            states = h0 if c0 is None else (h0, c0)
        lengths = torch.tensor([2, 4, 1]) if with_lengths else None
        if lengths is None:
            y, last = layer(x, states)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, last = layer(packed, states)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
        h, c = last if isinstance(last, tuple) else (last, None)
        results = {"y": y, "h": h} | ({} if c is None else {"c": c})
        by = {name: random(*r.shape) for name, r in results.items()}
        sum((by[name] * r).sum() for name, r in results.items()).backward()

        case = {"in.x": x, "in.size": torch.tensor([B, T, I, H, d, w])}
        if lengths is not None:
            case["in.lengths"] = lengths
        if with_states:
            case |= {"in.h0": h0, "out.h0": h0.grad}
            if c0 is not None:
                case |= {"in.c0": c0, "out.c0": c0.grad}
        for name, r in results.items():
            case |= {f"out.{name}": r, f"in.d{name}": by[name]}
        case["out.x"] = x.grad
        for n, end in enumerate(["", "_reverse"][:d]):
            for name, theirs in WEIGHTS.items():
                p = getattr(layer, f"{theirs}_l0{end}", None)
                if p is not None:
                    case |= {f"in.{name} {n}": p, f"out.{name} {n}": p.grad}
        for name, v in case.items():
            arrays[f"{kind}_{form}/{name}"] = v.detach().float().contiguous().clone()

target = pathlib.Path(__file__).parent.parent / "fixtures" / "gradients.safetensors"
save_file(arrays, target)
print(f"{len(KINDS) * len(FORMS)} cases, {target.stat().st_size} bytes")
