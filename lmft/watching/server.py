"""Answer the requests of a browser on this computer."""

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from lmft.watching.pages import Pages

_HOSTS = ("localhost", "127.0.0.1")


class Server(ThreadingHTTPServer):
    """A server that says nothing of a browser that has left before its answer was complete."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error of a request, unless the connection is gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def handler_of(pages: Pages) -> type[BaseHTTPRequestHandler]:
    """Return the class of the server that shows these pages.

    /              the first page
    /run/NAME      the report of a run
    /state?run=    a text that changes whenever the page of the run does
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers one request."""

        def do_GET(self) -> None:
            """Send a page, or its state."""
            # A page of the web whose name has been pointed to this computer may not read the reports.
            if self.headers.get("Host", "").rpartition(":")[0] not in _HOSTS:
                self.send_error(HTTPStatus.FORBIDDEN, "only localhost is served")
                return
            address = urlsplit(self.path)
            if address.path == "/state":
                run = parse_qs(address.query).get("run", [""])[0]
                self._send(pages.state(run), "text/plain")
            elif address.path == "/":
                self._send(pages.page(""), "text/html")
            elif address.path.startswith("/run/"):
                self._send(pages.page(unquote(address.path.removeprefix("/run/"))), "text/html")
            elif address.path == "/favicon.ico":
                self._send("", "image/x-icon")
            else:
                self._send(None, "text/plain")

        def _send(self, text: str | None, kind: str) -> None:
            if text is None:
                self.send_error(HTTPStatus.NOT_FOUND, "no such run")
                return
            body = text.encode("utf-8", "replace")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of a request that went well."""

    return Handler
