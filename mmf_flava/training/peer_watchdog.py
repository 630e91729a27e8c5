"""Detection of dead, failed and hung processes. The other processes report the failure and exit.

They exit even if they are waiting in a collective operation.

Every process has a TCP connection to rank 0, in addition to the connections of gloo and NCCL. The operating system
closes the connection of a dead process. A suspended or disconnected process sends no heartbeats. A process that fails
with an exception sends its error message.
"""

import contextlib
import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mmf_flava.files.json_data import parse_object
from mmf_flava.processes import gather_objects, rank, world_size
from mmf_flava.training.signals import STOPPED

PEER_DIED = 69  # exit code of a process that exits because another process died: EX_UNAVAILABLE of sysexits.h
MAX_MESSAGE = 4096  # bytes
# what the user can do after a failure, in training and in an evaluation
RESUME = "Restart with checkpoint.resume=true to resume from the newest checkpoint"
REPEAT = "Run the command again"


class PeerConnection:
    """A non-blocking connection that sends and receives JSON objects.

    Attributes:
        rank: rank of the process at the other end; None before its first message.
        missed_beats: number of heartbeats that this process has sent since it last received a message.
    """

    def __init__(self, connection: socket.socket, rank: int | None) -> None:
        self.socket, self.rank, self.missed_beats = connection, rank, 0
        self._buffer = b""
        connection.setblocking(False)

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # receive() reports broken connections
            self.socket.send(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the received messages, or None if the connection is closed or the data are not valid messages."""
        try:
            data = self.socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            messages = [parse_object(line) for line in lines]
        except ValueError:
            return None
        return messages if data and len(self._buffer) < MAX_MESSAGE else None


class PeerWatchdog:
    """Watches the other processes of a run between ``start`` and ``stop``. Does nothing if the run has one process.

    As a context manager, it reports an exception of this process to the other processes and re-raises the exception.
    When a process fails, the other processes exit with ``PEER_DIED``: immediately if the process has died, and within
    half a minute if its heartbeats stop. The timeout is a number of heartbeats sent by the watching process, so a
    process that was suspended does not report the others when it resumes. A thread sends the heartbeats, so evaluation,
    saving, loading and compilation do not interrupt them. A C call would be mistaken for a hang only if it held the GIL
    for ``max_missed`` heartbeats.

    Args:
        update: function that returns the number of completed updates.
        remedy: what the user can do after a failure.
        interval: seconds between two heartbeats.
        max_missed: number of missed heartbeats after which a process counts as hung.
        grace_period: seconds that a process waits before it exits because of an error in another process. Often
            it fails with the same error itself in the meantime. A process waits twice as long before it reports a
            RuntimeError, because the cause may be a collective with a dead process.
    """

    def __init__(
        self,
        update: Callable[[], int],
        remedy: str = RESUME,
        interval: float = 4.0,
        max_missed: int = 5,
        grace_period: float = 3.0,
    ) -> None:
        self._update, self._remedy = update, remedy
        self._interval, self._max_missed, self._grace_period = interval, max_missed, grace_period
        self._connections: dict[int, PeerConnection] = {}
        self._names: list[str] = []
        self._stopping = threading.Event()  # set when this process stops the watchdog itself
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> list[int]:
        """Connect all processes to rank 0 and start the watchdog thread. Must be called by all processes.

        Returns:
            The ranks that could not connect to rank 0 and are not watched.
        """
        if world_size() == 1:
            return []
        hosts = gather_objects((socket.gethostname(), os.getpid()))
        self._names = [f"rank {number} on {host} (process {pid})" for number, (host, pid) in enumerate(hosts)]
        self._rank, self._selector = rank(), selectors.DefaultSelector()
        self._token, port = "", 0
        if self._rank == 0:
            address = "127.0.0.1" if len({host for host, _ in hosts}) == 1 else ""
            listener = socket.create_server((address, 0), backlog=len(hosts))
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
            self._token, port = secrets.token_hex(), listener.getsockname()[1]
            self._start_thread()
        self._token, port = gather_objects((self._token, port))[0]
        if self._rank > 0:
            first_host = hosts[0][0]
            local = ["127.0.0.1"] if first_host == socket.gethostname() else []
            for host in [*local, *filter(None, [os.environ.get("MASTER_ADDR")]), first_host]:
                with contextlib.suppress(OSError):
                    self._connections[0] = self._connect(host, port)
                    self._start_thread()
                    break
        watched = gather_objects(self._thread is not None)
        if self._rank == 0:
            self._selector.unregister(listener)
            listener.close()
        return [number for number, is_watched in enumerate(watched) if not is_watched]

    def _connect(self, host: str, port: int) -> PeerConnection:
        connection = socket.create_connection((host, port), timeout=10)
        connection.sendall(json.dumps({"token": self._token, "rank": self._rank}).encode() + b"\n")
        if not connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError
        peer = PeerConnection(connection, 0)
        self._selector.register(connection, selectors.EVENT_READ, peer)
        return peer

    def _start_thread(self) -> None:
        # forked data loader workers would keep the connections of a dead process open
        os.register_at_fork(after_in_child=self._close)
        self._thread = threading.Thread(target=self._run, name="peer watchdog", daemon=True)
        self._thread.start()

    def _close(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    # ------------------------------------------------------------------ watchdog thread

    def _run(self) -> None:
        next_beat = time.monotonic()
        while not self._stopping.is_set() and (self._rank == 0 or self._connections):
            for key, _ in self._selector.select(min(max(0.0, next_beat - time.monotonic()), 0.5)):
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._handle_messages(key.data)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + self._interval
                self._send_heartbeats()
        with self._lock:
            self._connections.clear()
            self._close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            self._selector.register(connection, selectors.EVENT_READ, PeerConnection(connection, None))

    def _handle_messages(self, peer: PeerConnection) -> None:
        messages = peer.receive()
        for message in messages or []:
            peer.missed_beats = 0
            if peer.rank is None:
                if message.get("token") != self._token:
                    messages = None
                    break
                peer.rank = int(message["rank"])
                with self._lock:
                    self._connections[peer.rank] = peer
                peer.send()
            elif "stopped" in message:
                self._disconnect(peer)
                return
            elif "failure" in message:
                self._exit(message["failure"], message["grace_period"])
            elif "error" in message:
                reason = f"failed at update {self._update()} with {message['error']}"
                self._report_failure(peer.rank, reason, self._grace_period)
        if messages is None:
            self._disconnect(peer)
            if peer.rank is not None:
                cause = "it crashed or was killed, e.g. by the out-of-memory killer"
                self._report_failure(peer.rank, f"exited at update {self._update()} without an error message: {cause}")

    def _disconnect(self, peer: PeerConnection) -> None:
        with self._lock:
            self._connections.pop(-1 if peer.rank is None else peer.rank, None)
        self._selector.unregister(peer.socket)
        peer.socket.close()

    def _send_heartbeats(self) -> None:
        for peer in list(self._connections.values()):
            peer.send()
            peer.missed_beats += 1
            if peer.missed_beats > self._max_missed:
                assert peer.rank is not None
                seconds = round(self._interval * self._max_missed)
                reason = f"sent no heartbeat for {seconds} s at update {self._update()}"
                self._report_failure(peer.rank, f"{reason}: it is suspended or disconnected")

    def _report_failure(self, peer_rank: int, reason: str, grace_period: float = 0.0) -> None:
        failure = f"{self._names[peer_rank]} {reason}"
        if self._rank == 0:
            for peer in self._connections.values():
                peer.send(failure=failure, grace_period=grace_period)
        self._exit(failure, grace_period)

    def _exit(self, failure: str, grace_period: float) -> None:
        """Exit this process, unless it exits by itself within ``grace_period`` seconds."""
        if self._stopping.wait(grace_period):
            return
        # os.write instead of print: the main thread may hold print's lock while it waits for the dead process
        os.write(2, f"\nmmf_flava: {failure}. {self._remedy}.\n".encode())
        os._exit(PEER_DIED)

    # ------------------------------------------------------------------ main thread

    def stop(self) -> None:
        """Stop watching, and inform the other processes that this process exits normally."""
        self._stop(stopped=True)

    def _stop(self, **message: Any) -> None:
        if self._thread is None:
            return
        with self._lock:
            self._stopping.set()
            for peer in self._connections.values():
                peer.send(**message)

    def __enter__(self) -> "PeerWatchdog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or self._thread is None:
            return
        if isinstance(error, SystemExit) and error.code in (None, 0, STOPPED):
            self.stop()
            return
        if isinstance(error, RuntimeError):  # the cause may be a dead process, which the thread reports
            self._thread.join(2 * self._grace_period)
        self._stop(error=f"{type(error).__name__}: {error}".split("\n")[0][:300].rstrip(".: "))
