"""Servers that misbehave: each download ends in one sentence within its time limit, or with the right bytes."""

import base64
import ssl
import subprocess
import time

import pytest

from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError
from tests.files.hostile import (
    CONTENT,
    LIMIT,
    fails,
    fetched,
    response,
    sends,
)

pytestmark = pytest.mark.usefixtures("short_limits")

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
