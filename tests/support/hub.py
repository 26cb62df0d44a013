"""Serves folders as a Hugging Face hub on this machine, with the part of its HTTP API that downloads use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
"""The commit that "main" points to in every repository."""


@contextmanager
def serving_hub(root: Path) -> Iterator[str]:
    """Serves the repositories `<root>/<name>` while the block runs, and yields the endpoint of the hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                self._describe(path.removeprefix("api/models/"))
            else:
                self._send_file(path)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Keeps the test output free of access logs."""

        def _describe(self, path: str) -> None:
            repository, kind, _ = path.rsplit("/", 2)
            folder = root / repository
            if not folder.is_dir():
                self._respond(404, b"")
            elif kind == "revision":
                self._respond(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
            else:
                tree = [
                    {
                        "type": "file",
                        "path": file.relative_to(folder).as_posix(),
                        "size": file.stat().st_size,
                        "oid": _digest(file),
                    }
                    for file in folder.rglob("*")
                    if file.is_file()
                ]
                self._respond(200, json.dumps(tree).encode())

        def _send_file(self, path: str) -> None:
            repository, _, name = path.partition(f"/resolve/{COMMIT}/")
            file = root / repository / name
            if name and file.is_file():
                self._respond(200, file.read_bytes(), _digest(file))
            else:
                self._respond(404, b"")

        def _respond(self, status: int, body: bytes, etag: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
