#!/usr/bin/env python3
"""Losses with their gradients, steps of optimisers, clipping, learning rates and metrics by Keras and PyTorch:
fixtures/training.json.

pip install keras torch numpy
Run from the folder `tests`: python3 golden/make_training.py

Everything is computed in float64, except for losses whose name ends in `f32`: probabilities of 0 and 1, which both
sides keep away from there by a number that float32 rounds.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch
import torch.nn.functional as F

rng = np.random.default_rng(1126)
KERAS_REDUCTION = {"mean": "sum_over_batch_size", "weighted_mean": "mean_with_sample_weight", "sum": "sum"}


def f32(a):
    """Numbers that f32 represents exactly, so that both sides use the same values."""
    return np.asarray(a, np.float32).astype(np.float64)


def normal(*shape):
    return f32(rng.normal(size=shape))


def plain(a):
    """An array for JSON."""
    a = np.asarray(a.detach().numpy() if isinstance(a, torch.Tensor) else a)
    return {"dims": list(a.shape), "data": [float(v) for v in a.reshape(-1)]}


# --- losses ---------------------------------------------------------------------------------------------------------

losses = []


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return f32(e / e.sum(-1, keepdims=True))


def record(name, framework, kind, p, y, loss, **options):
    loss.backward()
    gradient = torch.zeros_like(p) if p.grad is None else p.grad
    case = {"name": name, "framework": framework, "kind": kind, "prediction": plain(p), "target": plain(y),
            "loss": float(loss), "gradient": plain(gradient)}
    for key in ("weights", "mask"):
        if options.get(key) is not None:
            options[key] = plain(np.asarray(options[key], np.float64))
    losses.append(case | {k: v for k, v in options.items() if v is not None})


def keras_loss(name, kind, make, p, y, weights=None, mask=None, reduction="mean", dtype="float64", **options):
    keras.config.set_floatx(dtype)
    p = torch.tensor(p, dtype=getattr(torch, dtype), requires_grad=True)
    if mask is not None:
        p._keras_mask = torch.tensor(mask)
    total = None if weights is None else np.asarray(weights)
    if options.get("class_weights"):
        own = np.asarray(options["class_weights"])
        labels = np.asarray(y)
        if "Categorical" in make.__name__ and "Sparse" not in make.__name__:
            labels = labels.argmax(-1)
        elif "Binary" in make.__name__:
            labels = labels[..., 0]
        of_classes = own[labels.astype(int)]
        total = of_classes if total is None else total * of_classes
    known = {k: v for k, v in options.items() if k in ("from_logits", "label_smoothing", "delta")}
    loss = make(reduction=KERAS_REDUCTION[reduction], dtype=dtype, **known)(y, p, sample_weight=total)
    record(name, "keras", kind, p, y, loss, weights=weights, mask=mask, reduction=reduction, **options)
    keras.config.set_floatx("float64")


L = keras.losses
B, T, C = 4, 3, 5
some = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)
none = np.zeros((B, T), bool)
rows = f32([0.5, 2.0, 0.0, 1.25])
steps = f32(rng.uniform(0.1, 2.0, size=(B, T)))
each = [dict(), dict(weights=rows)]
timed = [dict(), dict(mask=some), dict(mask=none), dict(weights=steps), dict(weights=steps, mask=some)]
for reduction in KERAS_REDUCTION:
    for kind, make in [("mean_squared_error", L.MeanSquaredError), ("mean_absolute_error", L.MeanAbsoluteError),
                       ("huber", L.Huber)]:
        options = dict(delta=0.75) if kind == "huber" else {}
        for n, given in enumerate(each):
            keras_loss(f"{kind} {reduction} {n}", kind, make, normal(B, C), normal(B, C), reduction=reduction,
                       **given, **options)
        for n, given in enumerate(timed):
            keras_loss(f"{kind} of timesteps {reduction} {n}", kind, make, normal(B, T, 2), normal(B, T, 2),
                       reduction=reduction, **given, **options)
    for from_logits in (False, True):
        squash = (lambda x: x) if from_logits else (lambda x: f32(1 / (1 + np.exp(-x))))
        share = (lambda x: 3 * x) if from_logits else softmax
        bits = lambda *s: rng.integers(0, 2, size=s).astype(float)
        labels = lambda *s: rng.integers(0, C, size=s)
        hot = lambda *s: np.eye(C)[labels(*s)]
        o = dict(from_logits=from_logits, reduction=reduction)
        binary, categorical = "binary_crossentropy", "categorical_crossentropy"
        sparse = "sparse_categorical_crossentropy"
        for n, given in enumerate(each):
            more = given | o
            keras_loss(f"{binary} {n}", binary, L.BinaryCrossentropy, squash(3 * normal(B, 1)), bits(B, 1), **more)
            keras_loss(f"{binary} wide {n}", binary, L.BinaryCrossentropy, squash(normal(B, 3)), bits(B, 3),
                       label_smoothing=0.2, **more)
            keras_loss(f"{binary} classes {n}", binary, L.BinaryCrossentropy, squash(normal(B, 1)), bits(B, 1),
                       class_weights=[0.5, 3.0], **more)
            keras_loss(f"{categorical} {n}", categorical, L.CategoricalCrossentropy, share(normal(B, C)), hot(B), **more)
            keras_loss(f"{categorical} smooth {n}", categorical, L.CategoricalCrossentropy, share(normal(B, C)), hot(B),
                       label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5, 0.0, 1.5], **more)
            keras_loss(f"{sparse} {n}", sparse, L.SparseCategoricalCrossentropy, share(normal(B, C)), labels(B), **more)
            keras_loss(f"{sparse} classes {n}", sparse, L.SparseCategoricalCrossentropy, share(normal(B, C)), labels(B),
                       class_weights=[1.0, 2.0, 0.5, 0.25, 1.5], **more)
        for n, given in enumerate(timed):
            more = given | o
            keras_loss(f"{binary} of timesteps {n}", binary, L.BinaryCrossentropy, squash(normal(B, T, 1)),
                       bits(B, T, 1), **more)
            keras_loss(f"{sparse} of timesteps {n}", sparse, L.SparseCategoricalCrossentropy, share(normal(B, T, C)),
                       labels(B, T), **more)
            keras_loss(f"{categorical} of timesteps {n}", categorical, L.CategoricalCrossentropy,
                       share(normal(B, T, C)), hot(B, T), **more)

sure = np.array([[0.0], [1.0], [1.0], [0.0]])
keras_loss("sure f32", "binary_crossentropy", L.BinaryCrossentropy, sure, np.array([[0.0], [1.0], [0.0], [1.0]]),
           dtype="float32", from_logits=False)
keras_loss("sure classes f32", "categorical_crossentropy", L.CategoricalCrossentropy, np.eye(3), np.eye(3)[[0, 2, 2]],
           dtype="float32", from_logits=False)
keras_loss("large logits", "binary_crossentropy", L.BinaryCrossentropy, np.array([[90.0], [-90.0], [200.0], [-3.0]]),
           np.array([[1.0], [1.0], [0.0], [0.0]]), from_logits=True)


def torch_loss(name, kind, f, p, y, reduction="mean", dtype=torch.float64, **options):
    p = torch.tensor(p, requires_grad=True)
    record(name, "pytorch", kind, p, y, f(p, torch.tensor(y)), reduction=reduction, **options)


def classes_first(f):
    return lambda p, y: f(p.movedim(-1, 1), y)


for reduction in ("mean", "sum"):
    ours = {"mean": "weighted_mean", "sum": "sum"}[reduction]
    w = [1.0, 2.0, 0.5, 0.25, 1.5]
    torch_loss("cross_entropy", "sparse_categorical_crossentropy",
               lambda p, y: F.cross_entropy(p, y, reduction=reduction), normal(B, C), rng.integers(0, C, B),
               reduction=reduction, from_logits=True)
    torch_loss("cross_entropy smooth", "sparse_categorical_crossentropy",
               lambda p, y: F.cross_entropy(p, y, reduction=reduction, label_smoothing=0.1), normal(B, C),
               rng.integers(0, C, B), reduction=reduction, from_logits=True, label_smoothing=0.1)
    torch_loss("cross_entropy classes", "sparse_categorical_crossentropy",
               lambda p, y: F.cross_entropy(p, y, reduction=reduction, weight=torch.tensor(w).double()), normal(B, C),
               rng.integers(0, C, B), reduction=ours, from_logits=True, class_weights=w)
    y = rng.integers(0, C, (B, T))
    torch_loss("cross_entropy ignore", "sparse_categorical_crossentropy",
               lambda p, y: F.cross_entropy(p.movedim(-1, 1), torch.where(torch.tensor(some), y, -100),
                                            reduction=reduction, weight=torch.tensor(w).double()),
               normal(B, T, C), y, reduction=ours, from_logits=True, mask=some, class_weights=w)
    torch_loss("bce_with_logits", "binary_crossentropy",
               lambda p, y: F.binary_cross_entropy_with_logits(p, y, reduction=reduction), normal(B, C),
               rng.integers(0, 2, (B, C)).astype(float), reduction="mean" if reduction == "mean" else "sum",
               from_logits=True) if reduction == "mean" else None
    if reduction == "mean":
        for kind, f in [("mean_squared_error", F.mse_loss), ("mean_absolute_error", F.l1_loss)]:
            torch_loss(kind, kind, f, normal(B, C), normal(B, C))
        torch_loss("huber", "huber", lambda p, y: F.huber_loss(p, y, delta=0.5), normal(B, C), normal(B, C), delta=0.5)

# --- optimisers -----------------------------------------------------------------------------------------------------

STEPS = 10
SHAPES = [(3, 5), (7,)]
start = [normal(*s) for s in SHAPES]
gradients = [[normal(*s) for s in SHAPES] for _ in range(STEPS)]
# An element whose gradient is always 0, and one that is large.
for g in gradients:
    g[0][1, 2] = 0.0
    g[1][3] *= 100.0
optimizers = []


def rate_at(n, first):
    return first if n < 5 else first / 2


def keras_steps(name, options, extra={}):
    make = {"sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop, "adam": keras.optimizers.Adam,
            "adamw": keras.optimizers.AdamW, "adagrad": keras.optimizers.Adagrad, "lion": keras.optimizers.Lion}[name]
    opt = make(**options, **extra)
    first = float(opt.learning_rate.numpy()) if "learning_rate" not in options else options["learning_rate"]
    weights = [keras.Variable(w, dtype="float64") for w in start]
    for n, gs in enumerate(gradients):
        opt.learning_rate = rate_at(n, first)
        opt.apply([torch.tensor(g) for g in gs], weights)
    return opt, [plain(w.numpy()) for w in weights]


def torch_steps(name, options):
    make = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad}[name]
    weights = [torch.tensor(w, requires_grad=True) for w in start]
    opt = make(weights, **options)
    first = opt.param_groups[0]["lr"]
    for n, gs in enumerate(gradients):
        opt.param_groups[0]["lr"] = rate_at(n, first)
        for w, g in zip(weights, gs):
            w.grad = torch.tensor(g)
        opt.step()
    return [plain(w) for w in weights]


R = {"learning_rate": 0.05}
for name, options in [
    ("sgd", {}), ("sgd", R | {"momentum": 0.9}), ("sgd", R | {"momentum": 0.9, "nesterov": True}),
    ("sgd", R | {"momentum": 0.5, "weight_decay": 0.1}),
    ("rmsprop", {}), ("rmsprop", R | {"momentum": 0.8}), ("rmsprop", R | {"centered": True}),
    ("rmsprop", R | {"centered": True, "momentum": 0.5, "rho": 0.8, "epsilon": 0.01, "weight_decay": 0.02}),
    ("adam", {}), ("adam", R | {"amsgrad": True}), ("adam", R | {"beta_1": 0.5, "beta_2": 0.8, "epsilon": 0.01}),
    ("adam", R | {"weight_decay": 0.1}), ("adamw", {}), ("adamw", R | {"weight_decay": 0.1, "amsgrad": True}),
    ("adagrad", {}), ("adagrad", R | {"initial_accumulator_value": 0.5, "epsilon": 0.01, "weight_decay": 0.1}),
    ("lion", {}), ("lion", R | {"beta_1": 0.5, "beta_2": 0.8, "weight_decay": 0.1}),
]:
    optimizers.append({"framework": "keras", "name": name, "options": options, "weights": keras_steps(name, options)[1]})
R = {"lr": 0.05}
for name, options in [
    ("sgd", {}), ("sgd", R | {"momentum": 0.9}), ("sgd", R | {"momentum": 0.9, "nesterov": True}),
    ("sgd", R | {"momentum": 0.5, "weight_decay": 0.1, "dampening": 0.25}),
    ("rmsprop", {}), ("rmsprop", R | {"momentum": 0.8}), ("rmsprop", R | {"centered": True}),
    ("rmsprop", R | {"centered": True, "momentum": 0.5, "alpha": 0.8, "eps": 0.01, "weight_decay": 0.02}),
    ("adam", {}), ("adam", R | {"amsgrad": True}), ("adam", R | {"betas": [0.5, 0.8], "eps": 0.01}),
    ("adam", R | {"weight_decay": 0.1}), ("adamw", {}), ("adamw", R | {"weight_decay": 0.1, "amsgrad": True}),
    ("adagrad", {}), ("adagrad", R | {"initial_accumulator_value": 0.5, "eps": 0.01, "weight_decay": 0.1}),
    ("adagrad", R | {"lr_decay": 0.1}),
]:
    optimizers.append({"framework": "pytorch", "name": name, "options": options, "weights": torch_steps(name, options)})

# --- clipping, averages, accumulation -------------------------------------------------------------------------------

clips = []
small = [normal(3, 5), 0.01 * normal(7)]
zero = [np.zeros((3, 5)), np.zeros(7)]
for gs in (small, zero):
    for limit in (0.5, 100.0):
        for key in ("clipvalue", "clipnorm", "global_clipnorm"):
            opt = keras.optimizers.SGD(**{key: limit})
            out = opt._clip_gradients([torch.tensor(g) for g in gs])
            clips.append({"kind": key, "limit": limit, "gradients": [plain(g) for g in gs],
                          "clipped": [plain(g) for g in out]})
        weights = [torch.zeros_like(torch.tensor(g), requires_grad=True) for g in gs]
        for w, g in zip(weights, gs):
            w.grad = torch.tensor(g)
        torch.nn.utils.clip_grad_norm_(weights, limit)
        clips.append({"kind": "clip_grad_norm_", "limit": limit, "gradients": [plain(g) for g in gs],
                      "clipped": [plain(w.grad) for w in weights]})

opt, ema_weights = keras_steps("sgd", {}, {"use_ema": True, "ema_momentum": 0.9})
average = {"momentum": 0.9, "averages": [plain(a.numpy()) for a in opt._model_variables_moving_average]}
accumulated = keras_steps("sgd", {}, {"gradient_accumulation_steps": 5})[1]

# --- schedules ------------------------------------------------------------------------------------------------------

S = keras.optimizers.schedules
schedules = []


def schedule(ours, values):
    schedules.append({"schedule": ours, "values": [float(v) for v in values]})


def of_keras(ours, s):
    schedule(ours, [s(float(n)) for n in range(60)])


def of_torch(ours, make, first):
    w = torch.zeros(1, requires_grad=True)
    opt = torch.optim.SGD([w], lr=first)
    s = make(opt)
    values = []
    for _ in range(60):
        values.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    schedule(ours, values)


O = torch.optim.lr_scheduler
for staircase in (False, True):
    of_keras({"exponential": {"initial": 0.1, "rate": 0.7, "steps": 9, "staircase": staircase}},
             S.ExponentialDecay(0.1, 9, 0.7, staircase=staircase))
of_keras({"piecewise": {"boundaries": [10, 30], "values": [1.0, 0.5, 0.1]}}, S.PiecewiseConstantDecay([10, 30], [1.0, 0.5, 0.1]))
of_keras({"cosine": {"initial": 0.1, "steps": 40, "alpha": 0.05}}, S.CosineDecay(0.1, 40, alpha=0.05))
of_keras({"warm_up": {"initial": 0.01, "steps": 12, "then": {"cosine": {"initial": 0.2, "steps": 30, "alpha": 0.0}}}},
         S.CosineDecay(0.01, 30, warmup_target=0.2, warmup_steps=12))
of_keras({"cosine_restarts": {"initial": 0.1, "steps": 8, "length": 2.0, "height": 0.8, "alpha": 0.1}},
         S.CosineDecayRestarts(0.1, 8, t_mul=2.0, m_mul=0.8, alpha=0.1))
of_keras({"cosine_restarts": {"initial": 0.1, "steps": 16, "length": 1.0, "height": 1.0, "alpha": 0.0}},
         S.CosineDecayRestarts(0.1, 16, t_mul=1.0, m_mul=1.0, alpha=0.0))
of_torch({"step": {"initial": 0.1, "factor": 0.5, "every": 7}}, lambda o: O.StepLR(o, 7, 0.5), 0.1)
of_torch({"exponential": {"initial": 0.1, "rate": 0.9, "steps": 1, "staircase": False}}, lambda o: O.ExponentialLR(o, 0.9), 0.1)
of_torch({"cosine_restarts": {"initial": 0.1, "steps": 8, "length": 2.0, "height": 1.0, "alpha": 0.1}},
         lambda o: O.CosineAnnealingWarmRestarts(o, 8, 2, 0.01), 0.1)

plateaus = []
falling = list(np.round(np.concatenate([np.linspace(1, 0.5, 6), [0.5] * 8, [0.49995] * 4, [0.3, 0.31, 0.32], [0.3] * 9]), 5))
for cooldown in (0, 1, 3):
    class Model:
        optimizer = keras.optimizers.SGD(1.0)

    callback = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=cooldown, min_lr=0.1, mode="min")
    callback.set_model(Model)
    callback.on_train_begin()
    rates = []
    for n, v in enumerate(falling):
        callback.on_epoch_end(n, {"val_loss": v})
        rates.append(float(Model.optimizer.learning_rate.numpy()))
    plateaus.append({"framework": "keras", "cooldown": cooldown, "observed": falling, "rates": rates})
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    s = O.ReduceLROnPlateau(opt, factor=0.5, patience=2, cooldown=cooldown, min_lr=0.1)
    rates = []
    for v in falling:
        s.step(v)
        rates.append(opt.param_groups[0]["lr"])
    plateaus.append({"framework": "pytorch", "cooldown": cooldown, "observed": falling, "rates": rates})

# --- metrics --------------------------------------------------------------------------------------------------------

M = keras.metrics
metrics = []


def metric(ours, make, batches):
    m = make()
    for p, y, w in batches:
        m.update_state(y, torch.tensor(p), sample_weight=w)
    metrics.append({"metric": ours, "value": float(m.result()), "batches": [
        {"prediction": plain(p), "target": plain(y), "weights": None if w is None else plain(w)} for p, y, w in batches]})


def batches(p, y, weighted):
    weight = lambda: f32(rng.uniform(0, 2, 6)) * rng.integers(0, 2, 6) if weighted else None
    return [(p(), y(), weight()) for _ in range(3)]


for weighted in (False, True):
    score = lambda: f32(rng.uniform(0, 1, (6, 1)))
    bit = lambda: rng.integers(0, 2, (6, 1)).astype(float)
    probabilities = lambda: softmax(2 * normal(6, C))
    one_hot = lambda: np.eye(C)[rng.integers(0, C, 6)]
    label = lambda: rng.integers(0, C, 6)
    metric({"binary_accuracy": {"threshold": 0.5}}, M.BinaryAccuracy, batches(score, bit, weighted))
    metric({"binary_accuracy": {"threshold": 0.25}}, lambda: M.BinaryAccuracy(threshold=0.25), batches(score, bit, weighted))
    metric("categorical_accuracy", M.CategoricalAccuracy, batches(probabilities, one_hot, weighted))
    metric("sparse_categorical_accuracy", M.SparseCategoricalAccuracy, batches(probabilities, label, weighted))
    metric({"top_k_categorical_accuracy": {"k": 2}}, lambda: M.TopKCategoricalAccuracy(2), batches(probabilities, one_hot, weighted))
    metric({"top_k_categorical_accuracy": {"k": 2}}, lambda: M.SparseTopKCategoricalAccuracy(2), batches(probabilities, label, weighted))
    metric({"precision": {"threshold": 0.5}}, M.Precision, batches(score, bit, weighted))
    metric({"recall": {"threshold": 0.7}}, lambda: M.Recall(thresholds=0.7), batches(score, bit, weighted))
    many = lambda: f32(rng.uniform(0, 1, (6, C)))
    bits = lambda: rng.integers(0, 2, (6, C)).astype(float)
    for averaging in ("macro", "micro", "weighted"):
        for threshold in (None, 0.5):
            metric({"f1": {"threshold": threshold, "averaging": averaging}},
                   lambda: M.F1Score(average=averaging, threshold=threshold), batches(many, bits, weighted))
    for thresholds in (200, 7):
        for curve, theirs in (("roc", "ROC"), ("precision_recall", "PR")):
            for summation in ("interpolation", "minoring", "majoring"):
                metric({"auc": {"thresholds": thresholds, "curve": curve, "summation": summation, "from_logits": False}},
                       lambda: M.AUC(num_thresholds=thresholds, curve=theirs, summation_method=summation),
                       batches(score, bit, weighted))
    metric({"auc": {"thresholds": 200, "curve": "roc", "summation": "interpolation", "from_logits": True}},
           lambda: M.AUC(from_logits=True), batches(lambda: normal(6, 1), bit, weighted))

for from_logits in (True, False):
    own = batches((lambda: normal(6, C)) if from_logits else probabilities, label, True)
    total = weight = 0.0
    for p, y, w in own:
        logs = F.log_softmax(torch.tensor(p), -1) if from_logits else torch.log(torch.tensor(p) / torch.tensor(p).sum(-1, keepdim=True))
        total += float((F.nll_loss(logs, torch.tensor(y), reduction="none") * torch.tensor(w)).sum())
        weight += float(w.sum())
    metrics.append({"metric": {"perplexity": {"from_logits": from_logits}}, "value": float(np.exp(total / weight)), "batches": [
        {"prediction": plain(p), "target": plain(y), "weights": plain(w)} for p, y, w in own]})

# Drawn last, so that what is above stays what it was.
for weighted in (False, True):
    values = lambda: normal(6, C)
    for name, make in (("mean_squared_error", M.MeanSquaredError), ("mean_absolute_error", M.MeanAbsoluteError), ("root_mean_squared_error", M.RootMeanSquaredError)):
        metric(name, make, batches(values, values, weighted))

out = {"losses": losses, "start": [plain(w) for w in start], "gradients": [[plain(g) for g in gs] for gs in gradients],
       "optimizers": optimizers, "clips": clips, "average": average, "accumulated": accumulated, "schedules": schedules,
       "plateaus": plateaus, "metrics": metrics}


def short(v):
    """Numbers with 9 digits, which tell every f32 apart."""
    if isinstance(v, float):
        return float(f"{v:.9g}")
    if isinstance(v, dict):
        return {k: short(v) for k, v in v.items()}
    return [short(v) for v in v] if isinstance(v, list) else v


with open("fixtures/training.json", "w") as f:
    json.dump(short(out), f, separators=(",", ":"))
    f.write("\n")
print(len(losses), "losses,", len(optimizers), "optimisers,", len(schedules), "schedules,", len(metrics), "metrics")
