"""Sums of arrays over the workers of a training, by sockets."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import selectors
import socket
import struct
import time
from typing import Any

import numpy as np

#: Of a message: its number since the ring was made, and the bytes that follow.
_HEADER = struct.Struct("<QQ")
#: The longest text of the handshake, in bytes: addresses of some ten thousand workers.
_MOST_TEXT = 1 << 20
_NONCE = 32


class WorkerLost(RuntimeError):
    """Another worker of a training has ended, does not answer, or is at another step."""


class AllReduce:
    """Sums arrays of float32 over the workers of a training.

    Workers form a ring. An array is cut into as many parts as there are workers; each part goes around the ring once to
    be summed and once more to be known to all. So each worker sends and receives twice the array, however many there
    are, and all have the same bits afterwards.

    Both ends of a connection prove that they know the token before anything else is read. What is sent afterwards is
    not encrypted.

    Parameters
    ----------
    rank : int
        The number of this worker, from 0.
    world_size : int
        The number of workers.
    token : bytes
        The same secret in all workers, 16 bytes or more.
    listener : socket.socket, optional
        For rank 0: where it waits for the others, from :meth:`listen`.
    address : (str, int), optional
        For the others: the address of rank 0.
    host : str
        The name or address by which other workers reach this one.
    timeout : float
        Seconds after which a worker from which nothing comes is lost.

    Raises
    ------
    WorkerLost
        If not all workers come within the timeout.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        token: bytes,
        *,
        listener: socket.socket | None = None,
        address: tuple[str, int] | None = None,
        host: str = "127.0.0.1",
        timeout: float = 60.0,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1}, but it is {rank}")
        if len(token) < 16:
            raise ValueError(f"token must have 16 bytes or more, but it has {len(token)}")
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0, but it is {timeout}")
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout
        self._token = bytes(token)
        self._messages = 0
        self._next: socket.socket | None = None
        self._previous: socket.socket | None = None
        if world_size == 1:
            return
        first = listener if rank == 0 else address
        if first is None:
            raise ValueError("rank 0 needs `listener`, and the others need `address`")
        try:
            self._form_ring(first, host)
        except (OSError, EOFError, ValueError) as e:
            self.close()
            raise WorkerLost(f"rank {rank}: the {world_size} workers could not be connected: {e}") from e

    @staticmethod
    def listen(host: str = "") -> socket.socket:
        """A socket that waits for workers at a free port; without a host at all addresses of the machine."""
        # Both families where the machine has IPv6, else IPv4.
        if not host and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
            except OSError:
                pass
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, 0), family=family, backlog=1024)

    def _form_ring(self, first: socket.socket | tuple[str, int], host: str) -> None:
        """All tell rank 0 where they wait, it tells all, and each connects to the next one."""
        deadline = time.monotonic() + self.timeout
        own = self.listen()
        with own:
            at = [host, own.getsockname()[1]]
            if isinstance(first, socket.socket):
                addresses = self._gather(first, at, deadline)
            else:
                with self._connect(first, 0, b"address", deadline) as link:
                    _send_text(link, json.dumps(at))
                    addresses = json.loads(_receive_text(link))
            if len(addresses) != self.world_size:
                raise ValueError(f"rank 0 has {len(addresses)} workers")
            # The system takes the connection before the next worker accepts it, so no one has to be first.
            behind = (self.rank + 1) % self.world_size
            before = (self.rank - 1) % self.world_size
            raw = self._dial(tuple(addresses[behind]), deadline)
            try:
                following, preceding = self._both(raw, own, behind, before, deadline)
            except BaseException:
                raw.close()
                raise
        self._next, self._previous = following, preceding
        for link in (following, preceding):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link.setblocking(False)

    def _gather(self, listener: socket.socket, own: list[Any], deadline: float) -> list[Any]:
        """Rank 0: where all workers wait."""
        addresses = {0: own}
        links = []
        try:
            while len(addresses) < self.world_size:
                link, rank = self._accept(listener, b"address", deadline)
                links.append(link)
                if rank in addresses or not 0 <= rank < self.world_size:
                    raise ValueError(f"there are two workers of rank {rank}")
                host, port = json.loads(_receive_text(link))
                addresses[rank] = [str(host), int(port)]
            table = [addresses[rank] for rank in range(self.world_size)]
            for link in links:
                _send_text(link, json.dumps(table))
            return table
        finally:
            for link in links:
                link.close()

    def _both(
        self, raw: socket.socket, own: socket.socket, behind: int, before: int, deadline: float
    ) -> tuple[socket.socket, socket.socket]:
        """The links to the next worker and from the one before. Rank 0 speaks first and the others listen first, so
        that the ring is closed by one worker after the other."""
        if self.rank == 0:
            following = self._greet(raw, behind, b"ring", deadline)
            preceding, rank = self._accept(own, b"ring", deadline)
        else:
            preceding, rank = self._accept(own, b"ring", deadline)
            following = self._greet(raw, behind, b"ring", deadline)
        if rank != before:
            preceding.close()
            raise ValueError(f"rank {rank} is where rank {before} should be")
        return following, preceding

    def _dial(self, address: tuple[str, int], deadline: float) -> socket.socket:
        """A connection to where a worker waits."""
        return socket.create_connection(address, timeout=_left(deadline))

    def _connect(self, address: tuple[str, int], rank: int, purpose: bytes, deadline: float) -> socket.socket:
        link = self._dial(address, deadline)
        try:
            return self._greet(link, rank, purpose, deadline)
        except BaseException:
            link.close()
            raise

    def _greet(self, link: socket.socket, rank: int, purpose: bytes, deadline: float) -> socket.socket:
        """The side that has connected: proves the token and has it proved."""
        link.settimeout(_left(deadline))
        theirs, mine = _receive(link, _NONCE), secrets.token_bytes(_NONCE)
        link.sendall(struct.pack("<I", self.rank) + mine + self._proof(purpose, b"connects", self.rank, theirs, mine))
        if not hmac.compare_digest(_receive(link, _NONCE), self._proof(purpose, b"accepts", rank, theirs, mine)):
            raise ValueError("a process at the address of a worker does not know the token")
        return link

    def _accept(self, listener: socket.socket, purpose: bytes, deadline: float) -> tuple[socket.socket, int]:
        """The side that waits: the next process that knows the token. Others are turned away."""
        while True:
            listener.settimeout(_left(deadline))
            link, _ = listener.accept()
            try:
                # A stranger that says nothing does not keep the workers waiting.
                link.settimeout(min(5.0, _left(deadline)))
                mine = secrets.token_bytes(_NONCE)
                link.sendall(mine)
                (rank,) = struct.unpack("<I", _receive(link, 4))
                theirs, proof = _receive(link, _NONCE), _receive(link, _NONCE)
                if hmac.compare_digest(proof, self._proof(purpose, b"connects", rank, mine, theirs)):
                    link.sendall(self._proof(purpose, b"accepts", self.rank, mine, theirs))
                    link.settimeout(_left(deadline))
                    return link, rank
            except (OSError, EOFError):
                pass
            link.close()

    def _proof(self, purpose: bytes, side: bytes, rank: int, accepting: bytes, connecting: bytes) -> bytes:
        """What only somebody with the token can say about a connection."""
        text = b"|".join([b"recurve", purpose, side, str(rank).encode(), str(self.world_size).encode()])
        return hmac.digest(self._token, text + accepting + connecting, hashlib.sha256)

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of the arrays of all workers.

        Parameters
        ----------
        array : array of float32
            Of the same length in all workers.

        Returns
        -------
        array of float32
            A new array of the same shape with the same bits in all workers.

        Raises
        ------
        TypeError
            For another type of elements.
        WorkerLost
            If a worker has ended or is silent, or gives an array of another length. Afterwards this object is closed.
        """
        array = np.asarray(array)
        if array.dtype != np.float32:
            raise TypeError(f"array must be of float32, but it is of {array.dtype}")
        # Bytes travel with the lowest first, as nearly all machines have them in memory.
        total = np.array(array, dtype="<f4", order="C").reshape(-1)
        if self.world_size > 1:
            if self._next is None or self._previous is None:
                raise RuntimeError("the connections of this AllReduce are closed")
            try:
                self._around(total, self._next, self._previous)
            except (OSError, EOFError, ValueError) as e:
                self.close()
                raise WorkerLost(f"rank {self.rank}: lost another worker: {e}") from e
        return total.astype(np.float32, copy=False).reshape(array.shape)

    def _around(self, total: np.ndarray, following: socket.socket, preceding: socket.socket) -> None:
        n = self.world_size
        ends = [len(total) * part // n for part in range(n + 1)]
        parts = [total[ends[part] : ends[part + 1]] for part in range(n)]
        for step in range(n - 1):
            mine, other = (self.rank - step) % n, (self.rank - step - 1) % n
            received = np.empty_like(parts[other])
            self._exchange(parts[mine], received, following, preceding)
            parts[other] += received
        for step in range(n - 1):
            mine, other = (self.rank + 1 - step) % n, (self.rank - step) % n
            self._exchange(parts[mine], parts[other], following, preceding)

    def _exchange(
        self, mine: np.ndarray, other: np.ndarray, following: socket.socket, preceding: socket.socket
    ) -> None:
        """Sends an array to the next worker while another one comes from the worker before."""
        header = _HEADER.pack(self._messages, mine.nbytes)
        out = [memoryview(header), mine.view(np.uint8).data]
        head = bytearray(_HEADER.size)
        into = [memoryview(head), other.view(np.uint8).data]
        expected = _HEADER.pack(self._messages, other.nbytes)
        self._messages += 1
        with selectors.DefaultSelector() as selector:
            selector.register(following, selectors.EVENT_WRITE)
            selector.register(preceding, selectors.EVENT_READ)
            while out or into:
                events = selector.select(self.timeout)
                if not events:
                    raise TimeoutError(f"nothing came for {self.timeout} s")
                for key, _ in events:
                    if key.fileobj is following:
                        out[0] = out[0][_sent(following, out[0]) :]
                        while out and not len(out[0]):
                            del out[0]
                        if not out:
                            selector.unregister(following)
                        continue
                    got = preceding.recv_into(into[0])
                    if got == 0:
                        raise EOFError(f"rank {(self.rank - 1) % self.world_size} has closed its connection")
                    into[0] = into[0][got:]
                    while into and not len(into[0]):
                        del into[0]
                        if len(into) == 1 and bytes(head) != expected:
                            raise ValueError(self._difference(head, other.nbytes))
                    if not into:
                        selector.unregister(preceding)

    def _difference(self, head: bytearray, want: int) -> str:
        message, size = _HEADER.unpack(head)
        before = (self.rank - 1) % self.world_size
        if message != self._messages - 1:
            return f"rank {before} is at message {message}, and this one at {self._messages - 1}"
        return f"rank {before} sends {size} bytes where {want} were expected: the arrays have different lengths"

    def close(self) -> None:
        """Closes the connections. The other workers notice at their next sum."""
        for link in (self._next, self._previous):
            if link is not None:
                link.close()
        self._next = self._previous = None

    def __enter__(self) -> AllReduce:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sent(link: socket.socket, data: memoryview) -> int:
    """How much of some bytes a socket takes now."""
    try:
        return link.send(data)
    except BlockingIOError:
        return 0


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("not all workers came in time")
    return left


def _receive(link: socket.socket, count: int) -> bytes:
    """Exactly as many bytes."""
    data = bytearray()
    while len(data) < count:
        part = link.recv(count - len(data))
        if not part:
            raise EOFError("a worker has closed its connection")
        data += part
    return bytes(data)


def _send_text(link: socket.socket, text: str) -> None:
    data = text.encode()
    link.sendall(struct.pack("<I", len(data)) + data)


def _receive_text(link: socket.socket) -> str:
    (size,) = struct.unpack("<I", _receive(link, 4))
    if size > _MOST_TEXT:
        raise ValueError(f"a worker sends a text of {size} bytes")
    return _receive(link, size).decode()
