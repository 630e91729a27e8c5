"""HTTP requests with checked redirects, bounded waits and credentials that stay on their server."""

import base64
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from mmf_flava.errors import UserError, hide_address
from mmf_flava.files import http_connection
from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError

MAX_REDIRECTS = 10
MAX_SKIPPED = 4096  # bytes of the body of a redirect
MAX_RETRIES = 3  # of a busy server that says when to ask again
MAX_WAIT = 30.0  # longest wait in seconds that such a server may ask for
BUSY = (429, 503)
REDIRECTS = (301, 302, 303, 307, 308)
NOT_FOUND = (401, 403, 404, 410)
UNRESERVED = "%/:=&?~#+!$,;'@()*[]"  # characters of an address that are not percent-encoded
LENGTH = re.compile(r"[0-9]{1,18}")
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Response:
    """The response to a GET request, with status 200, 206 or 416. Use it as a context manager.

    Attributes:
        status, headers: see ``http.client.HTTPResponse``.
        checksum: SHA-256 of the complete file, if the server or a redirect sends it.
    """

    def __init__(self, raw: http.client.HTTPResponse, name: str, checksum: str | None) -> None:
        self._raw, self.name, self.status, self.headers = raw, name, raw.status, raw.headers
        self.checksum = checksum or find_checksum(raw.headers, "X-Linked-Etag", "ETag")

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *_: Any) -> None:
        self._raw.close()

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the body as soon as some arrive; empty at the end.

        Raises:
            DownloadError: the connection was lost, or the server is too slow.
        """
        try:
            return self._raw.read1(size)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(f"{self.name}: the connection was lost ({_reason(error)}).") from None


def request(url: str, headers: dict[str, str] | None = None, keep_alive: bool = False) -> Response:
    """Send a GET request and follow redirects. The user name and password of the URL are sent to its server only.

    Args:
        keep_alive: whether the connection is kept for the next request of this thread, see ``send_kept``.

    Raises:
        RemoteFileNotFoundError: the file does not exist on the server, or access to it is denied.
        DownloadError: the server is not reachable, too slow, busy, or its response is not valid.
        UserError: the URL is not valid, or the server redirects to a URL that is not supported.
    """
    name = hide_address(url)
    address = parse_address(url)
    authorization, checksum = _authorization(address), None
    for _ in range(MAX_REDIRECTS):
        raw = _send(address, authorization, headers or {}, name, keep_alive)
        if raw.status not in REDIRECTS:
            if raw.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
                raw.close()
                raise DownloadError(
                    f"{name}: the server compresses the file (Content-Encoding), which was not requested. Download it "
                    "with another program, and set the path of the local copy."
                )
            return Response(raw, name, checksum)
        checksum = checksum or find_checksum(raw.headers, "X-Linked-Etag")
        location = raw.headers.get("Location")
        if keep_alive:
            with suppress(OSError, ValueError, http.client.HTTPException):
                raw.read(MAX_SKIPPED)  # otherwise, the connection cannot be used again
        raw.close()
        target = _redirect(address, location, name)
        if _origin(target) != _origin(address):
            authorization = _authorization(target)
        address = target
    raise DownloadError(f"{name}: the server redirects more than {MAX_REDIRECTS} times. Check the URL.")


def parse_address(url: str) -> SplitResult:
    """Split an http(s) URL; percent-encode spaces and other characters that are not allowed in URLs.

    Raises:
        UserError: the URL is not valid.
    """
    try:
        split = urlsplit(url)
        valid = split.port is None or split.port > 0
        valid = valid and bool(split.hostname) and url.isprintable() and "\\" not in split.netloc
        split.hostname.encode("idna")  # type: ignore[union-attr]
    except (ValueError, AttributeError):
        valid = False
    if not valid:
        raise UserError(f"{hide_address(url)} is not a valid URL. Correct it.")
    return split._replace(path=quote(split.path, UNRESERVED), query=quote(split.query, UNRESERVED), fragment="")


def find_checksum(headers: Message, *names: str) -> str | None:
    """Return the first header that is a SHA-256 in hexadecimal."""
    values = ((headers.get(name) or "").removeprefix("W/").strip('"').lower() for name in names)
    return next((value for value in values if SHA256.fullmatch(value)), None)


def read_length(response: Response) -> int | None:
    """Return the Content-Length of a response, or None if it has none.

    Raises:
        DownloadError: the header is not a length.
    """
    value = response.headers.get("Content-Length")
    if value is None or "Transfer-Encoding" in response.headers:  # which takes precedence
        return None
    if not LENGTH.fullmatch(value.strip()):
        raise DownloadError(f"{response.name}: the server sends an invalid Content-Length. Check the URL.")
    return int(value)


def _send(address: SplitResult, authorization: str | None, headers: dict[str, str], name: str, keep_alive: bool) -> Any:
    """Return the response to one request; ask a busy server again when it says so."""
    host = address.netloc.rpartition("@")[2]
    url = urlunsplit((address.scheme, host, address.path or "/", address.query, ""))
    headers = {"User-Agent": "mmf_flava", "Accept-Encoding": "identity", **headers}
    if authorization is not None:
        headers["Authorization"] = authorization
    for retries in range(MAX_RETRIES + 1):
        try:
            send = http_connection.send_kept if keep_alive else http_connection.send
            response = send(urllib.request.Request(url, headers=headers))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(
                f"{name} cannot be reached ({_reason(error)}). Check the network, or set the path of a local copy."
            ) from None
        if response.status in (200, 206, 416, *REDIRECTS):
            return response
        wait = _retry_after(response.headers)
        response.close()
        if response.status in NOT_FOUND:
            raise RemoteFileNotFoundError(
                f"{name} was not found, or access to it is denied (HTTP {response.status}). Check the URL."
            )
        if response.status not in BUSY or wait is None or wait > MAX_WAIT or retries == MAX_RETRIES:
            break
        time.sleep(wait)
    when = "later" if wait is None else f"in {wait:,.0f} s"
    raise DownloadError(f"{name} is not available (HTTP {response.status}). Try again {when}.")


def _redirect(address: SplitResult, location: str | None, name: str) -> SplitResult:
    if not location:
        raise DownloadError(f"{name}: the server redirects without a location. Check the URL.")
    try:
        target = urljoin(urlunsplit(address), quote(location.strip(), UNRESERVED, encoding="latin-1"))
        scheme = urlsplit(target).scheme
    except ValueError:
        raise DownloadError(f"{name}: the server redirects to an invalid URL. Check the URL.") from None
    if scheme not in ("http", "https"):
        raise UserError(f"{name} redirects to a {scheme}: URL; only http and https are supported.")
    if (address.scheme, scheme) == ("https", "http"):
        raise UserError(
            f"{name} redirects from https to http, which is not encrypted. Use an https URL that does not, or the http "
            "URL itself if you trust the network."
        )
    return parse_address(target)


def _origin(address: SplitResult) -> tuple[str, str | None, int | None]:
    return address.scheme, address.hostname, address.port or {"http": 80, "https": 443}[address.scheme]


def _authorization(address: SplitResult) -> str | None:
    """Return the Authorization header for the user name and password in an address, or None if it has none."""
    user, at, _ = address.netloc.rpartition("@")
    return f"Basic {base64.b64encode(unquote(user).encode()).decode()}" if at else None


def _retry_after(headers: Message) -> float | None:
    """Return the seconds that a busy server asks to wait, or None if it does not say."""
    value = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _reason(error: Exception) -> str:
    """Return the cause of a failed request. Messages of http.client and ssl may contain addresses and are shortened."""
    error = getattr(error, "reason", error) if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate: {error.verify_message}"
    if isinstance(error, OSError):
        return str(error.strerror or error or type(error).__name__)
    return type(error).__name__
