"""A model behind Ray Serve."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.config import RequestRouterConfig
from starlette.requests import Request
from starlette.responses import JSONResponse

import recurve

from ._collate import Collator
from ._device import limit_threads
from ._predictor import load_model, shipped

#: The header of HTTP requests that Ray Serve finds the session in.
_HEADER = "x-session-id"
#: The longest body of a request, in bytes.
_MOST_BYTES = 64 << 20


class SessionLost(RuntimeError):
    """The replica that had the states of a session has ended, or the session was closed or has expired. It has to begin
    again."""


class TooManySessions(RuntimeError):
    """A replica has as many sessions as it may have."""


class _Stream:
    """A session on a replica: its states, and its last step."""

    def __init__(self, session: recurve.Session):
        self.session = session
        self.steps = 0
        self.last: dict[str, np.ndarray] | None = None
        self.used = time.monotonic()
        self.lock = asyncio.Lock()


class _Replica:
    """One model, which answers single requests in batches, and the steps of sessions one by one."""

    def __init__(
        self,
        model: Any,
        device: str,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        collate: dict[str, Any],
        states: dict[str, str] | None,
        session_timeout_s: float,
        max_sessions: int,
    ):
        limit_threads()
        self._model = load_model(model, device)
        self._collator = Collator(self._model, batch_size=max_batch_size, **collate)
        self._states = states
        self._timeout = session_timeout_s
        self._most = max_sessions
        self._streams: dict[str, _Stream] = {}
        self._requests = self._ran = 0
        self._sweeper: asyncio.Task[None] | None = None
        # The device computes one batch at a time; steps of sessions do not wait for a whole batch to end.
        self._batches = ThreadPoolExecutor(1, "recurve-batch")
        self._steps = ThreadPoolExecutor(4, "recurve-step")
        self._answer.set_max_batch_size(max_batch_size)
        self._answer.set_batch_wait_timeout_s(batch_wait_timeout_s)

    # What handles call

    async def __call__(self, request: Any) -> Any:
        """A request by HTTP, or a sample: a mapping from inputs to arrays without the axis of the batch."""
        # A request is a mapping too, of its headers and the like.
        if isinstance(request, Request):
            return await self._http(request)
        return await self.run(request)

    async def run(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs for a sample, which is computed together with others that come at the same time."""
        outputs: dict[str, np.ndarray] = await self._answer(self._collator.check(sample))
        return outputs

    async def begin(self, session: str) -> None:
        """Begins a session with states of zeros, also where one of the name is open."""
        if not session or len(session) > 200:
            raise ValueError(f"the name of a session must have 1 to 200 characters, but it has {len(session)}")
        self._expire()
        if session not in self._streams and len(self._streams) >= self._most:
            raise TooManySessions(f"this replica has {self._most} sessions, as many as it may have")
        old = self._streams.pop(session, None)
        if old is not None:
            old.session.close()
        made = await self._in(self._steps, lambda: self._model.session(1, self._states))
        self._streams[session] = _Stream(made)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def step(self, session: str, inputs: Mapping[str, Any], number: int | None = None) -> dict[str, np.ndarray]:
        """The outputs of the next step of a session.

        With the number of the step, from 0, a step that is sent a second time gets the outputs of the first time, and
        another one that does not follow is an error.
        """
        stream = self._stream(session)
        async with stream.lock:
            if number is not None and number == stream.steps - 1 and stream.last is not None:
                return stream.last
            if number is not None and number != stream.steps:
                raise ValueError(f"session {session}: step {number} does not follow step {stream.steps - 1}")
            arrays = {}
            for name, value in inputs.items():
                try:
                    arrays[name] = np.asarray(value)[np.newaxis]
                except ValueError as e:
                    raise ValueError(f"{name}: {e}") from None
            outputs = await self._in(self._steps, lambda: stream.session.run(arrays))
            stream.last = {name: value[0] for name, value in outputs.items()}
            stream.steps += 1
            stream.used = time.monotonic()
            return stream.last

    async def end(self, session: str) -> None:
        """Closes a session, whose states are dropped. One that is not there is closed."""
        stream = self._streams.pop(session, None)
        if stream is not None:
            async with stream.lock:
                stream.session.close()

    async def where(self) -> dict[str, Any]:
        """Which replica this is, its device, its number of sessions, and how many requests it has answered in how many
        batches."""
        context = serve.get_replica_context()
        return {
            "replica": context.replica_id.unique_id,
            "pid": os.getpid(),
            "device": str(self._model.device),
            "sessions": len(self._streams),
            "requests": self._requests,
            "batches": self._ran,
        }

    # Batches

    @serve.batch  # type: ignore[untyped-decorator]
    async def _answer(self, rows: list[dict[str, np.ndarray]]) -> list[Any]:
        self._requests += len(rows)
        self._ran += 1
        results: list[Any] = await self._in(self._batches, lambda: self._collator.run_samples(rows))
        return results

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    # Sessions

    def _stream(self, session: str) -> _Stream:
        stream = self._streams.get(session)
        if stream is None or time.monotonic() - stream.used > self._timeout:
            raise SessionLost(
                f"session {session} is not on this replica: it was not begun, was closed, has expired after "
                f"{self._timeout:g} s, or its replica has ended; begin it again"
            )
        return stream

    def _expire(self) -> None:
        """Closes sessions that nobody has used for too long."""
        now = time.monotonic()
        for name, stream in list(self._streams.items()):
            if now - stream.used > self._timeout and not stream.lock.locked():
                del self._streams[name]
                stream.session.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(max(0.05, self._timeout / 4))
            self._expire()

    # HTTP

    async def _http(self, request: Request) -> JSONResponse:
        def answer(status: int, body: dict[str, Any]) -> JSONResponse:
            return JSONResponse(body, status_code=status)

        def failure(status: int, error: Exception) -> JSONResponse:
            return answer(status, {"error": type(error).__name__, "message": str(error)})

        path = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/")
        session = request.headers.get(_HEADER)
        try:
            if (request.method, path) == ("POST", ""):
                sample = await _body(request)
                if session is None:
                    return answer(200, _lists(await self.run(sample)))
                number = request.headers.get("x-session-step")
                return answer(200, _lists(await self.step(session, sample, None if number is None else int(number))))
            if (request.method, path) == ("POST", "session"):
                if session is None:
                    raise ValueError(f"the name of the session is missing: the header {_HEADER}")
                await self.begin(session)
                return answer(200, {"session": session})
            if (request.method, path) == ("DELETE", "session"):
                if session is None:
                    raise ValueError(f"the name of the session is missing: the header {_HEADER}")
                await self.end(session)
                return answer(200, {"session": session})
            names = ", ".join(value.name for value in self._collator.inputs)
            known = f"POST / with {names}, POST /session and DELETE /session, but not {request.method} /{path}"
            return answer(404, {"error": "NotFound", "message": f"there is {known}"})
        except SessionLost as e:
            return failure(410, e)
        except TooManySessions as e:
            return failure(503, e)
        except (ValueError, TypeError) as e:
            return failure(400, e)


