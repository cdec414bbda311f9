"""The part of the hub's HTTP API that a push uses, on this machine."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"


class FakeHub:
    """Repositories by name: {"private": …, "files": {path: bytes}}; and the requests that came."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict] = {}
        self.requests: list[str] = []
        self.breaks_at: str | None = None  # part of a path that is answered with an error of the server
        self.address = ""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that is at hand while the context is open."""
    hub = FakeHub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub

    def log_message(self, *_):
        pass

    def _answer(self, code: int, content: dict, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _is_refused(self) -> bool:
        self.state.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
            return True
        if self.state.breaks_at and self.state.breaks_at in self.path:
            self._answer(400, {"error": "the hub is broken"}, X_Error_Message="the hub is broken")
            return True
        return False

    def do_GET(self):
        if self._is_refused():
            return
        if self.path.startswith("/api/whoami"):
            self._answer(200, {"name": "me", "type": "user", "orgs": []})
            return
        name = "/".join(self.path.split("?")[0].split("/")[3:5])
        repository = self.state.repositories.get(name)
        if repository is None:
            self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return
        self._answer(200, {"id": name, "sha": "0" * 40, "private": repository["private"], "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._is_refused():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
            known = self.state.repositories.setdefault(name, {"private": is_private, "files": {}})
            self._answer(200, {"url": f"{self.state.address}/{name}", "private": known["private"]})
            return
        if self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
            return
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
            return
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.state.repositories[name]["files"][entry["value"]["path"]] = content
        url = f"{self.state.address}/{name}/commit/{'1' * 40}"
        self._answer(200, {"commitUrl": url, "commitOid": "1" * 40, "pullRequestUrl": None, "success": True})
