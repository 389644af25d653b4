"""make_onnx_cells.py OUT: cells that are written out operator by operator, as ONNX files, in one file.

Some graphs are made by hand with onnx.helper, some by PyTorch's two exporters from loops over cells. Inputs are random,
expected outputs are ONNX Runtime's. Names that begin with `not_` are of graphs that only look like cells. The file is
that of onnx_cases.py. Run with torch 2.15, onnx 1.23, onnxscript 0.7 and onnxruntime 1.32."""
import io, sys, warnings

warnings.filterwarnings("ignore")
import numpy as np
import onnx_cases
import onnxruntime
import torch
from onnx import TensorProto, helper, load_from_string, numpy_helper
from torch import nn

I, H, B, T = 3, 4, 2, 5
random = np.random.default_rng(11)
torch.manual_seed(11)
cases = []


def draw(*shape):
    return random.standard_normal(shape).astype(np.float32)


def add(name, model, feeds):
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    outputs = session.run(None, dict(zip(names, feeds)))
    cases.append(onnx_cases.case(name, model, feeds, outputs))
    print(name, len(data))


class Graph:
    """Nodes with names that are made up."""

    def __init__(self, prefix=""):
        self.nodes, self.constants, self.prefix = [], [], prefix

    def __call__(self, operator, *inputs, outputs=1, **attributes):
        names = [f"{self.prefix}{operator.lower()}_{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=names[0][:-2], **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value):
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def one(self):
        return self.constant(np.float32(1))

    def graph(self, inputs, outputs, name="g"):
        def info(name, shape):
            if isinstance(shape, list):
                return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            return helper.make_tensor_value_info(name, shape, [])

        out = lambda o: o if not isinstance(o, str) else helper.make_tensor_value_info(o, TensorProto.FLOAT, None)
        return helper.make_graph(self.nodes, name, [info(n, s) for n, s in inputs], [out(o) for o in outputs], self.constants)

    def model(self, inputs, outputs, opset=18):
        ms = [helper.make_opsetid("", opset)]
        return helper.make_model(self.graph(inputs, outputs), opset_imports=ms, ir_version=9)


W, R, BIAS = draw(I, 4 * H), draw(H, 4 * H), draw(4 * H)
STATES = [("x", ["b", I]), ("h", ["b", H]), ("c", ["b", H])]


def split(g, z, n):
    return g("Split", z, outputs=n, axis=-1, num_outputs=n)


def lstm(g, gates, c, order="ifgo", sigmoid="Sigmoid", tanh="Tanh"):
    """The states from the sums of the gates."""
    part = dict(zip(order, gates))
    i, f, o = (g(sigmoid, part[k]) for k in "ifo")
    c = g("Add", g("Mul", f, c), g("Mul", i, g(tanh, part["g"])))
    return g("Mul", o, g("Tanh", c)), c


def sums(g, x, h, w=None, r=None, bias=None):
    w, r, bias = (g.constant(v) for v in (W if w is None else w, R if r is None else r, BIAS if bias is None else bias))
    return g("Add", g("Add", g("MatMul", x, w), g("MatMul", h, r)), bias)


def feeds(*shapes):
    return [draw(*s) for s in shapes]


STEP = ((B, I), (B, H), (B, H))


def steps():
    g = Graph()
    add("lstm_step", g.model(STATES, lstm(g, split(g, sums(g, "x", "h"), 4), "c", "ifgo")), feeds(*STEP))

    # The functions before the columns, the gates in another order, biases on both products, one of them in columns.
    g = Graph()
    a = g("Gemm", "x", g.constant(np.ascontiguousarray(W.T)), g.constant(BIAS), transB=1)
    b = g("Gemm", "h", g.constant(R), g.constant(draw(1, 4 * H)), beta=0.5, alpha=2.0)
    z = g("Add", b, a)
    columns = lambda v, n, m: g("Slice", v, g.ints(n * H), g.ints(m * H), g.ints(-1))
    gates = g("Sigmoid", columns(z, 0, 3))
    o, f, i = (columns(gates, n, n + 1) for n in range(3))
    c = g("Add", g("Mul", g("Tanh", columns(z, 3, 4)), i), g("Mul", "c", f))
    add("lstm_step_slices", g.model(STATES, [g("Mul", g("Tanh", c), o), c]), feeds(*STEP))

    g = Graph()
    xh = g("Concat", "x", "h", axis=-1)
    z = g("Add", g.constant(BIAS), g("MatMul", xh, g.constant(np.concatenate([W, R]))))
    add("lstm_step_joined", g.model(STATES, lstm(g, split(g, z, 4), "c", "fogi")), feeds(*STEP))

    # The input in two parts, and as many features in each as there are units.
    g = Graph()
    xh = g("Concat", "h", "x", "y", axis=-1)
    z = g("Gemm", xh, g.constant(draw(3 * H, 4 * H)), g.constant(BIAS))
    inputs = [("x", ["b", H]), ("y", ["b", H]), ("h", ["b", H]), ("c", ["b", H])]
    add("lstm_step_parts", g.model(inputs, lstm(g, split(g, z, 4), "c")), feeds(*[(B, H)] * 4))

    for name, sigmoid in (("operator", None), ("clip", "clip"), ("relu6", "relu6")):
        g = Graph()
        z = sums(g, "x", "h")
        i, f, k, o = split(g, z, 4)
        scalar = lambda v: g.constant(np.float32(v))

        def hard(v):
            if sigmoid is None:
                return g("HardSigmoid", v, alpha=0.25, beta=0.4)
            if sigmoid == "clip":
                return g("Clip", g("Add", g("Mul", v, scalar(0.2)), scalar(0.5)), scalar(0), scalar(1))
            return g("Mul", g("Clip", g("Add", v, scalar(3)), scalar(0), scalar(6)), scalar(1 / 6))

        c = g("Add", g("Mul", hard(f), "c"), g("Mul", hard(i), g("Softsign", k)))
        add(f"lstm_step_hard_sigmoid_{name}", g.model(STATES, [g("Mul", hard(o), g("Relu", c)), c]), feeds(*STEP))

    g = Graph()
    i, k, o = split(g, sums(g, "x", "h", W[:, : 3 * H], R[:, : 3 * H], BIAS[: 3 * H]), 3)
    i, o = g("Sigmoid", i), g("Sigmoid", o)
    c = g("Add", g("Mul", g("Sub", g.one(), i), "c"), g("Mul", i, g("Tanh", k)))
    add("lstm_step_coupled", g.model(STATES, [g("Mul", o, g("Tanh", c)), c]), feeds(*STEP))

    g = Graph()
    inputs = [("x", ["a", "b", I]), ("h", ["a", "b", H]), ("c", ["a", "b", H])]
    model = g.model(inputs, lstm(g, split(g, sums(g, "x", "h"), 4), "c"))
    add("lstm_step_three_dimensions", model, feeds((2, 3, I), (2, 3, H), (2, 3, H)))

    # One row of states serves every row.
    g = Graph()
    inputs = [("x", ["b", I]), ("h", [1, H]), ("c", ["n", H])]
    model = g.model(inputs, lstm(g, split(g, sums(g, "x", "h"), 4), "c"))
    add("lstm_step_one_row", model, feeds((3, I), (1, H), (1, H)))

    # h' = o · c'
    g = Graph()
    i, f, k, o = split(g, sums(g, "x", "h"), 4)
    c = g("Add", g("Mul", g("Sigmoid", f), "c"), g("Mul", g("Sigmoid", i), g("Tanh", k)))
    add("lstm_step_linear_output", g.model(STATES, [g("Mul", g("Sigmoid", o), c), c]), feeds(*STEP))

    gru = [("x", ["b", I]), ("h", ["b", H])]
    w, r, wb, rb = draw(I, 3 * H), draw(H, 3 * H), draw(3 * H), draw(3 * H)

    def after(g, x="x", h="h"):
        a = split(g, g("Gemm", x, g.constant(w), g.constant(wb)), 3)
        b = split(g, g("Gemm", h, g.constant(r), g.constant(rb)), 3)
        z, q = (g("Sigmoid", g("Add", a[n], b[n])) for n in (0, 1))
        return z, g("Tanh", g("Add", g("Mul", q, b[2]), a[2]))

    def before(g):
        z, q = split(g, g("Sigmoid", sums(g, "x", "h", w[:, : 2 * H], r[:, : 2 * H], wb[: 2 * H])), 2)
        return z, g("Tanh", sums(g, "x", g("Mul", "h", q), w[:, 2 * H :], r[:, 2 * H :], wb[2 * H :]))

    forms = {
        "kept": lambda g, z, n, h: g("Add", g("Mul", z, h), g("Mul", n, g("Sub", g.one(), z))),
        "new": lambda g, z, n, h: g("Add", g("Mul", z, n), g("Mul", g("Sub", g.one(), z), h)),
        "difference": lambda g, z, n, h: g("Add", g("Mul", g("Sub", h, n), z), n),
        "difference_new": lambda g, z, n, h: g("Add", h, g("Mul", z, g("Sub", n, h))),
    }
    for name, form in forms.items():
        for kind, cell in (("after", after), ("before", before)):
            g = Graph()
            add(f"gru_step_{kind}_{name}", g.model(gru, [form(g, *cell(g), "h")]), feeds((B, I), (B, H)))

    g = Graph()
    xh = g("Concat", "x", "h", axis=1)
    z, q = (g("Sigmoid", g("MatMul", xh, g.constant(draw(I + H, H)))) for _ in range(2))
    n = g("Tanh", g("MatMul", g("Concat", g("Mul", q, "h"), "x", axis=1), g.constant(draw(H + I, H))))
    add("gru_step_joined", g.model(gru, [forms["kept"](g, z, n, "h")]), feeds((B, I), (B, H)))

    g = Graph()
    h = g("Relu", sums(g, "x", "h", W[:, :H], R[:, :H], BIAS[:H]))
    add("rnn_step", g.model(gru, [h]), feeds((B, I), (B, H)))

    # What must stay as it is.
    g = Graph()
    i, f, k, o = split(g, sums(g, "x", "h"), 4)
    c = g("Add", g("Mul", g("Cos", f), "c"), g("Mul", g("Sigmoid", i), g("Tanh", k)))
    add("not_lstm_function", g.model(STATES, [g("Mul", g("Sigmoid", o), g("Tanh", c)), c]), feeds(*STEP))

    g = Graph()
    gates = split(g, sums(g, "x", "h"), 4)
    h, c = lstm(g, gates, "c")
    add("not_lstm_inner_output", g.model(STATES, [h, c, gates[1]]), feeds(*STEP))

    g = Graph()
    gates = split(g, sums(g, "x", "h"), 4)
    h, c = lstm(g, gates, "c")
    add("not_lstm_inner_read", g.model(STATES, [h, c, g("Exp", gates[3])]), feeds(*STEP))

    g = Graph()
    z = g("Add", g("MatMul", "x", "w"), g("MatMul", "h", g.constant(R)))
    model = g.model(STATES + [("w", [I, 4 * H])], lstm(g, split(g, z, 4), "c"))
    add("not_lstm_weights", model, feeds(*STEP, (I, 4 * H)))

    # The gates read different states.
    g = Graph()
    a, b = sums(g, "x", "h", W[:, :H], R[:, :H], BIAS[:H]), sums(g, "x", "k", W[:, :H], R[:, :H], BIAS[:H])
    c = g("Add", g("Mul", g("Sigmoid", a), "c"), g("Mul", g("Sigmoid", b), g("Tanh", a)))
    model = g.model(STATES + [("k", ["b", H])], [g("Mul", g("Sigmoid", a), g("Tanh", c)), c])
    add("not_lstm_two_states", model, feeds(*STEP, (B, H)))

    # z · h + (1 - y) · n
    g = Graph()
    z, n = after(g)
    y = g("Sigmoid", g("MatMul", "x", g.constant(draw(I, H))))
    h = g("Add", g("Mul", z, "h"), g("Mul", n, g("Sub", g.one(), y)))
    add("not_gru_two_shares", g.model(gru, [h]), feeds((B, I), (B, H)))

    # r · h of another value than the h that is kept
    g = Graph()
    z, n = after(g, h="k")
    model = g.model(gru + [("k", ["b", H])], [forms["kept"](g, z, n, "h")])
    add("not_gru_two_states", model, feeds((B, I), (B, H), (B, H)))

    # Two layers that are no recurrence.
    g = Graph()
    h = g("Tanh", sums(g, "x", "h", W[:, :H], R[:, :H], BIAS[:H]))
    add("not_rnn", g.model(gru, [g("Exp", h)]), feeds((B, I), (B, H)))


def scans():
    def body(cell, n=2):
        g = Graph("in_")
        if cell == "lstm":
            h, c = lstm(g, split(g, sums(g, "xt", "ht"), 4), "ct")
            states, out = [("ht", [B, H]), ("ct", [B, H])], [h, c]
        else:
            h = g("Tanh", sums(g, "xt", "ht", W[:, :H], R[:, :H], BIAS[:H]))
            states, out = [("ht", [B, H])], [h]
        return g, states, out, h

    def scan(name, cell, x, axis, ins, outs, out_axis, extra=None):
        b, states, out, h = body(cell)
        y = extra(b, h) if extra else b("Identity", h)
        inner = b.graph(states + [("xt", [B, I])], out + [y], "body")
        g = Graph()
        names = ["h0", "c0"][: len(states)]
        made = g(
            "Scan", *names, "x", outputs=len(out) + 1, body=inner, num_scan_inputs=1, scan_input_axes=[axis],
            scan_input_directions=[ins], scan_output_axes=[out_axis], scan_output_directions=[outs],
        )
        inputs = [(n, [B, H]) for n in names] + [("x", x)]
        add(name, g.model(inputs, made), feeds(*[(B, H)] * len(names), [B if s == "b" else s for s in x]))

    scan("scan_lstm", "lstm", [T, B, I], 0, 0, 0, 0)
    scan("scan_lstm_batch_first", "lstm", [B, T, I], 1, 0, 0, 1)
    scan("scan_lstm_reverse", "lstm", [T, B, I], 0, 1, 1, 0)
    scan("scan_lstm_reverse_input", "lstm", [B, T, I], 1, 1, 0, 0)
    scan("scan_lstm_reverse_output", "lstm", [T, B, I], 0, 0, 1, -2)
    scan("scan_rnn", "rnn", [T, B, I], 0, 0, 0, 0)
    scan("not_scan_output", "lstm", [T, B, I], 0, 0, 0, 0, lambda g, h: g("Exp", h))

    # Rows of one dimension.
    g = Graph("in_")
    h, c = lstm(g, split(g, sums(g, "xt", "ht"), 4), "ct")
    inner = g.graph([("ht", [H]), ("ct", [H]), ("xt", [I])], [h, c, g("Identity", h)], "body")
    g = Graph()
    made = g("Scan", "h0", "c0", "x", outputs=3, body=inner, num_scan_inputs=1)
    model = g.model([("h0", [H]), ("c0", [H]), ("x", ["t", I])], made)
    add("scan_lstm_rows", model, feeds((H,), (H,), (T, I)))

    def loop(name, most=None, cond=False, batch_first=False):
        g = Graph("in_")
        axis = int(batch_first)
        xt = g("Gather", "x", "i", axis=axis)
        h, c = lstm(g, split(g, sums(g, xt, "ht"), 4), "ct")
        go = g("Identity", "go")
        if cond:
            go = g("Less", g("ReduceMax", h, keepdims=0), g.constant(np.float32(0.4)))
        bool_out = lambda n: helper.make_tensor_value_info(n, TensorProto.BOOL, [])
        inner = g.graph(
            [("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("ht", [B, H]), ("ct", [B, H])],
            [bool_out(go), h, c, g("Identity", h)], "body",
        )
        g = Graph()
        if most is None:
            most = g("Squeeze", g("Slice", g("Shape", "x"), g.ints(axis), g.ints(axis + 1)), g.ints(0))
        else:
            most = g.constant(np.int64(most))
        made = g("Loop", most, g.constant(np.array(True)), "h0", "c0", outputs=3, body=inner)
        shape = [B, "t", I] if batch_first else ["t", B, I]
        model = g.model([("h0", [B, H]), ("c0", [B, H]), ("x", shape)], made)
        add(name, model, feeds((B, H), (B, H), (B, T, I) if batch_first else (T, B, I)))

    loop("loop_lstm")
    loop("loop_lstm_batch_first", batch_first=True)
    loop("not_loop_shorter", most=T - 1)
    loop("not_loop_condition", cond=True)


def unrolled():
    X = [("x", [T, B, I]), ("h", [B, H]), ("c", [B, H])]

    def run(name, order, change=None, leak=None, outputs="stack"):
        g = Graph()
        w, r = (g.constant(v) for v in (W, R))
        h, c, all = "h", "c", {}
        xs = g("Split", "x", outputs=T, axis=0, num_outputs=T)
        extra = []
        for n, t in enumerate(order):
            xt = g("Squeeze", xs[t], g.ints(0))
            rn = r if n != change else g.constant(R + 1)
            z = g("Add", g("Add", g("MatMul", xt, w), g("MatMul", h, rn)), g.constant(BIAS))
            h, c = lstm(g, split(g, z, 4), c)
            all[t] = h
            if n == leak:
                extra.append(c)
        y = g("Concat", *[g("Unsqueeze", all[t], g.ints(1)) for t in sorted(all)], axis=1)
        add(name, g.model(X, [y, h, c] + extra), feeds((T, B, I), (B, H), (B, H)))

    run("unrolled_lstm", range(T))
    run("unrolled_lstm_reverse", range(T - 1, -1, -1))
    run("unrolled_lstm_part", range(1, T - 1))
    # A c in the middle is read: two sequences.
    run("unrolled_lstm_inner_c", range(T), leak=2)
    run("unrolled_lstm_other_weights", range(T), change=2)


def turned():
    r, w, b = draw(1, 4 * H, H), draw(1, 4 * H, I), draw(1, 8 * H)

    def run(name, flip, shape=(T, B, I), other=False, back=True):
        g = Graph()
        x = flip(g, "x")
        weights = [g.constant(v) for v in (w, r, b)]
        # States of one dimension, or two, with one more around the node.
        h0 = g("Unsqueeze", "h", g.ints(0))
        c0 = g("Unsqueeze", "c", g.ints(0))
        y, h, c = g("LSTM", x, *weights, "", h0, c0, outputs=3, hidden_size=H)
        y = g("Squeeze", y, g.ints(1))
        if back:
            y = flip(g, y)
        outs = [y, g("Squeeze", h, g.ints(0)), c] + ([g("Exp", x)] if other else [])
        add(name, g.model([("x", list(shape)), ("h", [B, H]), ("c", [B, H])], outs), feeds(shape, (B, H), (B, H)))

    slice_ = lambda g, v: g("Slice", v, g.ints(-1), g.ints(np.iinfo(np.int64).min), g.ints(0), g.ints(-1))
    run("turned_slice", slice_)
    run("turned_slice_also_read", slice_, other=True)
    run("turned_reverse_sequence", lambda g, v: g("ReverseSequence", v, g.ints(*[T] * B), time_axis=0, batch_axis=1))
    run("not_turned_lengths", lambda g, v: g("ReverseSequence", v, g.ints(T, T - 2), time_axis=0, batch_axis=1))
    run("not_turned_back", slice_, back=False)


class Cells(nn.Module):
    """Loops over cells, as people write them."""

    def __init__(self, kind, layers=1, zero=False, back=False, form="cell", feed=False):
        super().__init__()
        self.kind, self.zero, self.back, self.form, self.feed = kind, zero, back, form, feed
        make = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[kind]
        self.cells = nn.ModuleList(make(I if n == 0 else H, H) for n in range(layers))
        self.x = nn.Linear(I, 4 * H)
        self.h = nn.Linear(H, 4 * H, bias=False)
        self.z, self.r, self.n = (nn.Linear(I + H, H) for _ in range(3))
        self.out = nn.Linear(H, I)

    def step(self, n, x, state):
        if self.kind != "lstm":
            return (self.cells[n](x, state[0]),)
        return self.cells[n](x, state)

    def forward(self, x, *states):
        if self.form == "shared":
            return self.shared(x, *states)
        if self.form == "gru":
            return self.gru(x, *states)
        count = 2 if self.kind == "lstm" else 1
        if self.zero:
            states = [torch.zeros(x.shape[0], H) for _ in range(count * len(self.cells))]
        states = [tuple(states[n * count : (n + 1) * count]) for n in range(len(self.cells))]
        outputs = []
        order = range(x.shape[1])
        feed = x[:, 0]
        for t in reversed(order) if self.back else order:
            y = feed if self.feed else x[:, t]
            for n in range(len(self.cells)):
                states[n] = self.step(n, y, states[n])
                y = states[n][0]
            if self.feed:
                feed = self.out(y)
            outputs.append(y)
        if self.back:
            outputs = outputs[::-1]
        return (torch.stack(outputs, 1), *(s for state in states for s in state))

    def shared(self, x, h, c):
        """The product with the input for all timesteps at once."""
        outputs, xs = [], self.x(x)
        for t in range(x.shape[1]):
            i, f, g, o = (xs[:, t] + self.h(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h.unsqueeze(1))
        return torch.cat(outputs, 1), h, c

    def gru(self, x, h):
        """The reset gate before the product, of x and h side by side, time first."""
        outputs = []
        for x in x.unbind(0):
            xh = torch.cat([x, h], -1)
            z, r = torch.sigmoid(self.z(xh)), torch.sigmoid(self.r(xh))
            n = torch.tanh(self.n(torch.cat([x, r * h], -1)))
            h = (1 - z) * h + z * n
            outputs.append(h)
        return torch.stack(outputs)


def exported(module, args, dynamo, batch):
    module.eval()
    file = io.BytesIO()
    names = [f"in{n}" for n in range(len(args))]
    if dynamo:
        open_batch = {0: torch.export.Dim("batch")}
        shapes = (open_batch, tuple(open_batch for _ in args[1:])) if len(args) > 1 else (open_batch,)
        program = torch.onnx.export(
            module, args, dynamo=True, opset_version=18, verbose=False, dynamic_shapes=shapes if batch else None
        )
        model = program.model_proto
        for node in model.graph.node:
            del node.metadata_props[:]
        del model.graph.value_info[:]
        return model
    axes = {n: {0: "batch"} for n in names} if batch else None
    torch.onnx.export(module, args, file, dynamo=False, opset_version=18, input_names=names, dynamic_axes=axes)
    return load_from_string(file.getvalue())


def pytorch():
    x, s = torch.randn(B, T, I), lambda n: [torch.randn(B, H) for _ in range(n)]
    modules = {
        "lstm": (Cells("lstm"), [x, *s(2)], True),
        "lstm_zero": (Cells("lstm", zero=True), [x], True),
        "gru": (Cells("gru"), [x, *s(1)], True),
        "gru_zero": (Cells("gru", zero=True), [x], True),
        "rnn": (Cells("rnn"), [x, *s(1)], True),
        "lstm_two": (Cells("lstm", layers=2), [x, *s(4)], True),
        "rnn_two": (Cells("rnn", layers=2), [x, *s(2)], True),
        "gru_back": (Cells("gru", back=True), [x, *s(1)], True),
        "lstm_fed_back": (Cells("lstm", feed=True), [x[:, :3], *s(2)], False),
        "lstm_shared": (Cells("lstm", form="shared"), [x, *s(2)], False),
        "gru_before": (Cells("gru", form="gru"), [torch.randn(T, B, I), *s(1)], False),
    }
    for dynamo in (True, False):
        for name, (module, args, batch) in modules.items():
            model = exported(module, tuple(args), dynamo, batch)
            # Another batch than at export, where it is open.
            fed = [torch.randn(3, *a.shape[1:]) if batch else a for a in args]
            add(f"torch_{name}_{'dynamo' if dynamo else 'script'}", model, [a.numpy() for a in fed])


steps()
scans()
unrolled()
turned()
pytorch()
onnx_cases.write(sys.argv[1], cases)
