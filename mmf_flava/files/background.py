"""Background threads of a process, for downloads of what is needed later."""

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

MAX_TASKS = 1 << 16  # what is not downloaded in advance is downloaded when it is needed


class BackgroundThreads:
    """Daemon threads that call functions in the order in which they were submitted, and ignore their exceptions.

    At most ``MAX_TASKS`` calls wait; further calls are dropped. The end of the process does not wait for them.
    """

    def __init__(self, count: int) -> None:
        self._tasks: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = queue.Queue(MAX_TASKS)
        for _ in range(count):
            threading.Thread(target=self._run, name="mmf_flava background", daemon=True).start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        with suppress(queue.Full):
            self._tasks.put_nowait((function, arguments))

    def _run(self) -> None:
        while True:
            function, arguments = self._tasks.get()
            with suppress(Exception):
                function(*arguments)


@cache
def background_threads(count: int) -> BackgroundThreads:
    """Return the ``count`` background threads of this process. They are started at the first call."""
    return BackgroundThreads(count)


os.register_at_fork(after_in_child=background_threads.cache_clear)  # threads do not survive a fork
