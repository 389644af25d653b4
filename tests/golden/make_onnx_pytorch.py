"""make_onnx_pytorch.py OUT: nn.RNN, nn.GRU and nn.LSTM by both of PyTorch's exporters (operator set 18), in one file.

Batch and time are open where the name does not say `baked`, and others are run than were exported, but where the new
exporter fixes the time all the same. Expected outputs are
PyTorch's own. What an exporter cannot do is left out and printed: projections in the old one, packed sequences in the
new one. The file is that of onnx_cases.py. Run with torch 2.15, onnx 1.23 and onnxscript 0.7."""
import io, sys, warnings

warnings.filterwarnings("ignore")
import onnx_cases
import torch
from onnx import load_from_string
from torch import nn

I, H, B, T = 3, 4, 2, 5
torch.manual_seed(12)
cases = []


class Layer(nn.Module):
    def __init__(self, kind, packed=False, **options):
        super().__init__()
        self.layer, self.packed = getattr(nn, kind)(I, H, **options), packed

    def forward(self, x, *states):
        first = self.layer.batch_first
        if self.packed:
            lengths, states = states[0], states[1:]
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        state = (states if self.layer.mode == "LSTM" else states[0]) if states else None
        y, last = self.layer(x, state)
        if self.packed:
            y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=first)
        return (y, *last) if isinstance(last, tuple) else (y, last)


CASES = {
    "rnn": ("RNN", {}),
    "rnn_relu_no_bias": ("RNN", dict(nonlinearity="relu", bias=False)),
    "gru": ("GRU", {}),
    "gru_stacked_bidirectional": ("GRU", dict(num_layers=2, bidirectional=True)),
    "gru_batch_first_states": ("GRU", dict(batch_first=True, states=True)),
    "lstm_batch_first": ("LSTM", dict(batch_first=True)),
    "lstm_stacked_states": ("LSTM", dict(num_layers=2, states=True)),
    "lstm_bidirectional_no_bias": ("LSTM", dict(bidirectional=True, bias=False, states=True)),
    "lstm_projected": ("LSTM", dict(proj_size=2)),
    "lstm_packed": ("LSTM", dict(packed=True, batch_first=True, bidirectional=True)),
    "gru_packed_stacked": ("GRU", dict(packed=True, num_layers=2)),
    "lstm_baked": ("LSTM", dict(baked=True, batch_first=True)),
}


def inputs(kind, options, b, t):
    first, layers = options.get("batch_first"), options.get("num_layers", 1)
    rows = layers * (2 if options.get("bidirectional") else 1)
    args = [torch.randn(b, t, I) if first else torch.randn(t, b, I)]
    if options.get("packed"):
        args.append(torch.tensor([t] + [max(1, t - 2 - n) for n in range(b - 1)]))
    if options.get("states"):
        args += [torch.randn(rows, b, H) for _ in range(2 if kind == "LSTM" else 1)]
    return args


def export(name, kind, options, dynamo):
    own = {k: v for k, v in options.items() if k not in ("states", "baked")}
    module = Layer(kind, **own).eval()
    args = tuple(inputs(kind, options, B, T))
    x_axes = {0: "batch", 1: "time"} if options.get("batch_first") else {0: "time", 1: "batch"}
    axes = [x_axes] + [{0: "batch"} if a.dtype == torch.int64 else {1: "batch"} for a in args[1:]]
    if options.get("baked"):
        axes = None
    if dynamo:
        dims = {n: torch.export.Dim(n) for n in ("batch", "time")}
        shapes = axes and [{k: dims[v] for k, v in a.items()} for a in axes]
        if shapes:
            shapes = (shapes[0], tuple(shapes[1:])) if len(shapes) > 1 else (shapes[0],)
        model = torch.onnx.export(
            module, args, dynamo=True, opset_version=18, verbose=False, dynamic_shapes=shapes
        ).model_proto
        for node in model.graph.node:
            del node.metadata_props[:]
        del model.graph.value_info[:]
    else:
        file, names = io.BytesIO(), [f"in{n}" for n in range(len(args))]
        open_axes = axes and dict(zip(names, axes))
        torch.onnx.export(
            module, args, file, dynamo=False, opset_version=18, input_names=names, dynamic_axes=open_axes
        )
        model = load_from_string(file.getvalue())
    # The new exporter fixes the time of some layers, whatever it is told.
    sizes = {"batch": B + 1, "time": T + 2}
    for axis, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if dim.dim_value and axis < 2:
            sizes[x_axes[axis]] = dim.dim_value
    print("fixed:", [n for n, s in sizes.items() if s in (B, T)])
    fed = inputs(kind, options, sizes["batch"], sizes["time"])
    with torch.no_grad():
        outputs = module(*fed)
    add(name, model, fed, outputs)
    if name == "gru_script":
        # As versions of the exporter wrote it that left an attribute out.
        for node in model.graph.node:
            kept = [a for a in node.attribute if a.name != "linear_before_reset"]
            del node.attribute[:]
            node.attribute.extend(kept)
        add("fault_gru", model, fed, outputs)


def add(name, model, fed, outputs):
    cases.append(onnx_cases.case(name, model, fed, outputs))
    print(name, model.ByteSize())


for exporter in ("dynamo", "script"):
    for name, (kind, options) in CASES.items():
        try:
            export(f"{name}_{exporter}", kind, options, exporter == "dynamo")
        except Exception as e:
            print("left out", f"{name}_{exporter}", str(e).strip().split("\n")[0][:200])
onnx_cases.write(sys.argv[1], cases)
