"""A Hugging Face hub on this machine: of its HTTP API what downloads take, over folders `<root>/<repository>`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
"""What "main" is in every repository."""


@contextmanager
def serving_hub(root: Path) -> Iterator[str]:
    """Its endpoint; set HF_ENDPOINT to it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            if path.startswith("api/models/"):
                self._about(path.removeprefix("api/models/"))
            else:
                self._file(path)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def _about(self, path: str) -> None:
            repository, kind, _ = path.rsplit("/", 2)
            folder = root / repository
            if not folder.is_dir():
                self._answer(404, b"")
            elif kind == "revision":
                self._answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
            else:
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}
                    for file in folder.iterdir()
                ]
                self._answer(200, json.dumps(tree).encode())

        def _file(self, path: str) -> None:
            repository, _, name = path.partition(f"/resolve/{COMMIT}/")
            file = root / repository / name
            if name and file.is_file():
                self._answer(200, file.read_bytes(), _digest(file))
            else:
                self._answer(404, b"")

        def _answer(self, status: int, body: bytes, etag: str = "") -> None:
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
