"""What Keras's optimisers, losses and metrics are by their names in `compile`.

    KERAS_BACKEND=torch python3 tests/golden/make_names.py tests/fixtures/names.json

For each name that Recurve knows: the class that Keras takes and its options. A name that Keras does not know ends the
script.
"""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras.src.trainers.compile_utils import get_metric

OPTIMIZERS = ["sgd", "SGD", "rmsprop", "RMSprop", "adam", "Adam", "adamw", "AdamW", "adagrad", "Adagrad", "lion", "Lion"]
LOSSES = {
    "binary_crossentropy": ["BinaryCrossentropy", "bce", "BCE"],
    "categorical_crossentropy": ["CategoricalCrossentropy"],
    "sparse_categorical_crossentropy": ["SparseCategoricalCrossentropy"],
    "mean_squared_error": ["MeanSquaredError", "mse", "MSE"],
    "mean_absolute_error": ["MeanAbsoluteError", "mae", "MAE"],
    "huber": ["Huber"],
    "ctc": ["CTC"],
}
METRICS = {
    "binary_accuracy": ["BinaryAccuracy"],
    "categorical_accuracy": ["CategoricalAccuracy"],
    "sparse_categorical_accuracy": ["SparseCategoricalAccuracy"],
    "top_k_categorical_accuracy": ["TopKCategoricalAccuracy"],
    "sparse_top_k_categorical_accuracy": ["SparseTopKCategoricalAccuracy"],
    "precision": ["Precision"],
    "recall": ["Recall"],
    "f1_score": ["F1Score"],
    "auc": ["AUC"],
    "mean_squared_error": ["MeanSquaredError", "mse", "MSE"],
    "mean_absolute_error": ["MeanAbsoluteError", "mae", "MAE"],
    "root_mean_squared_error": ["RootMeanSquaredError"],
}


def numbers(config):
    return {k: v for k, v in config.items() if isinstance(v, (int, float, bool))}


def snake(name):
    return keras.src.utils.naming.to_snake_case(name)


def accuracies():
    """Which accuracy Keras takes for `accuracy`, by the shapes of targets and outputs."""
    for loss, target, output in [
        ("binary_crossentropy", (4, 1), (4, 1)),
        ("binary_crossentropy", (4, 3), (4, 3)),
        ("categorical_crossentropy", (4, 3), (4, 3)),
        ("sparse_categorical_crossentropy", (4,), (4, 3)),
        ("sparse_categorical_crossentropy", (4, 1), (4, 3)),
        ("sparse_categorical_crossentropy", (4, 5), (4, 5, 3)),
        ("mean_squared_error", (4, 1), (4, 1)),
        ("mean_squared_error", (4, 2), (4, 2)),
    ]:
        metric = get_metric("acc", np.zeros(target), np.zeros(output))
        yield {"loss": loss, "width": output[-1], "metric": snake(type(metric).__name__), "name": metric.name}


out = {"optimizers": {}, "losses": {}, "metrics": {}, "accuracies": list(accuracies())}
for name in OPTIMIZERS:
    o = keras.optimizers.get(name)
    out["optimizers"][name] = {"class": type(o).__name__, **numbers(o.get_config())}
for which, names, get in [("losses", LOSSES, keras.losses.get), ("metrics", METRICS, keras.metrics.get)]:
    for first, others in names.items():
        for name in [first, *others]:
            found = get(name)
            found = type(found).__name__ if not hasattr(found, "__name__") else found.__name__
            assert snake(found) == first, (name, found)
            out[which][name] = first
with open(sys.argv[1], "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
print({k: len(v) for k, v in out.items()})
