"""Exports resume and never mix."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from salip_ray.datasets.exports import decathlon, review, webdataset
from salip_ray.datasets.exports.destination import destination_of
from salip_ray.datasets.images import Images
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.errors import LeaseError, OutputError
from salip_ray.output.layout import LEASE
from salip_ray.output.masks import encode_png
from salip_ray.sources import stores
from tests.unit.datasets.conftest import save_decisions


def test_resumed_export_gives_the_same_files(output, tmp_path, monkeypatch):
    labels = PseudoLabels(str(output))
    dest = tmp_path / "out"
    decathlon.export(labels, str(dest))
    whole = {p.relative_to(dest): p.read_bytes() for p in dest.rglob("*") if p.is_file()}
    gone = sorted(dest.glob("labelsTr/*"))[2]
    gone.unlink()
    (dest / "dataset.json").unlink()
    loaded = []
    load = Images.load
    monkeypatch.setattr(
        Images, "load", lambda self, *args, **named: loaded.append(1) or load(self, *args, **named)
    )
    decathlon.export(labels, str(dest))
    assert len(loaded) == 1  # only what was missing is read again
    assert {p.relative_to(dest): p.read_bytes() for p in dest.rglob("*") if p.is_file()} == whole


def test_another_export_is_not_mixed_in(output, tmp_path):
    labels = PseudoLabels(str(output))
    webdataset.export(labels, str(tmp_path / "out"), shard_size=4)
    with pytest.raises(OutputError, match=r"shard_size was 4, is 5\. .*give another output"):
        webdataset.export(labels, str(tmp_path / "out"), shard_size=5)
    certain = PseudoLabels(str(output), min_confidence=0.6)
    with pytest.raises(OutputError, match="images was 6, is 4"):
        webdataset.export(certain, str(tmp_path / "out"), shard_size=4)


def test_export_from_before_a_decision_is_not_resumed(output, tmp_path):
    labels = PseudoLabels(str(output))
    decathlon.export(labels, str(tmp_path / "out"))
    image_id = labels.entries[0].image_id
    maps = (np.full((40, 56), value, np.uint8) for value in (1, 2))
    for label_map in maps:
        decision = {image_id: Decision("corrected")}
        save_decisions(output, decision, {image_id: encode_png(label_map)})
        with pytest.raises(OutputError, match=r"decisions was .*on .* give another output"):
            decathlon.export(PseudoLabels(str(output)), str(tmp_path / "out"))
        shutil.rmtree(tmp_path / "out")
        decathlon.export(PseudoLabels(str(output)), str(tmp_path / "out"))
    decathlon.export(PseudoLabels(str(output)), str(tmp_path / "out"))


def test_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(OutputError, match="not empty and holds no export of salip-ray"),
        destination_of(str(tmp_path), {"format": "coco"}),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_record_describes_the_export_and_its_completion(output, tmp_path):
    labels = PseudoLabels(str(output))
    webdataset.export(labels, str(tmp_path / "out"))
    record = json.loads((tmp_path / "out/export.json").read_text())
    assert record["complete"] is True
    assert record["images_written"] == 6
    assert (record["images_left_out_empty"], record["images_left_out_error"]) == (1, 1)
    assert record["labels"] == str(output)
    assert record["fingerprint"]["recipe"]["task"]["name"] == "thorax"
    lines = (tmp_path / "out/provenance.csv").read_text().splitlines()
    assert len(lines) == 1 + len(labels)
    assert labels.entries[0].uri in lines[1]


class CloudError(Exception):
    """As the clients of Azure and Google raise it: neither an OSError nor a ValueError."""


@pytest.mark.parametrize("error", [CloudError, RuntimeError, OSError, ValueError])
def test_error_of_a_store_is_one_line_without_its_secrets(monkeypatch, error):
    monkeypatch.setattr(stores, "pause", lambda *_: None)
    fs = fsspec.filesystem("memory")

    def fail(*_, **__):
        raise error("refused: https://acct.blob.core.windows.net/c/x?sv=1&sig=hush-hush")

    with destination_of("memory://user:hush-hush@host/x", {"format": "coco"}) as destination:
        monkeypatch.setattr(fs, "pipe_file", fail)
        message = r"^cannot write memory://user@host/x/a: refused:"
        with pytest.raises(OutputError, match=message) as one:
            destination.write("a", "text")
    assert "hush-hush" not in str(one.value)


def test_killed_export_resumes_without_temporary_files(tmp_path):
    about = {"format": "coco", "labels": "/labels"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".export.json.0123456789ab.tmp").write_text("{")
    with destination_of(str(tmp_path / "out"), about) as destination:
        destination.write("images/a.png", b"1")
    (tmp_path / "out" / "images" / ".b.png.0123456789ab.tmp").write_text("half")
    with destination_of(str(tmp_path / "out"), about) as destination:
        assert destination.has("images/a.png")
        assert not destination.has("images/a.png", "images/b.png")
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"export.json", "a.png"}


# Runs an export that signals itself in the middle of a write, while its temporary file exists.
STOPPED_EXPORT = """
import os, signal, sys
from importlib import import_module
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.output import local_files
format, labels, dest, at, name = sys.argv[1:]
written, fsync = 0, os.fsync
def fsync_or_stop(file):
    global written
    if os.readlink(f"/proc/self/fd/{file}").find(".lease.json.") < 0:
        if written == int(at):
            print("stopping", flush=True)
            os.kill(os.getpid(), signal.Signals[name])
        written += 1
    fsync(file)
