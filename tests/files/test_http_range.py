import multiprocessing
import re
import threading
import time
from contextlib import suppress

import pytest

from mmf_flava.files import http_connection
from mmf_flava.files.download_errors import DownloadError, RangeRefusedError
from mmf_flava.files.http_range import read_range
from tests.files.hostile import CONTENT, LIMIT, response

pytestmark = pytest.mark.usefixtures("short_limits")


@pytest.fixture(autouse=True)
def no_kept_connections(monkeypatch):
    monkeypatch.setattr(http_connection, "_kept", threading.local())


def part(request, **headers):
    """Return the response to a request for a range of CONTENT."""
    start, end = map(int, re.search(r"Range: bytes=(\d+)-(\d+)", request).groups())
    content_range = f"bytes {start}-{end}/{len(CONTENT)}"
    return response(CONTENT[start : end + 1], "206 Partial Content", **{"Content_Range": content_range, **headers})


def repeatedly(count, answer=part):
    """Answer ``count`` requests of a connection and close it."""

    def serve(server, connection, request, number):
        connection.sendall(answer(request))
        for _ in range(count - 1):
            if not (request := connection.recv(65536).decode()):
                return
            server.requests.append(request)
            connection.sendall(answer(request))

    return serve


def read(server, start, size=10):
    began = time.monotonic()
    try:
        return b"".join(read_range(f"{server.url}/a.tar", start, size))
    finally:
        assert time.monotonic() - began < LIMIT


def connections(server, monkeypatch):
    """Return a list of the connections that are opened from now on."""
    opened, connect = [], http_connection._Connection.connect
    monkeypatch.setattr(http_connection._Connection, "connect", lambda self: opened.append(self) or connect(self))
    return opened


def test_a_connection_is_kept(serve, monkeypatch):
    server = serve(repeatedly(100))
    opened = connections(server, monkeypatch)
    for start in range(0, 200, 10):
        assert read(server, start) == CONTENT[start : start + 10]
    assert len(opened) == 1 and len(server.requests) == 20


def test_a_connection_that_the_server_has_closed_is_opened_again(serve, monkeypatch):
    server = serve(repeatedly(2))
    opened = connections(server, monkeypatch)
    for start in range(0, 50, 10):
        assert read(server, start) == CONTENT[start : start + 10]
    assert len(opened) == 3


@pytest.mark.parametrize("status", ["206 Partial Content", "302 Found", "503 Service Unavailable"])
def test_the_rest_of_a_response_is_not_taken_for_the_next_one(serve, status):
    bodies = [response(b"HTTP/1.1 206 OK\r\n\r\n" * 1000, status, Location="/b.tar", Content_Range="bytes 0-9/100")]
    server = serve(repeatedly(9, lambda request: bodies.pop() if bodies else part(request)))
    with suppress(RangeRefusedError, DownloadError):
        read(server, 10)
    assert read(server, 20) == CONTENT[20:30]


def test_chunks(serve):
    def answer(request):
        body = CONTENT[10:20]
        chunks = b"4\r\n" + body[:4] + b"\r\n6\r\n" + body[4:] + b"\r\n0\r\n\r\n"
        headers = {"Content_Length": None, "Transfer_Encoding": "chunked", "Content_Range": "bytes 10-19/100"}
        return response(status="206 Partial Content", **headers) + chunks

    server = serve(repeatedly(9, answer))
    assert [read(server, 10) for _ in range(3)] == [CONTENT[10:20]] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 0-9/100"},
        {"Content_Range": "bytes 10-29/100"},
        {"Content_Range": "bytes 10-5/100"},
        {"Content_Range": "items 10-19/100"},
        {"Content_Range": None},
        {"Content_Length": 12},
    ],
    ids=str,
)
def test_another_range(serve, headers):
    server = serve(repeatedly(9, lambda request: part(request, **headers)))
    with pytest.raises(RangeRefusedError, match="does not send the requested range"):
        read(server, 10)


def test_a_complete_file_is_refused(serve):
    with pytest.raises(RangeRefusedError):
        read(serve(lambda server, connection, *_: connection.sendall(response(CONTENT))), 10)


def test_a_file_that_ends_before(serve):
    server = serve(repeatedly(9, lambda request: response(b"abc", "206 OK", Content_Range="bytes 10-12/13")))
    assert read(server, 10) == b"abc"


def test_a_cut_connection(serve):
    server = serve(lambda server, connection, request, number: connection.sendall(part(request)[:-1]))
    with pytest.raises(DownloadError, match="closed before the end of a range"):
        read(server, 10)


@pytest.mark.parametrize("sent", [0, 100])
def test_a_slow_server(serve, sent):
    def answer(server, connection, request, number):
        connection.sendall(part(request)[:sent])
        server.stopped.wait(LIMIT)

    with pytest.raises(DownloadError, match="fewer than 5,000 bytes"):
        read(serve(answer), 10, 5000)


def test_credentials_are_sent_to_their_server_only(serve):
    other = serve(repeatedly(9))
    first = serve(repeatedly(9, lambda _: response(status="302 Found", Location=f"{other.url}/b.tar")))
    for start in (10, 20):
        address = first.url.replace("://", "://user:secret@")
        assert b"".join(read_range(f"{address}/a.tar", start, 10)) == CONTENT[start : start + 10]
    assert all("Authorization" in request for request in first.requests) and len(first.requests) == 2
    assert not any("Authorization" in request for request in other.requests) and len(other.requests) == 2


def test_a_forked_process_opens_its_own_connection(serve, monkeypatch):
    monkeypatch.setattr(http_connection, "TIMEOUT", 30)
    server = serve(repeatedly(100))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def read_many():
        parts = {start: b"".join(read_range(f"{server.url}/a.tar", start, 10)) for start in range(0, 500, 10)}
        queue.put(all(part == CONTENT[start : start + 10] for start, part in parts.items()))

    read(server, 0)
    children = [context.Process(target=read_many) for _ in range(2)]
    for child in children:
        child.start()
    read_many()
    assert [queue.get(timeout=30) for _ in range(3)] == [True] * 3
    for child in children:
        child.join()


def test_a_proxy_is_used(serve, monkeypatch):
    proxy = serve(repeatedly(1))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy")
    assert b"".join(read_range("http://host.invalid/a.tar", 10, 10)) == CONTENT[10:20]
    assert proxy.requests[0].startswith("GET http://host.invalid/a.tar ")


def test_few_connections_are_kept(serve):
    servers = [serve(repeatedly(9)) for _ in range(http_connection.MAX_KEPT + 2)]
    for server in servers:
        read(server, 0)
    assert len(http_connection._kept.connections) == http_connection.MAX_KEPT
