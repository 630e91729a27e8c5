"""Downloads of byte ranges from HTTP servers."""

from collections.abc import Iterator

from mmf_flava.files.download_errors import DownloadError, RangeRefusedError
from mmf_flava.files.http_request import CONTENT_RANGE, read_length, request

CHUNK = 1 << 20


def read_range(url: str, start: int, size: int) -> Iterator[bytes]:
    """Yield the bytes ``start`` to ``start + size`` of a file, in parts; fewer bytes if the file ends before.

    The connection is kept for the next range that this thread reads from the server.

    Raises:
        RangeRefusedError: the server sends the complete file or another range.
        RemoteFileNotFoundError, DownloadError: see ``http_request.request``.
    """
    with request(url, {"Range": f"bytes={start}-{start + size - 1}"}, keep_alive=True) as response:
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        first, last = (int(match[1]), int(match[2])) if match else (-1, -1)
        left = last + 1 - start
        valid = response.status == 206 and first == start and 0 < left <= size
        if not valid or read_length(response) not in (None, left):
            raise RangeRefusedError(f"{response.name}: the server does not send the requested range. Check the URL.")
        while left and (chunk := response.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk
        if left:
            raise DownloadError(f"{response.name}: the connection was closed before the end of a range.")
