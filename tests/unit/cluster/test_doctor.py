"""The checks of ``salip-ray doctor``: each verdict, good and bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections import namedtuple

import fsspec
import pytest
from typer.testing import CliRunner

from salip_ray import load_config
from salip_ray.cli import app
from salip_ray.cluster import doctor, machine_checks
from salip_ray.cluster.machine_checks import Advice
from salip_ray.errors import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def config():
    return load_config("lungs")


def test_a_machine_where_all_is_well(images, tmp_path, config):
    findings = list(doctor.examine(config, input=str(images), output=str(tmp_path / "out")))
    by_check = {finding.check: finding for finding in findings}
    assert not [finding for finding in findings if finding.verdict == "fix"]
    assert {"versions", "device", "memory", "disk", "input", "output", "ray"} <= set(by_check)
    assert by_check["weights: sam"].message == "bundled"
    assert "deleted" in by_check["output"].message
    assert not list((tmp_path / "out").iterdir())


def test_problems_are_named_and_set_the_exit_code(tmp_path):
    result = CliRunner().invoke(
        app,
        ["doctor", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--set", "run.device=cuda"],
    )
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith("fix") and "nowhere does not exist" in line for line in lines)
    assert any(line.startswith("fix") and "nvidia-smi" in line for line in lines)
    assert any(line.startswith("ok") and "output" in line for line in lines)


@pytest.mark.parametrize(
    ("location", "first"),
    [
        ("memory://b/x/*.png", "memory://b/x/scan0.png"),
        ("memory://b/x/sc", "memory://b/x/scan0.png"),
        ("memory://b", "memory://b/x/scan0.png"),
        ("memory://b/names.csv", "memory://b/x/scan1.png"),
        ("{tmp}/a.zip", "zip://x/a.png::{tmp}/a.zip"),
        ("{tmp}/[ab]?.png", "{tmp}/b0.png"),
    ],
)
def test_whatever_a_job_takes_is_an_input(tmp_path, config, location, first):
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for name in ("scan0", "scan1"):
        fs.pipe_file(f"/b/x/{name}.png", bytes(20))
    fs.pipe_file("/b/names.csv", b"uri\nx/scan1.png\n")
    (tmp_path / "b0.png").write_bytes(bytes(20))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.png", bytes(20))
    line = doctor.readable(location.format(tmp=tmp_path), config)
    assert line == f"read 16 bytes of {first.format(tmp=tmp_path)}"


def test_probe_of_input_skips_empty_images(tmp_path, config):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="no image"):
        doctor.readable(str(tmp_path), config)
    (tmp_path / "b.png").write_bytes(b"1")
    assert doctor.readable(str(tmp_path), config).endswith("/b.png")


def test_a_signature_is_never_shown(web, config):
    web.answers["/a.png"] = [(200, bytes(16))]
    signed = "?X-Amz-Signature=hush"
    assert doctor.readable(f"{web.url}/a.png{signed}", config).endswith(f"of {web.url}/a.png")
    web.answers["/a.png"] = [(200, bytes(16))] * 2 + [(403, b"")]
    with pytest.raises(Advice, match="HTTP 403 Forbidden; check the credentials") as caught:
        doctor.readable(f"{web.url}/a.png{signed}", config)
    assert "hush" not in str(caught.value)
    web.answers["/sam.pth"] = [(403, b"")]
    with pytest.raises(Advice, match=f"{web.url}/sam.pth cannot be read: HTTP 403 Forbidden$"):
        doctor.weights(f"{web.url}/sam.pth{signed}", config)


def test_an_output_that_cannot_be_written(tmp_path, config):
    (tmp_path / "file").write_text("in the way")
    (finding,) = [
        finding
        for finding in doctor.examine(config, output=str(tmp_path / "file" / "out"))
        if finding.check == "output"
    ]
    assert finding.verdict == "fix"
    assert "cannot write" in finding.message


def test_a_clock_that_is_off(tmp_path, config, monkeypatch):
    now = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() + 1200)
    with pytest.raises(Advice, match="clock") as caught:
        doctor.writable(str(tmp_path), config)
    assert caught.value.fatal


def test_a_store_that_forbids_deleting_passes(tmp_path, config, monkeypatch):
    local = type(fsspec.filesystem("file"))

    def refuse(self, path):
        raise PermissionError(path)

    monkeypatch.setattr(local, "rm_file", refuse)
    assert "left behind" in doctor.writable(str(tmp_path), config)
    from salip_ray.output.store import Store

    assert not Store(tmp_path).names()  # a job takes the location for empty


def test_little_memory_and_disk_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda path: Usage(1, 1, 64 * 2**20))
    with pytest.raises(Advice, match="--shm-size"):
        machine_checks.shared_memory(str(tmp_path))
    with pytest.raises(Advice, match="SALIP_RAY_CACHE"):
        machine_checks.disk()


def test_weights_that_are_missing_or_fetched(tmp_path, config, monkeypatch):
    with pytest.raises(Advice, match="does not exist"):
        doctor.weights(str(tmp_path / "sam.pth"), config)
    (tmp_path / "sam.pth").write_bytes(bytes(2_000_000))
    assert doctor.weights(str(tmp_path / "sam.pth"), config).endswith("2 MB")
    assert doctor.weights(f"file://{tmp_path}/sam.pth", config).endswith("2 MB")
    from salip_ray.models.weights import fetch

    monkeypatch.setenv("SALIP_RAY_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").pipe_file("/sam.pth", bytes(3_000_000))
    assert "3 MB to fetch" in doctor.weights("memory://sam.pth", config)
    fetch("memory://sam.pth")
    assert "fetched already" in doctor.weights("memory://sam.pth", config)
    with pytest.raises(Advice, match="cannot be read"):
        doctor.weights("memory://other.pth", config)


def test_a_job_server_that_is_not_there(config):
    (last,) = [f for f in doctor.examine(config, address="http://127.0.0.1:9") if f.check == "ray"]
    assert last.verdict == "fix"
    assert "no job server answers" in last.message


def test_the_limit_of_open_files(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    with pytest.raises(Advice, match="ulimit"):
        machine_checks.open_files()


# ----------------------------------------------------------------------------------- named weights


def clip(**fields):
    return load_config("lungs", overrides={"clip": {"model": "ViT-B-32", **fields}})


@pytest.fixture
def nothing_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)


@pytest.fixture
def tag_at(monkeypatch):
    """Let the tag ``openai`` name weights at an address."""

    def set_address(url):
        monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda *_: {"url": url})

    return set_address


def test_tag_that_is_neither_cached_nor_reachable_needs_a_fix(nothing_cached, tag_at, web):
    tag_at(f"{web.url}/gone.pt")
    with pytest.raises(Advice, match=r"is not on this machine, and 127\.0\.0\.1.* does not answer"):
        doctor.clip_weights(clip(pretrained="openai"))


def test_tag_that_answers_is_to_be_fetched(nothing_cached, tag_at, web):
    web.answers["/clip.pt"] = [(200, bytes(2_000_000))]
    tag_at(f"{web.url}/clip.pt")
    expected = "openai of ViT-B-32, 2 MB to fetch, once per node"
    assert doctor.clip_weights(clip(pretrained="openai")) == expected


def test_tag_that_is_cached_is_ok_without_a_network(nothing_cached, tag_at, tmp_path):
    tag_at("http://127.0.0.1:9/clip.pt")
    folder = tmp_path / ".cache" / "clip"
    folder.mkdir(parents=True)
    (folder / "clip.pt").write_bytes(b"1")
    assert "fetched already" in doctor.clip_weights(clip(pretrained="openai"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"pretrained": "no-such-tag"}, "open_clip has no weights no-such-tag of ViT-B-32; tags"),
        ({}, "clip.pretrained is missing"),
        ({"model": "local-dir:/no/such/folder"}, "/no/such/folder does not exist"),
        ({"pretrained": "/no/such/file.pt"}, "/no/such/file.pt does not exist"),
    ],
)
def test_weights_that_cannot_be_found_need_a_fix(nothing_cached, fields, expected):
    with pytest.raises(Advice) as caught:
        doctor.clip_weights(clip(**fields))
    assert expected in str(caught.value)


def test_untaught_class_needs_a_fix():
    prompts = {"liver": ["An abdominal CT showing the liver."]}
    config = load_config({"task": {"name": "liver", "prompts": prompts}})
    finding = next(iter(doctor.examine(config)))
    assert (finding.check, finding.verdict) == ("task", "fix")
    assert "'liver'" in finding.message


# ------------------------------------------------------------------------------------- job server


@pytest.mark.parametrize(("theirs", "same"), [("ours", True), ("2.99.0", False)])
def test_ray_of_the_cluster_is_compared_with_ray_here(web, theirs, same):
    import ray

    shown = ray.__version__ if theirs == "ours" else theirs
    answer = {"version": "4", "ray_version": shown, "ray_commit": "0" * 40, "session_name": "s"}
    web.answers["/api/version"] = [(200, json.dumps(answer).encode())]
    if same:
        expected = f"the job server at {web.url} answers (Ray {shown})"
        assert doctor.ray_cluster(web.url) == expected
    else:
        with pytest.raises(Advice, match=r"runs Ray 2\.99\.0, and this machine has") as caught:
            doctor.ray_cluster(web.url)
        assert not caught.value.fatal


def test_ray_address_that_cannot_be_joined_needs_a_fix():
    command = [sys.executable, "-m", "salip_ray", "doctor", "--config", "lungs"]
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9"}  # the test process may be in a Ray
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    shown = " ".join(done.stdout.split())
    assert "RAY_ADDRESS '127.0.0.1:9' cannot be joined: nothing answers there" in shown
