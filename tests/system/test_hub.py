import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from lmft.errors import UserError
from lmft.system import hub

COMMIT = "c" * 40
ANSWERS = {  # of a server that stands for the hub: status, error code, whether access is by permission
    "acme/open": (200, None, False),
    "acme/gated": (200, None, "manual"),
    "acme/gone": (401, "RepoNotFound", False),
    "acme/old": (404, "RevisionNotFound", False),
    "acme/down": (503, None, False),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("/auth-check"):
            status, code, gated = 403, "GatedRepo", False
        else:
            name = next((name for name in ANSWERS if name in self.path), "")
            status, code, gated = ANSWERS.get(name, (404, None, False))
        body = json.dumps({"id": "x", "sha": COMMIT, "gated": gated, "siblings": []}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def server(cache, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


def cached(cache: Path, folder: str, *names: str) -> Path:
    snapshot = cache / folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cache / folder / "refs").mkdir()
    (cache / folder / "refs" / "main").write_text(COMMIT)
    for name in names:
        (snapshot / name).touch()
    return snapshot


def error_of(*arguments) -> UserError:
    with pytest.raises(UserError) as raised:
        hub.require(*arguments)
    assert len(str(raised.value).splitlines()) <= 3
    return raised.value


@pytest.mark.parametrize("kind", ["model", "tokenizer", "dataset"])
class TestAnswers:
    def test_reachable(self, server, kind):
        assert hub.require("acme/open", kind) is None
        assert hub.require("acme/open", kind, "main") is None

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("acme/gone", "on the hub (or a private one), and no such folder here"),
            ("acme/gated", "is gated, and access to it has not been granted"),
            ("acme/old", "has no such revision"),
            ("acme/down", "the hub cannot be reached"),
        ],
    )
    def test_a_refusal_of_the_hub_is_named_with_its_repository(self, server, kind, name, what):
        error = error_of(name, kind, "v1")
        assert what in error.what
        assert name in error.what
        assert error.where == f"{hub.OPTIONS[kind]}={name}, revision v1"

    def test_no_hub_id(self, server, kind):
        assert "neither a file or folder here nor a hub id" in error_of("a/b/c", kind).what


class TestUnreachable:
    def test_offline_a_repository_that_is_not_cached_is_refused(self, cache, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        error = error_of("acme/open", "model")
        assert "'acme/open' is neither a local folder nor in the cache" in error.what
        assert "HF_HUB_OFFLINE" in error.what
        assert "model.name_or_path=FOLDER" in error.fix
        assert "`hf download acme/open`" in error.fix
        assert "--repo-type dataset" in error_of("acme/open", "dataset").fix

    def test_nothing_listens(self, server, monkeypatch):
        server.shutdown()
        server.server_close()
        assert "the hub cannot be reached" in error_of("acme/open", "dataset").what

    def test_no_answer_of_the_hub_in_time_is_refused(self, cache, monkeypatch):
        monkeypatch.setattr(hub, "WAIT_SECONDS", 0.2)
        monkeypatch.setattr(hub, "_ask", lambda *arguments: time.sleep(5))
        began = time.monotonic()
        assert "no answer within" in error_of("acme/open", "model").what
        assert time.monotonic() - began < 3


class TestCached:
    @pytest.fixture(autouse=True)
    def offline(self, cache, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    @pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
    def test_a_cached_model_is_found_by_branch_and_commit(self, cache, weights):
        snapshot = cached(cache, "models--acme--open", "config.json", weights)
        assert hub.require("acme/open", "model") == str(snapshot)
        assert hub.require("acme/open", "model", "main") == str(snapshot)
        assert hub.require("acme/open", "model", COMMIT) == str(snapshot)
        assert "nor in the cache" in error_of("acme/open", "model", "v2").what
        assert "nor in the cache" in error_of("acme/open", "tokenizer").what

    def test_name_without_namespace(self, cache):
        snapshot = cached(cache, "models--gpt2", "model.safetensors")
        assert hub.require("gpt2", "model") == str(snapshot)

    def test_sharded_model(self, cache):
        snapshot = cached(cache, "models--acme--open", "model-00001-of-00002.safetensors")
        shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
        assert "nor in the cache" in error_of("acme/open", "model").what
        (snapshot / "model-00002-of-00002.safetensors").touch()
        assert hub.require("acme/open", "model") == str(snapshot)

    def test_weights_missing(self, cache):
        cached(cache, "models--acme--open", "config.json")
        assert "nor in the cache" in error_of("acme/open", "model").what

    @pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model"])
    def test_tokenizer(self, cache, name):
        snapshot = cached(cache, "models--acme--open", name)
        assert hub.require("acme/open", "tokenizer") == str(snapshot)

    def test_dataset(self, cache):
        snapshot = cached(cache, "datasets--acme--open", "README.md")
        assert hub.require("acme/open", "dataset") == str(snapshot)


def test_a_reachable_hub_goes_before_a_copy_of_a_dataset(server, cache):
    cached(cache, "datasets--acme--open", "README.md")
    assert hub.require("acme/open", "dataset") is None
