"""An HTTP server on the loopback interface for all tests that download; the fixtures are in conftest.py."""

import http.server


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``, a path -> content dict, and records the requests.

    ``cut_after``: close the next connection after so many bytes. ``busy``: answer so many requests with 503.
    ``etag``: path -> checksum, sent with a redirect as the hub does.
    """

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.cut_after, self.etag, self.busy = files, [], None, {}, 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        path = self.path.partition("?")[0]
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
            self.end_headers()
            return
        content = server.files[path]
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if self.headers["Range"] else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", '"version-1"')
        self.end_headers()
        end, server.cut_after = server.cut_after or len(content), None
        self.wfile.write(content[start:end])

    def do_HEAD(self):
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *args):
        pass
