"""HTTP servers on the loopback interface for all tests that download; the fixtures are in conftest.py."""

import hashlib
import http.server
import re


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``, a path -> content dict, and records the requests.

    ``cut_after``: close the next connection after so many bytes. ``busy``: answer so many requests with 503.
    ``etag``: path -> checksum, sent with a redirect as the hub does. Paths ``/<repository>/resolve/<revision>/<file>``
    are answered as by the Hugging Face Hub. ``hub_errors``: repository -> (status, error code) of the hub. ``ranges``:
    whether ranges with an end are sent; otherwise, the complete file is. ``keep_alive``: whether connections stay open.
    """

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.cut_after, self.etag, self.busy = files, [], None, {}, 0
        self.hub_errors, self.headers, self.ranges, self.keep_alive = {}, [], True, False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def upload(self, repository, files, revision="main"):
        """Add the files (name -> content) of a repository of the hub. Its commit is a hash of their contents."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        for name in [name for name in self.files if name.startswith(f"/{repository}/resolve/{revision}/")]:
            del self.files[name]
        for name, content in files.items():
            for path in (revision, commit):
                self.files[f"/{repository}/resolve/{path}/{name}"] = content
        self.files[f"/{repository}/resolve/{revision}"] = self.files[f"/{repository}/resolve/{commit}"] = commit
        return commit


class Handler(http.server.BaseHTTPRequestHandler):
    def setup(self):
        self.protocol_version = "HTTP/1.1" if self.server.keep_alive else "HTTP/1.0"
        super().setup()

    def do_GET(self):
        server = self.server
        path = self.path.partition("?")[0]
        server.headers.append(dict(self.headers))
        if server.busy:
            server.busy -= 1
            self.send_error(503)
            return
        if path not in server.files:
            self.send_error(404)
            return
        server.requests.append((path, self.headers.get("Range")))
        if path in server.etag and not self.path.endswith("?stored"):  # like the hub: checksum first, then storage
            self.send_response(302)
            self.send_header("Location", f"{path}?stored")
            self.send_header("X-Linked-Etag", f'"{server.etag[path]}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = server.files[path]
        start, _, last = (self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")
        refused = bool(last) and not server.ranges
        start, end = (0, len(content)) if refused else (int(start), min(int(last or len(content)) + 1, len(content)))
        is_part = (start, end) != (0, len(content))
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", '"version-1"')
        self.end_headers()
        if server.cut_after and not refused:
            end, server.cut_after, self.close_connection = min(start + server.cut_after, end), None, True
        self.wfile.write(content[start:end])

    def do_HEAD(self):
        if match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", self.path):
            self._answer_as_hub(*match.groups())
            return
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()

    def _answer_as_hub(self, repository, revision, file):
        server = self.server
        server.requests.append((self.path, "HEAD"))
        commit, content = server.files.get(f"/{repository}/resolve/{revision}"), server.files.get(self.path)
        status, code = (404, "EntryNotFound") if content is None else (200, None)
        if commit is None:
            exists = any(path.startswith(f"/{repository}/") for path in server.files)
            status, code = (404, "RevisionNotFound") if exists else (401, "RepoNotFound")
        status, code = server.hub_errors.get(repository, (status, code))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if content is not None:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()

    def log_message(self, *args):
        pass
