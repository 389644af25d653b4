"""Data-parallel training under Ray Train."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

import recurve

from ._allreduce import AllReduce
from ._device import limit_threads
from ._predictor import load_model, shipped

_MODEL = "model.safetensors"
_PROGRESS = "progress.json"


def _worker_ring(timeout: float) -> AllReduce:
    """The ring of the workers of a training of Ray Train. Rank 0 gives the others its address and a token through
    Ray."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    host = ray.util.get_node_ip_address()
    if world_size == 1:
        return AllReduce(0, 1, secrets.token_bytes(32))
    if rank == 0:
        with AllReduce.listen() as listener:
            token = secrets.token_bytes(32)
            broadcast_from_rank_zero([token.hex(), host, listener.getsockname()[1]])
            return AllReduce(0, world_size, token, listener=listener, host=host, timeout=timeout)
    token, first, port = broadcast_from_rank_zero(None)
    return AllReduce(rank, world_size, bytes.fromhex(token), address=(first, port), host=host, timeout=timeout)


class DataParallel:
    """Steps of training that several workers take together: each has a part of the batch, and all have the same
    weights.

    A step is that of one worker with the whole batch, up to the order of sums: gradients are summed over the workers,
    weighted by their numbers of samples, before their limit (``clipnorm``) and the optimizer, which all workers then
    compute alike. When it is made, all workers take over the weights of the first. Layers that draw noise draw by the
    seed of ``compile`` and the place of a sample in its part: with one seed for all workers, equal noise in all.

    It is a context manager, which closes the connections.

    Parameters
    ----------
    model : recurve.Model
        A compiled model, the same in all workers.
    reduce : AllReduce, optional
        What sums over the workers; without it one among the workers of the training of Ray Train that this is called
        in.
    timeout : float
        Seconds after which a worker from which nothing comes is lost.

    Examples
    --------
    Inside of a worker of Ray Train, with batches that are read from a data set:

    >>> with recurve.ray.DataParallel(model) as parallel:                            # doctest: +SKIP
    ...     for batch in ray.train.get_dataset_shard("train").iter_batches(batch_size=64):
    ...         loss = parallel.step(batch["x"], batch["y"])
    """

    def __init__(self, model: recurve.Model, *, reduce: AllReduce | None = None, timeout: float = 60.0):
        self.model = model
        self.reduce = _worker_ring(timeout) if reduce is None else reduce
        self.share_weights()

    @property
    def rank(self) -> int:
        """The number of this worker, from 0."""
        return self.reduce.rank

    @property
    def world_size(self) -> int:
        """The number of workers."""
        return self.reduce.world_size

    def share_weights(self) -> None:
        """Gives the weights of the first worker to all."""
        weights = self.model.flat_weights()
        # What is summed is theirs and zeros.
        weights = self.reduce.sum(weights if self.rank == 0 else np.zeros_like(weights))
        self.model.set_flat_weights(weights)

    def step(self, x: Any, y: Any, sample_weight: Any = None, weight: float | None = None) -> float:
        """One step with the parts of all workers.

        All workers call it the same number of times.

        Parameters
        ----------
        x, y, sample_weight
            This worker's part of the batch, as for :meth:`recurve.Model.train_on_batch`. It may have no samples in some
            workers.
        weight : float, optional
            The weight of this part in the mean over the batch; without it its number of samples. For a loss that counts
            timesteps which a mask lets through it is their number.

        Returns
        -------
        float
            The loss of the whole batch.

        Raises
        ------
        WorkerLost
            If another worker has ended or does not answer.
        """
        _, flat = self.model.flat_gradients(x, y, sample_weight=sample_weight, weight=weight)
        loss: float = self.model.apply_flat(self.reduce.sum(flat))
        return loss

    def close(self) -> None:
        """Closes the connections to the other workers."""
        self.reduce.close()

    def __enter__(self) -> DataParallel:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arrays(data: Any) -> list[np.ndarray]:
    if isinstance(data, Mapping):
        return list(data.values())
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _count(data: Any) -> int:
    counts = {len(array) for array in _arrays(data)}
    if len(counts) != 1:
        raise ValueError(f"the arrays must have the same number of samples, but they have {sorted(counts)}")
    return counts.pop()


