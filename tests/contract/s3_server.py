"""A server that speaks as much of S3 over HTTP as artifacts need. It refuses what is not signed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "test-key"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_TIME = "2026-01-01T00:00:00.000Z"


class _Objects(ThreadingHTTPServer):
    """`objects` are by path, /bucket/key. While it is `broken` every answer is 403."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.broken = False

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Objects

    def log_message(self, format: str, *args: object) -> None:
        pass

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signed = self.headers.get("Authorization", "").startswith(
            f"AWS4-HMAC-SHA256 Credential={KEY}/"
        )
        if not signed or self.server.broken:
            self._answer(403, "<Error><Code>AccessDenied</Code></Error>")
            return False
        return True

    def do_PUT(self) -> None:
        source = self.headers.get("x-amz-copy-source")
        if source is None:
            self.server.objects[self._path] = self._body
            self._answer(200)
        else:
            self.server.objects[self._path] = self.server.objects["/" + unquote(source).lstrip("/")]
            copied = f'<ETag>"0"</ETag><LastModified>{_TIME}</LastModified>'
            self._answer(200, f"<CopyObjectResult>{copied}</CopyObjectResult>")

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0])
        elif self._path in self.server.objects:
            self._answer(200, self.server.objects[self._path])
        else:
            self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """DeleteObjects."""
        keys = re.findall(r"<Key>(.*?)</Key>", self._body.decode())
        for key in keys:
            self.server.objects.pop(f"{self._path}/{key}", None)
        told = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{told}</DeleteResult>")

    def _list(self, prefix: str) -> None:
        bucket = f"{self._path}/"
        keys = [
            path.removeprefix(bucket) for path in self.server.objects if path.startswith(bucket)
        ]
        found = "".join(
            f'<Contents><Key>{key}</Key><LastModified>{_TIME}</LastModified><ETag>"0"</ETag>'
            f"<Size>{len(self.server.objects[bucket + key])}</Size></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        self._answer(
            200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        )

    @property
    def _path(self) -> str:
        return unquote(urlsplit(self.path).path)

    def _answer(self, code: int, body: str | bytes = b"") -> None:
        data = (_HEAD + body).encode() if isinstance(body, str) else body
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def s3_server() -> Iterator[_Objects]:
    """A server without objects on a free port."""
    with _Objects() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
