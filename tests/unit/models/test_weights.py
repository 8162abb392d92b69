"""Weights files: fetched once, verified, never executed."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import pytest

from salip_ray.config import load_config
from salip_ray.errors import MissingDependencyError, WeightsError
from salip_ray.models import identity, weights
from salip_ray.models.bundled import clip_net, sam_net
from salip_ray.sources import stores

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SALIP_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote():
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/weights/sam.pth", CONTENT)
    yield "memory://weights/sam.pth"
    memory.rm("/weights", recursive=True)


@pytest.fixture
def server(tmp_path):
    """An HTTP server that is slow to answer and writes down what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.5)
            self.answer(CONTENT)

        def answer(self, body=b""):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/sam.pth", asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_local_file_is_used_where_it_lies(tmp_path):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    assert weights.fetch(str(path), sha256=SHA256) == path
    assert weights.fetch(f"file://{path}") == path


def test_a_uri_is_copied_into_the_cache(remote, cache):
    path = weights.fetch(remote, sha256=SHA256.upper())
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert path.name.endswith("-sam.pth")


def test_a_cached_file_is_not_fetched_again(remote):
    first = weights.fetch(remote)
    fsspec.filesystem("memory").pipe_file("/weights/sam.pth", b"gone")
    assert weights.fetch(remote, sha256=SHA256) == first


def test_a_damaged_cached_file_is_fetched_again(remote):
    path = weights.fetch(remote, sha256=SHA256)
    path.write_bytes(b"damaged")
    assert weights.fetch(remote, sha256=SHA256).read_bytes() == CONTENT


def test_four_processes_fetch_once(server, cache):
    uri, asked = server
    code = (
        "import sys; from salip_ray.models.weights import fetch; "
        "print(fetch(sys.argv[1], sha256=sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, uri, SHA256]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=300)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0, 0]
    assert len(answers) == 1
    assert Path(answers.pop()).read_bytes() == CONTENT
    assert asked == ["/sam.pth"]
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_another_content_is_refused_and_leaves_nothing_behind(remote, cache):
    wrong = "0" * 64
    with pytest.raises(WeightsError, match=f"sam.pth: its sha256 is {SHA256}, expected {wrong}"):
        weights.fetch(remote, sha256=wrong)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_what_a_killed_fetch_left_is_removed(remote, cache):
    path = weights.fetch(remote)
    path.unlink()
    left = path.with_name(f".{path.name}.x1y2")
    left.write_bytes(b"half")
    assert weights.fetch(remote) == path
    assert not left.exists()


def test_another_local_content_is_refused(tmp_path):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="its sha256 is"):
        weights.fetch(str(path), sha256="0" * 64)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no.pth does not exist"):
        weights.fetch(str(tmp_path / "no.pth"))
    with pytest.raises(WeightsError, match=r"memory://weights/no.pth cannot be fetched"):
        weights.fetch("memory://weights/no.pth")


def test_a_busy_server_is_asked_again(web, monkeypatch):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    web.answers["/sam.pth"] = [(200, CONTENT), (503, b""), (200, CONTENT)]
    path = weights.fetch(f"{web.url}/sam.pth", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert [command for command, _ in web.asked] == ["HEAD", "GET"] * 2


def test_incomplete_download_is_retried_and_never_cached(web, monkeypatch, cache):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    whole, cut = (200, CONTENT), (200, CONTENT[:500])
    web.answers["/sam.pth"] = [whole, cut] * 4
    with pytest.raises(WeightsError, match=r"sam\.pth cannot be .*: 500 of its 3,000,000 bytes"):
        weights.fetch(f"{web.url}/sam.pth")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    web.answers["/sam.pth"] = [whole, cut, whole]
    assert weights.fetch(f"{web.url}/sam.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "HTTP 403 Forbidden. Without network access, download the file elsewhere and "),
        (404, "there is no such file"),
    ],
)
def test_refusal_is_reported_without_credentials(web, status, reason):
    web.answers["/sam.pth"] = [(status, b"")]
    signed = web.url.replace("://", "://user:hush@") + "/sam.pth?X-Amz-Signature=hush"
    with pytest.raises(WeightsError) as caught:
        weights.fetch(signed)
    message = str(caught.value)
    assert message.startswith(f"weights {web.url}/sam.pth cannot be fetched: {reason}")
    assert "hush" not in message


def test_an_unknown_scheme_is_named_and_a_signature_is_not():
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        weights.fetch("nothing://host/sam.pth?sig=secret")
    assert "secret" not in str(caught.value)


def test_a_missing_filesystem_package_is_asked_for(monkeypatch):
    def fail(*_, **__):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(MissingDependencyError, match=r"gcsfs: pip install .salip-ray\[gcs\]"):
        weights.fetch("gs://bucket/sam.pth")


@pytest.fixture
def settled(monkeypatch):
    """Remember the digest of a file that was written a moment ago, too."""
    monkeypatch.setattr(weights, "_SETTLED_SECONDS", -1e9)