local_files.os.fsync = fsync_or_stop
import_module(f"salip_ray.datasets.exports.{format}").export(PseudoLabels(labels), dest)
"""


def start_export(kind, labels, dest, at, name):
    """Start an export that stops itself at one of its writes, and wait until it has."""
    command = [sys.executable, "-c", STOPPED_EXPORT, kind, labels, dest, at, name]
    started = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "stopping\n"
    return started


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("kind", "at"),
    [(decathlon, 0), (decathlon, 4), (decathlon, 15), (webdataset, 1), (review, 2), (review, 13)],
)
def test_killed_export_does_not_block_the_next_one(output, tmp_path, kind, at):
    undisturbed, dest = tmp_path / "undisturbed", tmp_path / "dest"
    kind.export(PseudoLabels(str(output)), str(undisturbed))
    killed = start_export(kind.__name__.rpartition(".")[2], output, dest, at, "SIGKILL")
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    assert len(list(dest.rglob(".*.tmp"))) == 1
    kind.export(PseudoLabels(str(output)), str(dest))
    assert files_of(dest) == files_of(undisturbed)


def test_second_export_at_the_same_time_is_refused(output, tmp_path):
    first = start_export("decathlon", output, tmp_path / "dest", 4, "SIGSTOP")
    try:
        before = files_of(tmp_path / "dest")
        with pytest.raises(LeaseError, match=f"written by another driver .*process {first.pid}"):
            decathlon.export(PseudoLabels(str(output)), str(tmp_path / "dest"))
        assert files_of(tmp_path / "dest") == before
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    first.stdout.close()
    assert json.loads((tmp_path / "dest/export.json").read_text())["complete"] is True
    assert not (tmp_path / "dest" / LEASE).exists()


def test_paused_export_that_was_taken_over_stops_writing(tmp_path):
    about = {"format": "coco", "labels": "/labels"}
    dest = tmp_path / "dest"
    with pytest.raises(LeaseError, match="taken over by another driver"):
        write_after_a_pause(dest, about)
    assert json.loads((dest / "export.json").read_text())["images_written"] == 2


def write_after_a_pause(dest, about):
    with destination_of(str(dest), about) as paused:
        (dest / LEASE).unlink()  # as if the lease had expired
        with destination_of(str(dest), about) as second:
            second.complete(images_written=2)
            paused.complete(images_written=1)