def _take(data: Any, rows: np.ndarray) -> Any:
    if isinstance(data, Mapping):
        return {name: array[rows] for name, array in data.items()}
    if isinstance(data, (list, tuple)):
        return [array[rows] for array in data]
    return data[rows]


def fit_worker(
    model: recurve.Model,
    x: Any,
    y: Any,
    *,
    batch_size: int = 32,
    epochs: int = 1,
    shuffle: bool = True,
    seed: int = 0,
    validation_data: tuple[Any, Any] | None = None,
    checkpoint_every: int = 1,
    timeout: float = 60.0,
) -> dict[str, list[float]]:
    """Trains a model together with the other workers; called in each worker of a training of Ray Train.

    Every worker has all samples and takes its part of each batch, so the batches, and up to the order of sums the
    weights, are those of one worker, however many there are. After every epoch the loss is reported to Ray Train, and
    the model with the state of its optimizer as a checkpoint. If Ray Train starts the workers again after a failure,
    they go on from the last one.

    Parameters
    ----------
    model : recurve.Model
        A compiled model.
    x, y : array, or list or dict of arrays
        All samples.
    batch_size : int
        The number of samples of a step, of all workers together.
    epochs : int
        How many times all samples are used.
    shuffle : bool
        Whether each epoch has another order, which depends on `seed` and the number of the epoch.
    seed : int
        See `shuffle`.
    validation_data : (x, y), optional
        Samples that the first worker evaluates after every epoch; the results get names with ``val_``.
    checkpoint_every : int
        The number of epochs between checkpoints. There is one after the last epoch too.
    timeout : float
        Seconds after which a worker from which nothing comes is lost.

    Returns
    -------
    dict of str to list of float
        The loss of each epoch, and with `validation_data` what the first worker has found.
    """
    import ray.train

    for name, value in [("batch_size", batch_size), ("epochs", epochs), ("checkpoint_every", checkpoint_every)]:
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but it is {value}")
    n = _count(x)
    if n != _count(y):
        raise ValueError(f"x has {n} samples and y has {_count(y)}")
    if n == 0:
        raise ValueError("x has no samples")
    first = 0
    history: dict[str, list[float]] = {}
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        first, history = _restore(model, checkpoint)
    with DataParallel(model, timeout=timeout) as parallel:
        for epoch in range(first, epochs):
            order = np.random.default_rng([seed, epoch]).permutation(n) if shuffle else np.arange(n)
            total = 0.0
            for start in range(0, n, batch_size):
                rows = order[start : start + batch_size]
                own = np.array_split(rows, parallel.world_size)[parallel.rank]
                total += len(rows) * parallel.step(_take(x, own), _take(y, own))
            logs: dict[str, float] = {"loss": total / n}
            leads = parallel.rank == 0
            if validation_data is not None and leads:
                found = model.evaluate(*validation_data, batch_size=batch_size, verbose=0, return_dict=True)
                logs |= {f"val_{name}": value for name, value in found.items()}
            for name, number in logs.items():
                history.setdefault(name, []).append(float(number))
            saves = leads and ((epoch + 1) % checkpoint_every == 0 or epoch + 1 == epochs)
            _report(model, {"epoch": epoch, **logs}, history, saves)
    return history


def _report(model: recurve.Model, metrics: dict[str, Any], history: dict[str, list[float]], saves: bool) -> None:
    """Reports an epoch to Ray Train. Ray waits until all workers have."""
    import ray.train

    if not saves:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_checkpoint(os.path.join(folder, _MODEL), epoch=metrics["epoch"] + 1)
        with open(os.path.join(folder, _PROGRESS), "w", encoding="utf-8") as file:
            json.dump({"history": history}, file)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(model: recurve.Model, checkpoint: Any) -> tuple[int, dict[str, list[float]]]:
    """Takes over a checkpoint: the number of epochs that it has behind it, and their history."""
    with checkpoint.as_directory() as folder:
        with open(os.path.join(folder, _PROGRESS), encoding="utf-8") as file:
            history = json.load(file)["history"]
        return model.load_checkpoint(os.path.join(folder, _MODEL)), history


@dataclass
class FitResult:
    """What :func:`fit` gives."""

    #: The trained model, on this machine's device.
    model: recurve.Model
    #: The loss, and what `validation_data` gave, of each epoch.
    history: dict[str, list[float]]
    #: The result of Ray Train, with the checkpoints.
    result: Any


