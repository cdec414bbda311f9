"""`lmft watch`: pages on this computer alone, which follow their run."""

import re
import socket
import threading
import urllib.request
from http.client import HTTPConnection
from urllib.error import HTTPError

import pytest

from lmft.commands import watch as command
from lmft.system.signals import Stopped
from lmft.watching.pages import Pages
from lmft.watching.server import Server, handler_of
from tests.helpers.browser import assert_fits, browser, needs_browser, opened
from tests.helpers.processes import Terminal
from tests.helpers.recorded_runs import write_run

__all__ = ["browser"]


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path, capsys)


@pytest.fixture
def runs(tmp_path):
    for name in ("a", "b", "search/lr=0.1,seed=1"):
        write_run(tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.fixture
def served():
    """Serves a folder, and returns its address."""
    servers = []

    def serve(folder):
        server = Server((command.HOST, 0), handler_of(Pages(folder, every=0.2)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://localhost:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def get(address):
    with urllib.request.urlopen(address) as answer:
        return answer.read().decode()


def grow(run, step):
    with (run / "metrics.csv").open("a") as file:
        columns = (run / "metrics.csv").read_text().split("\n")[0].split(",")
        file.write(",".join(str({"step": step, "val/loss": 1.25}.get(name, "")) for name in columns) + "\n")


def test_the_report_of_a_run(runs, served):
    address = served(runs / "a")
    assert 'data-chart="Loss"' in get(address)
    state = get(f"{address}/state?run=")
    assert state == get(f"{address}/state?run=")
    grow(runs / "a", 999)
    assert state != get(f"{address}/state?run=") and "999 optimizer steps" in get(address)


def test_the_runs_of_a_folder(runs, served):
    address = served(runs)
    page = get(address)
    links = re.findall(r'href="(/run/[^"]*)"', page)
    assert set(links) == {"/run/a", "/run/b", "/run/search/lr%3D0.1%2Cseed%3D1"}
    assert all("<h2" in get(address + link) for link in links)


@pytest.mark.parametrize("path", ["/run/c", "/run/../a", "/run/..%2f..%2fetc", "/run//etc", "/x", "/state?run=../a"])
def test_nothing_else_is_served(runs, served, path):
    with pytest.raises(HTTPError) as refused:
        get(served(runs / "search") + path)
    assert refused.value.code == 404


def test_another_name_of_this_computer_is_refused(runs, served):
    port = int(served(runs).rpartition(":")[2])
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/", headers={"Host": f"example.com:{port}"})
    assert connection.getresponse().status == 403


def test_a_run_that_cannot_be_read_is_said_to_be_so(runs, served):
    (runs / "a/metrics.json").write_text("{broken")
    address = served(runs)
    assert "cannot be read" in get(address + "/run/a")
    assert ">b</a>" in get(address) and "unreadable" in get(address)


def test_ctrl_c_ends_it_well(runs, terminal, monkeypatch):
    def interrupted(server):
        assert server.server_address[0] == "127.0.0.1"
        raise Stopped(2)

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    said = terminal.succeeds("watch", "runs/a", "port=0")
    assert re.search(r"http://localhost:\d+", said) and "no longer served" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no run is named"),
        (("runs/a", "runs/b"), "several folders"),
        (("runs/c",), "runs there: runs/"),
        (("empty",), "no run in empty"),
        (("runs/a", "port=x"), "port"),
        (("runs/a", "port=70000"), "port=70000 must be a number from 0 to 65535"),
        (("runs/a", "every=0"), "every=0"),
    ],
)
def test_mistakes_are_refused(arguments, said, runs, tmp_path, terminal):
    (tmp_path / "empty").mkdir()
    assert said in terminal.refuses("watch", *arguments)


def test_a_port_that_is_in_use_is_refused(runs, terminal):
    with socket.create_server((command.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert "port=0 chooses a free port" in terminal.refuses("watch", "runs/a", f"port={port}")


@needs_browser
def test_the_page_follows_its_run(runs, served, browser):
    with opened(browser, served(runs), "phone") as tab:
        assert_fits(tab)
        tab.get_by_role("link", name="a", exact=True).click()
        tab.wait_for_selector("html[data-drawn]", state="attached")
        grow(runs / "a", 999)
        tab.get_by_text("999 optimizer steps").wait_for()
