"""The doctor's checks: what is well, and what it says where something is not."""

from __future__ import annotations

import time
import zipfile
from collections import namedtuple

import fsspec
import pytest
from typer.testing import CliRunner

from salip_ray import load_config
from salip_ray.cli import app
from salip_ray.cluster import doctor
from salip_ray.cluster.doctor import Advice
from salip_ray.errors import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def config():
    return load_config("lungs")


def test_a_machine_where_all_is_well(images, tmp_path, config):
    findings = list(doctor.examine(config, input=str(images), output=str(tmp_path / "out")))
    found = {finding.check: finding for finding in findings}
    assert not [finding for finding in findings if finding.verdict == "fix"]
    assert {"versions", "device", "memory", "disk", "input", "output", "ray"} <= set(found)
    assert found["weights: sam"].said == "bundled"
    assert "deleted" in found["output"].said
    assert not list((tmp_path / "out").iterdir())


def test_what_is_wrong_is_said_and_the_exit_code_shows_it(tmp_path):
    said = CliRunner().invoke(
        app,
        ["doctor", str(tmp_path / "nowhere"), str(tmp_path / "out"), "--set", "run.device=cuda"],
    )
    assert said.exit_code == 1
    lines = said.output.splitlines()
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
    told = doctor.readable(location.format(tmp=tmp_path), config)
    assert told == f"read 16 bytes of {first.format(tmp=tmp_path)}"


def test_an_empty_image_is_not_what_tells_whether_an_input_can_be_read(tmp_path, config):
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
    assert "cannot write" in finding.said


def test_a_clock_that_is_off(tmp_path, config, monkeypatch):
    now = time.time
    monkeypatch.setattr(doctor.time, "time", lambda: now() + 1200)
    with pytest.raises(Advice, match="clock") as caught:
        doctor.writable(str(tmp_path), config)
    assert caught.value.fatal


def test_a_store_that_forbids_deleting_is_told_so(tmp_path, config, monkeypatch):
    local = type(fsspec.filesystem("file"))

    def refuse(self, path):
        raise PermissionError(path)

    monkeypatch.setattr(local, "rm_file", refuse)
    assert "left behind" in doctor.writable(str(tmp_path), config)
    from salip_ray.output.store import Store

    assert not Store(tmp_path).names()  # a job takes the location for empty


def test_little_memory_and_disk_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1, 1, 64 * 2**20))
    with pytest.raises(Advice, match="--shm-size"):
        doctor.shared_memory(str(tmp_path))
    with pytest.raises(Advice, match="SALIP_RAY_CACHE"):
        doctor.disk()


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
    assert "no job server answers" in last.said


def test_the_limit_of_open_files(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    with pytest.raises(Advice, match="ulimit"):
        doctor.open_files()
