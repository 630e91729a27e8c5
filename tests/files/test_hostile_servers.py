"""Servers that misbehave: each download ends in one sentence within its time limit, or with the right bytes."""

import base64
import hashlib
import ssl
import subprocess
import time

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files import http_connection, http_request
from mmf_flava.files.download import download_file
from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError
from tests.files.hostile import HostileServer, response

CONTENT = bytes(range(256)) * 40
LIMIT = 3  # seconds that a download may take with the time limits of these tests


@pytest.fixture(autouse=True)
def short_limits(monkeypatch, downloads):
    monkeypatch.setattr(http_connection, "TIMEOUT", 0.4)
    monkeypatch.setattr(http_connection, "MINIMUM_BYTES", 5000)
    monkeypatch.setattr(http_request, "MAX_WAIT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def serve():
    """Return ``serve(answer)``, which starts a server that ends with the test."""
    servers = []

    def start(answer, **options):
        servers.append(HostileServer(answer, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


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


# ---------------------------------------------------------------------- time


def test_server_that_never_answers(serve):
    server = serve(lambda server, *_: server.stopped.wait(LIMIT))
    fails(f"{server.url}/a.bin", "cannot be reached .*fewer than 5,000 bytes", DownloadError)


@pytest.mark.parametrize("part", ["status", "headers", "body", "chunks"])
def test_server_that_sends_slowly(serve, part):
    def answer(server, connection, request, number):
        if part == "body":
            connection.sendall(response(Content_Length=10_000))
        elif part == "headers":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-")
        elif part == "chunks":
            connection.sendall(response(Content_Length=None, Transfer_Encoding="chunked"))
        server.drip(connection, (b"1\r\nx\r\n" if part == "chunks" else b"H") * 200)

    fails(f"{serve(answer).url}/a.bin", "fewer than 5,000 bytes in 0.4 s", DownloadError)


def test_slow_server_above_the_minimum_rate_is_not_an_error(serve):
    def answer(server, connection, request, number):
        connection.sendall(response(Content_Length=len(CONTENT)))
        for start in range(0, len(CONTENT), 1024):
            connection.sendall(CONTENT[start : start + 1024])
            time.sleep(0.06)

    assert fetched(f"{serve(answer).url}/a.bin") == CONTENT


def test_endless_headers(serve):
    def answer(server, connection, request, number):
        for _ in range(1000):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    fails(f"{serve(answer).url}/a.bin", "cannot be reached", DownloadError)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_busy_server(serve, status):
    def busy(seconds, times):
        def answer(server, connection, request, number):
            headers = {} if seconds is None else {"Retry_After": seconds}
            connection.sendall(response(status=status, **headers) if number <= times else response(CONTENT))

        return f"{serve(answer).url}/a.bin"

    code = status[:3]
    assert fetched(busy("0", 2)) == CONTENT
    fails(busy("0", 100), rf"HTTP {code}\)\. Try again in 0 s", DownloadError)
    fails(busy("3600", 1), rf"HTTP {code}\)\. Try again in 3,600 s", DownloadError)
    fails(busy("Fri, 31 Dec 9999 23:59:59 GMT", 1), rf"HTTP {code}\)\. Try again in ", DownloadError)
    fails(busy("9" * 5000, 1), "Try again later", DownloadError)
    fails(busy(None, 1), "Try again later", DownloadError)


# ---------------------------------------------------------------------- length and encoding


@pytest.mark.parametrize("length", ["-5", "ten", "1e3", "9" * 5000, "+3", "10, 10", ""])
def test_content_length_that_is_not_a_number(serve, length):
    fails(f"{serve(sends(response(CONTENT, Content_Length=length))).url}/a.bin", "invalid Content-Length")


def test_content_length_that_is_absurd(serve):
    fails(f"{serve(sends(response(CONTENT, Content_Length=10**17))).url}/a.bin", "needs 100,000,.*free bytes. Free")


def test_content_length_that_is_too_large(serve):
    server = serve(sends(response(CONTENT, Content_Length=len(CONTENT) + 1)))
    fails(f"{server.url}/a.bin", "closed after 10,240 of 10,241 bytes", DownloadError)


def test_more_bytes_than_announced(serve):
    assert fetched(f"{serve(sends(response(CONTENT) + b'more')).url}/a.bin") == CONTENT


def test_chunks_that_are_cut(serve):
    body = b"100\r\n" + CONTENT[:200]
    data = response(Content_Length=None, Transfer_Encoding="chunked") + body
    fails(f"{serve(sends(data)).url}/a.bin", "connection was lost .*bytes were received", DownloadError)


def test_compressed_file(serve):
    server = serve(sends(response(CONTENT, Content_Encoding="gzip")))
    fails(f"{server.url}/a.bin", "the server compresses the file", DownloadError)
    assert "accept-encoding: identity" in server.requests[0].lower()


# ---------------------------------------------------------------------- resumed downloads


@pytest.mark.parametrize(
    "headers",
    [{"ETag": '"1"'}, {"ETag": 'W/"1"'}, {"Last_Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}, {}],
    ids=["ETag", "weak ETag", "Last-Modified", "neither"],
)
def test_download_resumes_only_if_a_change_would_be_noticed(serve, headers):
    def answer(request):
        start = int(ranged(request)[6:-1]) if ranged(request) else 0
        if not start:
            return response(CONTENT, **headers)
        content_range = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return response(CONTENT[start:], status="206 Partial Content", Content_Range=content_range, **headers)

    server = serve(cut_then(answer, **headers))
    interrupted(server)
    assert fetched(f"{server.url}/a.bin") == CONTENT
    assert ("Range: bytes=5240-" in "".join(server.requests)) == bool(headers)
    conditions = [header for header in headers.values() if not header.startswith("W/")]
    assert [line[10:] for line in server.requests[-1].splitlines() if line.startswith("If-Range")] == conditions


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_content_that_changes_between_cut_and_resume(serve, etag):
    new = CONTENT[::-1]

    def answer(request):  # the server ignores If-Range and does not change its ETag
        start = int(ranged(request)[6:-1]) if ranged(request) else 0
        headers = {
            "ETag": '"2"' if etag == '"1"' else etag,
            "Content_Range": f"bytes {start}-{len(new) - 1}/{len(new)}",
        }
        return response(new[start:], status="206 Partial Content" if start else "200 OK", **headers)

    server = serve(cut_then(answer, ETag=etag))
    interrupted(server)
    sha256 = hashlib.sha256(new).hexdigest() if etag != '"1"' else None
    assert fetched(f"{server.url}/a.bin", sha256=sha256) == new


def test_content_that_changes_during_the_resume(serve):
    """The first answer after the cut has the old ETag, the answer to the range request the new one."""
    new = CONTENT[::-1]

    def answer(request):
        return response(CONTENT if number() == 1 else new, ETag='"1"' if number() == 1 else '"2"')

    def number():
        return len(server.requests) - 1

    server = serve(cut_then(answer, ETag='"1"'))
    interrupted(server)
    assert fetched(f"{server.url}/a.bin") == new
    assert "If-Range" in server.requests[2]


def test_range_that_is_ignored(serve):
    server = serve(cut_then(lambda request: response(CONTENT, ETag='"1"'), ETag='"1"'))
    interrupted(server)
    assert fetched(f"{server.url}/a.bin") == CONTENT


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 0-10239/10240",
        "bytes 5239-10239/10240",
        "bytes 5240-10239/10241",
        "bytes */10240",
        "5240-10239/10240",
        None,
    ],
)
def test_part_that_begins_elsewhere(serve, content_range):
    def answer(request):
        if not ranged(request):
            return response(CONTENT, ETag='"1"')
        return response(CONTENT, status="206 Partial Content", ETag='"1"', Content_Range=content_range)

    server = serve(cut_then(answer, ETag='"1"'))
    interrupted(server)
    assert fetched(f"{server.url}/a.bin") == CONTENT


def test_part_that_was_not_requested(serve):
    content_range = f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"
    data = response(CONTENT[10:], status="206 Partial Content", Content_Range=content_range)
    fails(f"{serve(sends(data)).url}/a.bin", "sends only a part of the file", DownloadError)


def test_range_that_is_not_satisfiable(serve):
    def answer(request):
        return response(CONTENT, ETag='"1"') if not ranged(request) else response(status="416 Range Not Satisfiable")

    server = serve(cut_then(answer, ETag='"1"'))
    interrupted(server)
    assert fetched(f"{server.url}/a.bin") == CONTENT


# ---------------------------------------------------------------------- redirects and credentials


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/passwd", "redirects to a file: URL; only http and https"),
        ("ftp://127.0.0.1/a.bin", "redirects to a ftp: URL"),
        ("/a.bin?token=secret", "redirects more than 10 times"),
        ("http://[secret", "redirects to an invalid URL"),
        ("http://user:secret@:x/", "is not a valid URL"),
        (None, "redirects without a location"),
    ],
)
def test_redirects_that_are_not_followed(serve, location, message):
    server = serve(sends(response(status="302 Found", Location=location)))
    fails(f"{server.url}/a.bin?token=secret", message)


def test_redirect_with_an_endless_body(serve):
    def answer(server, connection, request, number):
        if number > 1:
            connection.sendall(response(CONTENT))
            return
        connection.sendall(response(status="302 Found", Location="/b.bin", Content_Length=10**15))
        for _ in range(100):
            connection.sendall(bytes(1 << 16))

    assert fetched(f"{serve(answer).url}/a.bin") == CONTENT


def test_credentials_are_sent_to_their_server_only(serve, downloads):
    other = serve(sends(response(CONTENT)))
    target = f"{other.url}/b.bin"
    server = serve(sends(response(status="302 Found", Location=target)))
    url = server.url.replace("://", "://user:sec%2Fret@")
    assert fetched(f"{url}/a.bin?token=secret#secret") == CONTENT
    expected = base64.b64encode(b"user:sec/ret").decode()
    assert f"Authorization: Basic {expected}" in server.requests[0]
    assert "GET /a.bin?token=secret HTTP" in server.requests[0]
    assert "Authorization" not in other.requests[0]
    names = " ".join(str(path) for path in downloads.rglob("*"))
    assert "a.bin" in names and not [word for word in ("user", "sec", "token") if word in names.lower()]


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1:1/a", "http://user:secret@[::1/a", "http://user:secret"])
def test_credentials_are_not_in_errors(url):
    fails(f"{url}?token=secret", "cannot be reached|is not a valid URL")


def test_denied_access(serve):
    server = serve(sends(response(status="401 Unauthorized")))
    url = server.url.replace("://", "://user:secret@")
    fails(f"{url}/a.bin", r"\*\*\*@127.*denied \(HTTP 401\)", RemoteFileNotFoundError)


# ---------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Key and certificate of localhost, in one file."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    try:
        subprocess.run([*command, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    file.write_text(file.read_text() + file.with_name("localhost.pem.crt").read_text())
    return file


@pytest.fixture
def secure(serve, certificate, monkeypatch):
    """Return ``secure(answer, trusted)``, the URL of an https server."""

    def start(answer, trusted):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = serve(answer, wrap=lambda connection: context.wrap_socket(connection, server_side=True))
        return server.url.replace("http://127.0.0.1", "https://localhost")

    return start


def test_untrusted_certificate(secure):
    fails(f"{secure(sends(response(CONTENT)), False)}/a.bin", "TLS certificate: self-signed", DownloadError)


def test_server_that_does_not_speak_tls(serve):
    server = serve(sends(response(CONTENT)))
    fails(f"{server.url.replace('http:', 'https:')}/a.bin?token=secret", "cannot be reached", DownloadError)


def test_tls_handshake_that_never_ends(serve):
    server = serve(lambda server, *_: server.stopped.wait(LIMIT))
    fails(f"{server.url.replace('http:', 'https:')}/a.bin", "cannot be reached .*timed out", DownloadError)


def test_redirect_from_https_to_http_is_refused(secure, serve):
    assert fetched(f"{secure(sends(response(CONTENT)), True)}/a.bin") == CONTENT
    plain = serve(sends(response(CONTENT)))
    url = secure(sends(response(status="302 Found", Location=f"{plain.url}/b.bin")), True)
    fails(f"{url.replace('://', '://user:secret@')}/a.bin", "redirects from https to http, which is not encrypted")
    assert not plain.requests
