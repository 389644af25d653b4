"""Ten steps of training by Keras: the networks before and after, the data and the losses.

    KERAS_BACKEND=torch python3 tests/golden/make_training_steps.py tests/fixtures/training

Each case is a `.keras` file before training, one after it, and an `.npz` with the input, the target and the loss of each
step (before the step). Where gradients are added up over batches, the samples come in halves in turn. Where averages
are kept, the network after training has them as its weights. Nothing is drawn at random in training, so that another framework can take the same steps.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from keras import layers

STEPS = 10


def cases(r):
    ids = r.integers(0, 12, (6, 7))
    ids[2, 4:] = 0
    ids[4, 2:] = 0
    x = r.standard_normal((5, 6, 3)).astype("float32")
    yield (
        "lstm_rmsprop",
        [layers.Input((None,), dtype="int32"), layers.Embedding(12, 4, mask_zero=True), layers.LSTM(5), layers.Dense(1, activation="sigmoid")],
        ids, r.integers(0, 2, (6, 1)).astype("float32"), None,
        "binary_crossentropy", keras.optimizers.RMSprop(0.01),
    )
    yield (
        "rnn_adam_clipnorm",
        [layers.Input((None, 3)), layers.SimpleRNN(6), layers.Dense(4, activation="softmax")],
        x, r.integers(0, 4, (5, 1)).astype("int32"), None,
        "sparse_categorical_crossentropy", keras.optimizers.Adam(0.02, clipnorm=0.3),
    )
    yield (
        "gru_sgd_weights",
        [layers.Input((None, 3)), layers.Bidirectional(layers.GRU(4, return_sequences=True)), layers.Dense(2)],
        x, r.standard_normal((5, 6, 2)).astype("float32"), r.uniform(0.2, 2.0, (5, 6)).astype("float32"),
        "mean_squared_error", keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    )
    yield (
        "stacked_adamw",
        [layers.Input((None, 3)), layers.BatchNormalization(momentum=0.8), layers.LSTM(4, return_sequences=True),
         layers.LayerNormalization(), layers.GRU(3, reset_after=False, activation="relu"), layers.Dense(2)],
        x, r.standard_normal((5, 2)).astype("float32"), None,
        keras.losses.Huber(0.5), keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=1.0),
    )
    # Keras moves averages with every batch, also where it only adds up gradients, so that these are two cases.
    for name, options in [("accumulated", {"gradient_accumulation_steps": 2}), ("average", {"use_ema": True, "ema_momentum": 0.7})]:
        yield (
            name,
            [layers.Input((None, 3)), layers.GRU(4), layers.Dense(2)],
            r.standard_normal((6, 6, 3)).astype("float32"), r.standard_normal((6, 2)).astype("float32"), None,
            "mean_squared_error", keras.optimizers.Adam(0.02, global_clipnorm=0.3, **options),
        )


def main(folder):
    os.makedirs(folder, exist_ok=True)
    r = np.random.default_rng(5)
    keras.utils.set_random_seed(5)
    for name, stack, x, y, weights, loss, optimizer in cases(r):
        model = keras.Sequential(stack)
        model.compile(optimizer=optimizer, loss=loss)
        model.save(os.path.join(folder, f"{name}_before.keras"))
        losses = []
        for step in range(STEPS):
            half = slice(None)
            if optimizer.gradient_accumulation_steps:
                half = slice(len(x) // 2) if step % 2 == 0 else slice(len(x) // 2, None)
            losses.append(float(model.train_on_batch(x[half], y[half], sample_weight=weights)))
            model.reset_metrics()
        optimizer.finalize_variable_values(model.trainable_variables)
        model.save(os.path.join(folder, f"{name}_after.keras"))
        data = {"x": x.astype("uint32") if x.dtype.kind == "i" else x, "y": y.astype("uint32") if y.dtype.kind == "i" else y}
        if weights is not None:
            data["weights"] = weights
        np.savez(os.path.join(folder, f"{name}.npz"), losses=np.array(losses, "float32"), **data)
        print(name, losses[0], losses[-1])


if __name__ == "__main__":
    main(sys.argv[1])
