"""Downloads that resume although the file or the server has changed."""

import hashlib

import pytest

from mmf_flava.files.download_errors import DownloadError
from tests.files.hostile import CONTENT, cut_then, fails, fetched, interrupted, ranged, response, sends

pytestmark = pytest.mark.usefixtures("short_limits")


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