def fit(
    model: recurve.Model | Callable[[], recurve.Model],
    x: Any,
    y: Any,
    *,
    compile: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    epochs: int = 1,
    num_workers: int = 2,
    use_gpu: bool = False,
    resources_per_worker: Mapping[str, float] | None = None,
    device: str = "auto",
    shuffle: bool = True,
    seed: int = 0,
    validation_data: tuple[Any, Any] | None = None,
    checkpoint_every: int = 1,
    max_failures: int = 0,
    run_config: Any = None,
    timeout: float = 60.0,
) -> FitResult:
    """Trains a model with several workers of a Ray cluster.

    Each worker has a part of every batch, and gradients are summed over the workers: the weights are those of one
    worker with whole batches, up to the order of sums.

    Parameters
    ----------
    model : recurve.Model or callable
        A model, or a function that makes one in each worker. The weights are those of the first worker.
    x, y : array, or list or dict of arrays
        All samples. They go to each machine once.
    compile : dict, optional
        The arguments of :meth:`recurve.Model.compile`. May be left out if `model` is a function that compiles.
    num_workers : int
        The number of workers.
    use_gpu : bool
        Whether each worker gets a GPU.
    resources_per_worker : dict, optional
        What Ray reserves for a worker, ``{"CPU": 4}`` or ``{"GPU": 0.5}``.
    device : str
        As in :func:`recurve.load`; ``"auto"`` is the reserved GPU, else the CPU.
    max_failures : int
        How many times workers are started again after one is lost; they go on from the last checkpoint.
    run_config : ray.train.RunConfig, optional
        In its place, with the name, the storage, which all machines must reach, and the number of failures.
    batch_size, epochs, shuffle, seed, validation_data, checkpoint_every, timeout
        See :func:`fit_worker`.

    Returns
    -------
    FitResult
        The trained model, the history and Ray's result.

    Raises
    ------
    ray.train.TrainingFailedError
        If workers fail more often than `max_failures`.

    Examples
    --------
    >>> done = recurve.ray.fit(model, x, y, num_workers=4, epochs=3,                # doctest: +SKIP
    ...                        compile={"optimizer": "adam", "loss": "mse"})
    >>> done.model.save("trained.safetensors")                                      # doctest: +SKIP
    """
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    if run_config is None:
        run_config = ray.train.RunConfig(failure_config=ray.train.FailureConfig(max_failures=max_failures))
    elif max_failures:
        raise ValueError("max_failures belongs into run_config where both are given")
    if not isinstance(model, recurve.Model) and not callable(model):
        raise TypeError(f"model must be a recurve.Model or a function that makes one, but it is {type(model).__name__}")
    if isinstance(model, recurve.Model) and compile is None:
        raise ValueError("compile: a model goes to the workers without its optimizer, so its arguments are needed")
    config = {
        "model": shipped(model) if isinstance(model, recurve.Model) else model,
        "compile": None if compile is None else dict(compile),
        "device": device,
        "data": ray.put((x, y, validation_data)),
        "options": {
            "batch_size": batch_size,
            "epochs": epochs,
            "shuffle": shuffle,
            "seed": seed,
            "checkpoint_every": checkpoint_every,
            "timeout": timeout,
        },
    }
    scaling = ray.train.ScalingConfig(
        num_workers=num_workers,
        use_gpu=use_gpu,
        resources_per_worker=None if resources_per_worker is None else dict(resources_per_worker),
    )
    trainer = DataParallelTrainer(
        _train_loop, train_loop_config=config, scaling_config=scaling, run_config=run_config
    )
    result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        with open(os.path.join(folder, _PROGRESS), encoding="utf-8") as file:
            history = json.load(file)["history"]
        with open(os.path.join(folder, _MODEL), "rb") as file:
            trained = load_model(file.read(), device)
    return FitResult(trained, history, result)


def _train_loop(config: dict[str, Any]) -> None:
    """What a worker does."""
    limit_threads()
    given = config["model"]
    model: Any = given() if callable(given) else load_model(given, config["device"])
    if config["compile"] is not None:
        model.compile(**config["compile"])
    x, y, validation_data = ray.get(config["data"])
    fit_worker(model, x, y, validation_data=validation_data, **config["options"])