async def _body(request: Request) -> dict[str, Any]:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > _MOST_BYTES:
            raise ValueError(f"the request is longer than {_MOST_BYTES} bytes")
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the request is not JSON: {e}") from None
    if not isinstance(body, dict):
        raise TypeError("the request must be a JSON object from the inputs to lists")
    return body


def _lists(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Outputs for JSON, which has no NaN and no infinity: they are null."""
    lists = {}
    for name, value in outputs.items():
        array = np.asarray(value)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            finite = np.isfinite(array)
            array = array.astype(object)
            array[~finite] = None
        lists[name] = array.tolist()
    return lists


def serve_app(
    model: Any,
    *,
    max_batch_size: int = 32,
    batch_wait_timeout_s: float = 0.005,
    num_replicas: int | str | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    device: str = "auto",
    pad: str | float = "auto",
    length_input: str | None = None,
    states: Mapping[str, str] | None = None,
    session_timeout_s: float = 300.0,
    max_sessions: int = 1024,
    name: str = "recurve",
    **options: Any,
) -> serve.Application:
    """An application of Ray Serve that answers with a model.

    Requests that come at the same time are computed in one batch. By HTTP a request is a JSON object from the inputs to
    lists, without the axis of the batch, ``POST / {"x": [[0.1, 0.2], [0.3, 0.4]]}``; the answer is one from the outputs
    to lists, or ``{"error": …, "message": …}`` with the status 400 for an input that is wrong. From Python the handle
    takes arrays: ``handle.remote({"x": x})``; see :class:`Client`, which also asks again when a replica ends.

    A session keeps its states on the device of one replica from step to step. By HTTP its name, which the client draws,
    is in the header ``x-session-id`` of all requests: ``POST /session`` begins it, ``POST /`` takes a step, ``DELETE
    /session`` closes it. When its replica has ended, or nobody has used it for `session_timeout_s`, a step gets the
    status 410 (:class:`SessionLost` in Python), and the client begins again. Where the number of replicas changes, a
    part of the sessions is lost in the same way.

    Parameters
    ----------
    model : path, bytes or recurve.Model
        A path must lead to the file on every machine. Bytes, of an ONNX file or one of Recurve's own, and models travel
        with the application.
    max_batch_size : int
        The largest number of requests in one batch.
    batch_wait_timeout_s : float
        How long a request waits for others.
    num_replicas : int or "auto", optional
        The number of replicas; with ``autoscaling_config`` Ray finds it.
    num_cpus, num_gpus : float
        What Ray reserves for a replica; a part of a GPU, ``num_gpus=0.25``, is shared by several.
    device : str
        As in :func:`recurve.load`; ``"auto"`` is the reserved GPU, else the CPU.
    pad, length_input
        How sequences of different lengths come into a batch, as in :class:`Predictor`.
    states : dict, optional
        As in :meth:`recurve.Model.session`.
    session_timeout_s : float
        After how many seconds without a step a session is closed.
    max_sessions : int
        How many sessions a replica may have; another one is refused with the status 503.
    name : str
        The name of the deployment.
    **options
        Further options of :func:`ray.serve.deployment`, such as ``autoscaling_config`` or ``max_ongoing_requests``.

    Returns
    -------
    ray.serve.Application

    Examples
    --------
    >>> from ray import serve
    >>> handle = serve.run(recurve.ray.serve_app("gtcrn.onnx", num_replicas=2))     # doctest: +SKIP
    >>> with recurve.ray.Client(handle).session() as session:                       # doctest: +SKIP
    ...     clean = session.step({"mix": frame})["enh"]
    """
    for argument, value in [("max_batch_size", max_batch_size), ("max_sessions", max_sessions)]:
        if value < 1:
            raise ValueError(f"{argument} must be at least 1, but it is {value}")
    if not session_timeout_s > 0:
        raise ValueError(f"session_timeout_s must be above 0, but it is {session_timeout_s}")
    actor = {"num_cpus": num_cpus, "num_gpus": num_gpus, **options.pop("ray_actor_options", {})}
    if num_replicas is not None:
        options["num_replicas"] = num_replicas
    # As many as a batch that runs and one that fills have, so that a busy replica has the next batch ready.
    options.setdefault("max_ongoing_requests", 4 * max_batch_size)
    options.setdefault(
        "request_router_config", RequestRouterConfig(request_router_class="recurve.ray._router.SessionRouter")
    )
    deployment = serve.deployment(_Replica, name=name, ray_actor_options=actor, **options)
    return deployment.bind(
        shipped(model),
        device,
        max_batch_size,
        batch_wait_timeout_s,
        {"pad": pad, "length_input": length_input},
        None if states is None else dict(states),
        session_timeout_s,
        max_sessions,
    )


class Client:
    """Asks a served model from Python, in a driver, a task or an actor of the cluster.

    Ray Serve sends a request to another replica if the first one has ended before it took the request. A request that
    ends with its replica is an error there; a client sends it again, because a model without states gives the same
    answer twice.

    Parameters
    ----------
    handle : ray.serve.handle.DeploymentHandle
        What :func:`ray.serve.run` or :func:`ray.serve.get_app_handle` gives.
    retries : int
        How many times a request is sent again.
    timeout_s : float, optional
        How long one try may take.
    """

    def __init__(self, handle: Any, *, retries: int = 5, timeout_s: float | None = 60.0):
        self._handle = handle
        self._retries = retries
        self._timeout = timeout_s
        #: How many times a request was sent again.
        self.retried = 0

    def run(self, sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs for a sample.

        Parameters
        ----------
        sample : mapping of str to array
            The inputs, without the axis of the batch.

        Returns
        -------
        dict of str to array
            The outputs, without the axis of the batch.

        Raises
        ------
        ValueError, TypeError
            For an input that is wrong.
        ray.exceptions.ActorDiedError
            If more replicas have ended one after the other than there are retries.
        """
        sample = dict(sample)
        for attempt in range(self._retries + 1):
            try:
                outputs: dict[str, np.ndarray] = self._handle.run.remote(sample).result(timeout_s=self._timeout)
                return outputs
            except (ActorDiedError, ActorUnavailableError):
                if attempt == self._retries:
                    raise
                self.retried += 1
                time.sleep(min(1.0, 0.05 * 2**attempt))
        raise AssertionError("the last try returns or raises")

    def session(self) -> Session:
        """Begins a session."""
        for attempt in range(self._retries + 1):
            try:
                return Session(self._handle, self._timeout)
            except SessionLost:
                # Its replica has ended, and nothing was lost yet.
                if attempt == self._retries:
                    raise
                time.sleep(min(1.0, 0.05 * 2**attempt))
        raise AssertionError("the last try returns or raises")


class Session:
    """Steps of one stream, whose states stay on the device of a replica. Made by :meth:`Client.session`; a context
    manager, which closes it."""

    def __init__(self, handle: Any, timeout_s: float | None):
        #: The name of the session, which nobody can guess.
        self.id = secrets.token_hex(16)
        self._handle = handle.options(session_id=self.id)
        self._timeout = timeout_s
        self._steps = 0
        self._call("begin")

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            reply = getattr(self._handle, method).remote(self.id, *arguments)
            return reply.result(timeout_s=self._timeout)
        except (ActorDiedError, ActorUnavailableError) as e:
            raise SessionLost(f"session {self.id}: its replica has ended; begin a new one") from e

    def step(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The outputs of the next step.

        Parameters
        ----------
        inputs : mapping of str to array
            The inputs that are no states, without the axis of the batch.

        Returns
        -------
        dict of str to array
            The outputs that are no states, without the axis of the batch.

        Raises
        ------
        SessionLost
            If the replica has ended or the session has expired. A new session begins with states of zeros.
        """
        outputs: dict[str, np.ndarray] = self._call("step", dict(inputs), self._steps)
        self._steps += 1
        return outputs

    def close(self) -> None:
        """Drops the states. Without it they are dropped after some time."""
        try:
            self._call("end")
        except SessionLost:
            pass

    def __enter__(self) -> Session:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
