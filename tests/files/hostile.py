"""An HTTP server on the loopback interface whose answers are written byte by byte."""

import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files.download import download_file
from mmf_flava.files.download_errors import DownloadError


class HostileServer:
    """Calls ``answer(connection, request, number)`` for every connection, with its HTTP request as text.

    Attributes:
        url: address of the server.
        requests: the requests so far.
    """

    def __init__(self, answer, wrap=lambda connection: connection):
        self.answer, self.wrap, self.requests = answer, wrap, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.stopped = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self.stopped.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def drip(self, connection, data, seconds=0.05):
        """Send a byte at a time until the client or the test ends."""
        for byte in data:
            if self.stopped.is_set():
                return
            connection.sendall(bytes([byte]))
            time.sleep(seconds)

    def _serve(self):
        while not self.stopped.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection):
        with suppress(OSError), closing(self.wrap(connection)) as wrapped:
            request = b""
            while b"\r\n\r\n" not in request and (received := wrapped.recv(65536)):
                request += received
            self.requests.append(request.decode(errors="replace"))
            self.answer(self, wrapped, self.requests[-1], len(self.requests))


def response(body=b"", status="200 OK", **headers):
    """Return the bytes of a response. The underscores of header names become hyphens; Content-Length is added."""
    headers = {"Content_Length": len(body), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


CONTENT = bytes(range(256)) * 40
LIMIT = 3  # seconds that a download may take with the time limits of the fixture ``short_limits``


def fails(url, match, kind=UserError, **options):
    """Download ``url``, which must raise an error within the time limit: one line without the URL's secrets."""
    start = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        download_file(url, progress=False, **options)
    assert time.monotonic() - start < LIMIT
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message and caught.value.__cause__ is None
    assert message.endswith(".")


def fetched(url, **options):
    start = time.monotonic()
    file = download_file(url, progress=False, **options)
    assert time.monotonic() - start < LIMIT
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(".part")] == []
    return file.read_bytes()


def sends(data):
    return lambda server, connection, request, number: connection.sendall(data)


def cut_then(answer, **headers):
    """Answer the first request with a part of CONTENT and the others with ``answer``."""

    def reply(server, connection, request, number):
        if number == 1:
            connection.sendall(response(CONTENT, **headers)[:-5000])
        else:
            connection.sendall(answer(request))

    return reply


def interrupted(server):
    fails(f"{server.url}/a.bin", r"closed after 5,240 of 10,240 bytes\. Run the command again", DownloadError)


def ranged(request):
    return next((line.partition(": ")[2] for line in request.splitlines() if line.startswith("Range")), None)
