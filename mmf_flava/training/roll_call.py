"""When one of several processes dies or hangs, the others say which one, and end, even from inside a collective.

Every process has a connection to the first one, of its own, beside those of gloo and NCCL. A process that dies closes
its end, which the system does for it; one that is paused or cut off falls silent; one that fails says why.
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

from mmf_flava.ranks import gather_objects, rank, world_size
from mmf_flava.training.signals import STOPPED

PEER_DIED = 69  # the exit code of those that a dead process leaves behind: EX_UNAVAILABLE of sysexits.h
LONGEST = 4096  # bytes of a message


class Line:
    """A connection that carries JSON objects and never blocks.

    Attributes:
        rank: of the process at the other end; None before it has introduced itself.
        silence: our beats since it was last heard.
    """

    def __init__(self, connection: socket.socket, rank: int | None) -> None:
        self.socket, self.rank, self.silence = connection, rank, 0
        self._rest = b""
        connection.setblocking(False)

    def send(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # whoever cannot be written to is found by reading
            self.socket.send(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come; None where the other end is gone, or speaks something else."""
        try:
            data = self.socket.recv(LONGEST)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError, RecursionError):
            return None
        return messages if data and len(self._rest) < LONGEST else None


class RollCall:
    """Watches the processes of a run, and is watched, from ``start`` to ``leave``; a run of one process needs none.

    While it is entered, an exception is reported to the others before it goes its way. The others end with
    ``PEER_DIED``: at once where a process has died, within half a minute where it fell silent. Silence is counted in
    beats of the watcher, so that a process that was paused itself suspects nobody. The beats are a thread's, beside
    which evaluating, saving, loading and compiling go on; only a call into C that held Python's lock for all of
    ``patience`` would look like a hang.

    Args:
        update: how many updates are done.
        beat: seconds between two signs of life.
        patience: beats of silence after which a process is given up.
        grace: seconds in which a process may end by the error that another has told of, for a mistake is often
            everybody's; an error of torch waits twice as long, for it may be a collective's whose other end has died.
    """

    def __init__(self, update: Callable[[], int], beat: float = 4.0, patience: int = 5, grace: float = 3.0) -> None:
        self._update, self._beat, self._patience, self._grace = update, beat, patience, grace
        self._lines: dict[int, Line] = {}
        self._names: list[str] = []
        self._ending = threading.Event()  # this process ends in a way of its own
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> list[int]:
        """All processes must call it.

        Returns:
            the ranks that could not reach the first process, and are not watched.
        """
        if world_size() == 1:
            return []
        hosts = gather_objects((socket.gethostname(), os.getpid()))
        self._names = [f"rank {number} on {host} (process {pid})" for number, (host, pid) in enumerate(hosts)]
        self._rank, self._selector = rank(), selectors.DefaultSelector()
        self._token, port = "", 0
        if self._rank == 0:
            here = "127.0.0.1" if len({host for host, _ in hosts}) == 1 else ""
            listener = socket.create_server((here, 0), backlog=len(hosts))
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
            self._token, port = secrets.token_hex(), listener.getsockname()[1]
            self._begin()
        self._token, port = gather_objects((self._token, port))[0]
        if self._rank > 0:
            first = hosts[0][0]
            local = ["127.0.0.1"] if first == socket.gethostname() else []
            for host in [*local, *filter(None, [os.environ.get("MASTER_ADDR")]), first]:
                with contextlib.suppress(OSError):
                    self._lines[0] = self._call(host, port)
                    self._begin()
                    break
        watched = gather_objects(self._thread is not None)
        if self._rank == 0:
            self._selector.unregister(listener)
            listener.close()
        return [number for number, is_watched in enumerate(watched) if not is_watched]

    def _call(self, host: str, port: int) -> Line:
        connection = socket.create_connection((host, port), timeout=10)
        connection.sendall(json.dumps({"token": self._token, "rank": self._rank}).encode() + b"\n")
        if not connection.recv(1, socket.MSG_PEEK):
            raise ConnectionError
        line = Line(connection, 0)
        self._selector.register(connection, selectors.EVENT_READ, line)
        return line

    def _begin(self) -> None:
        # what a loader forks would keep a dead process's connections open
        os.register_at_fork(after_in_child=self._close)
        self._thread = threading.Thread(target=self._hold, name="roll call", daemon=True)
        self._thread.start()

    def _close(self) -> None:
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    # ------------------------------------------------------------------ the thread

    def _hold(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set() and (self._rank == 0 or self._lines):
            for key, _ in self._selector.select(min(max(0.0, due - time.monotonic()), 0.5)):
                if key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._hear(key.data)
            if time.monotonic() >= due:
                due = time.monotonic() + self._beat
                self._count()
        with self._lock:
            self._lines.clear()
            self._close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            self._selector.register(connection, selectors.EVENT_READ, Line(connection, None))

    def _hear(self, line: Line) -> None:
        messages = line.receive()
        for message in messages or []:
            line.silence = 0
            if line.rank is None:
                if message.get("token") != self._token:
                    messages = None
                    break
                line.rank = int(message["rank"])
                with self._lock:
                    self._lines[line.rank] = line
                line.send()
            elif "leaves" in message:
                self._drop(line)
                return
            elif "found" in message:
                self._end(message["found"], message["grace"])
            elif "error" in message:
                self._find(line.rank, f"ended at update {self._update()} with {message['error']}", self._grace)
        if messages is None:
            self._drop(line)
            if line.rank is not None:
                guess = "it was killed, perhaps for lack of memory, or it crashed"
                self._find(line.rank, f"ended at update {self._update()} without a word: {guess}")

    def _drop(self, line: Line) -> None:
        with self._lock:
            self._lines.pop(-1 if line.rank is None else line.rank, None)
        self._selector.unregister(line.socket)
        line.socket.close()

    def _count(self) -> None:
        for line in list(self._lines.values()):
            line.send()
            line.silence += 1
            if line.silence > self._patience:
                assert line.rank is not None
                seconds = round(self._beat * self._patience)
                what = f"has given no sign of life for {seconds} s at update {self._update()}: it is paused, or cut off"
                self._find(line.rank, what)

    def _find(self, number: int, what: str, grace: float = 0.0) -> None:
        sentence = f"{self._names[number]} {what}"
        if self._rank == 0:
            for line in self._lines.values():
                line.send(found=sentence, grace=grace)
        self._end(sentence, grace)

    def _end(self, sentence: str, grace: float) -> None:
        """Ends this process, unless it ends by itself within ``grace``."""
        if self._ending.wait(grace):
            return
        remedy = "start again with checkpoint.resume=true, which goes on from the newest checkpoint"
        # no print: its lock may be the main thread's, which waits for the dead
        os.write(2, f"\nmmf_flava: {sentence}; {remedy}.\n".encode())
        os._exit(PEER_DIED)

    # ------------------------------------------------------------------ the main thread

    def leave(self) -> None:
        """This process is done: nobody is to miss it."""
        self._depart(leaves=True)

    def _depart(self, **word: Any) -> None:
        if self._thread is None:
            return
        with self._lock:
            self._ending.set()
            for line in self._lines.values():
                line.send(**word)

    def __enter__(self) -> "RollCall":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or self._thread is None:
            return
        if isinstance(error, SystemExit) and error.code in (None, 0, STOPPED):
            self.leave()
            return
        if isinstance(error, RuntimeError):  # a collective's, perhaps, whose other end is gone: the thread will know
            self._thread.join(2 * self._grace)
        self._depart(error=f"{type(error).__name__}: {error}".split("\n")[0][:300].rstrip(".: "))