@pytest.mark.usefixtures("settled")
def test_altered_weights_of_the_same_size_and_time_are_hashed_again(tmp_path):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    before = path.stat()
    assert weights.digest(path) == SHA256
    with path.open("r+b") as file:
        file.write(bytes([CONTENT[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WeightsError, match="its sha256 is"):
        weights.fetch(str(path), sha256=SHA256)


def test_the_digest_of_a_file_written_a_moment_ago_is_not_remembered(tmp_path, cache):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    assert weights.digest(path) == SHA256
    assert not (cache / "digests").exists()


@pytest.mark.usefixtures("settled")
def test_the_digest_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    assert weights.digest(path) == SHA256
    with monkeypatch.context() as patch:
        patch.setattr(weights.hashlib, "file_digest", None)  # hashing again would fail
        assert weights.digest(path) == SHA256
    path.write_bytes(b"other")
    assert weights.digest(path) == hashlib.sha256(b"other").hexdigest()


def alter(path, *, back=False):
    """Flip the first byte of a file, or flip it twice, and set its times back."""
    before = path.stat()
    with path.open("r+b") as file:
        for byte in [CONTENT[0] ^ 1, CONTENT[0]][: 2 if back else 1]:
            file.seek(0)
            file.write(bytes([byte]))
            file.flush()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.usefixtures("settled")
def test_weights_altered_while_they_are_loaded_are_refused(tmp_path, back):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    time.sleep(0.05)  # more than a tick of the clock
    with (
        pytest.raises(WeightsError, match=r"sam\.pth was altered while it was loaded"),
        weights.unchanged(path, SHA256),
    ):
        alter(path, back=back)


def test_weights_altered_a_moment_after_they_were_written_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    monkeypatch.setattr(weights, "_identity", lambda path, _: [str(path)])  # no time tells
    with pytest.raises(WeightsError, match="its sha256 is"), weights.unchanged(path, SHA256):
        alter(path)


@pytest.mark.parametrize("replace", [Path.unlink, lambda path: path.with_name("b").replace(path)])
def test_weights_replaced_while_they_are_loaded_are_refused(tmp_path, replace):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    path.with_name("b").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="was altered"), weights.unchanged(path, SHA256):
        replace(path)


def test_a_loader_that_fails_on_altered_weights_names_the_alteration(tmp_path):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)

    def load():
        path.write_bytes(b"half")
        raise RuntimeError("a zip archive without an end")

    with pytest.raises(WeightsError, match="was altered"), weights.unchanged(path, SHA256):
        load()
    with pytest.raises(RuntimeError, match="no such tensor"), weights.unchanged(path, None):
        raise RuntimeError("no such tensor")


@pytest.mark.usefixtures("settled")
def test_a_broken_memory_of_digests_only_costs_hashing(tmp_path, cache):
    path = tmp_path / "sam.pth"
    path.write_bytes(CONTENT)
    weights.digest(path)
    (record,) = (cache / "digests").iterdir()
    record.write_text("{ half a rec")
    assert weights.digest(path) == SHA256
    assert json.loads(record.read_text())["sha256"] == SHA256


def test_identify_names_the_bundled_files():
    config = load_config({"task": {"name": "t", "prompts": {"a": ["an organ"]}}})
    assert identity.identify(config) == {
        "sam": hashlib.sha256(sam_net.WEIGHTS.read_bytes()).hexdigest(),
        "clip": hashlib.sha256(clip_net.WEIGHTS.read_bytes()).hexdigest(),
    }


def test_identify_leaves_out_what_no_mode_needs_and_adds_a_refiner():
    task = {"task": {"name": "t", "prompts": {"a": ["an organ"]}}}
    overrides = {"run": {"modes": ["unprompted"]}, "refine": {"sam": {"model": "bundled"}}}
    digests = identity.identify(load_config(task, overrides=overrides))
    assert set(digests) == {"sam", "refine"}
    assert digests["sam"] == digests["refine"]


def test_a_pinned_configuration_refuses_other_files():
    task = {"task": {"name": "t", "prompts": {"a": ["an organ"]}}}
    config = load_config(task, overrides={"refine": {"sam": {"model": "bundled"}}})
    known = identity.identify(config)
    pinned = identity.pin(config, known)
    assert pinned.sam.sha256 == pinned.refine.sam.sha256 == known["sam"]
    assert pinned.clip.sha256 == known["clip"]
    assert identity.identify(pinned) == known
    assert pinned.task == config.task
    with pytest.raises(WeightsError, match="the bundled SAM: its sha256 is"):
        identity.identify(identity.pin(config, {**known, "refine": "0" * 64}))
    with pytest.raises(WeightsError, match="the bundled CLIP: its sha256 is"):
        identity.identify(identity.pin(config, {**known, "clip": "0" * 64}))


@pytest.mark.parametrize("size", [None, 0, 100_000])
def test_bundled_weights_that_are_missing_or_cut_off_are_named(monkeypatch, tmp_path, size):
    path = tmp_path / "clip.safetensors"
    if size is not None:
        path.write_bytes(clip_net.WEIGHTS.read_bytes()[:size])
    monkeypatch.setattr(identity, "CLIP_WEIGHTS", path)
    config = load_config({"task": {"name": "t", "prompts": {"a": ["an organ"]}}})
    with pytest.raises(
        WeightsError, match=r"the bundled CLIP .*clip\.safetensors.*: install the package again"
    ):
        identity.identify(config)
