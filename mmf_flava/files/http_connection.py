"""HTTP connections with time limits.

A time limit per read is not enough: a server that sends one byte a minute never exceeds it. These connections require a
minimum number of bytes per time.
"""

import http.client
import io
import math
import os
import socket
import ssl
import threading
import urllib.request
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60.0  # seconds to connect, and to wait for MINIMUM_BYTES
MINIMUM_BYTES = 60_000  # a server that sends fewer bytes while a download waits for TIMEOUT seconds is too slow
MAX_HEADERS = 1 << 20  # bytes of a response before its body
MAX_KEPT = 4  # connections that a thread keeps open
_kept = threading.local()  # connections: (process, scheme, host) -> connection and its last response


def send(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Send a request through the proxies of the environment, if any. Return the response, whatever its status is.

    Raises:
        OSError: connecting failed, or the server is too slow.
        http.client.HTTPException, ValueError: the request or the response is not valid.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), _Handler(), _SecureHandler()):
        opener.add_handler(handler)
    response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT)
    return response


def send_kept(request: urllib.request.Request) -> http.client.HTTPResponse:
    """Send a request through a connection that this thread keeps open. Return the response, whatever its status is.

    If the server has closed the connection meanwhile, a new one is opened. Connections through proxies are not kept.

    Raises:
        OSError, http.client.HTTPException, ValueError: see ``send``.
    """
    address = urlsplit(request.full_url)
    connections = _kept.__dict__.setdefault("connections", {})
    key = os.getpid(), address.scheme, address.netloc  # a connection cannot be used by two processes after a fork
    if key not in connections and _has_proxy(request):
        return send(request)
    connection, last = connections.pop(key, (None, None))
    if connection is None and address.scheme == "https":
        connection = _SecureConnection(address.netloc, timeout=TIMEOUT, context=ssl.create_default_context())
    elif connection is None:
        connection = _Connection(address.netloc, timeout=TIMEOUT)
    elif not last.is_complete:
        connection.close()  # the rest of the last response would be read as the next one
    is_new = connection.sock is None
    try:
        response = _ask(connection, request)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        if is_new or isinstance(error, TimeoutError):
            raise
        response = _ask(connection, request)  # the server had closed the connection; a new one is opened
    while len(connections) >= MAX_KEPT:
        connections.pop(next(iter(connections)))[0].close()
    connections[key] = connection, response
    return response


def _has_proxy(request: urllib.request.Request) -> bool:
    return request.type in urllib.request.getproxies() and not urllib.request.proxy_bypass(request.host)


def _ask(connection: http.client.HTTPConnection, request: urllib.request.Request) -> "_TimedResponse":
    connection.request("GET", request.selector, headers=dict(request.header_items()))
    response = connection.getresponse()
    assert isinstance(response, _TimedResponse)
    return response


class _TimedReader(io.RawIOBase):
    """Bytes of a socket. Raises TimeoutError if fewer than MINIMUM_BYTES arrive while it waits for TIMEOUT seconds."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._socket, self._raw, self._waited, self._received = connection, raw, 0.0, 0
        self.left: float = MAX_HEADERS  # bytes that may still be read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            start, count = monotonic(), None
            self._socket.settimeout(max(TIMEOUT - self._waited, 0.001))
            with suppress(TimeoutError):
                count = self._socket.recv_into(buffer)
            self._waited += monotonic() - start
            self._received += count or 0
            if self._waited >= TIMEOUT:
                if self._received < MINIMUM_BYTES:
                    raise TimeoutError(f"fewer than {MINIMUM_BYTES:,} bytes in {TIMEOUT:g} s")
                self._waited, self._received = 0.0, 0
            if count is not None:
                self.left -= count
                if self.left < 0:
                    raise OSError(f"the headers are longer than {MAX_HEADERS:,} bytes")
                return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._reader = _TimedReader(sock, self.fp.detach())  # type: ignore[attr-defined]
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        self._reader.left = math.inf

    @property
    def is_complete(self) -> bool:
        """Whether the body was read to its end, so that the connection can be used for another request."""
        return self.length == 0 and not self.chunked


class _Connection(http.client.HTTPConnection):
    response_class = _TimedResponse


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _TimedResponse


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req, context=ssl.create_default_context())
