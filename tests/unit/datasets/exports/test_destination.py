"""Exports resume and never mix."""

from __future__ import annotations

import json
import shutil

import fsspec
import numpy as np
import pytest

from salip_ray.datasets.exports import decathlon, webdataset
from salip_ray.datasets.exports.destination import Destination
from salip_ray.datasets.images import Images
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.errors import OutputError
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
    with pytest.raises(OutputError, match="not empty and holds no export of salip-ray"):
        Destination(str(tmp_path), {"format": "coco"})


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
    destination = Destination("memory://user:hush-hush@host/x", {"format": "coco"})

    def fail(*_, **__):
        raise error("refused: https://acct.blob.core.windows.net/c/x?sv=1&sig=hush-hush")

    monkeypatch.setattr(fs, "pipe_file", fail)
    with pytest.raises(OutputError, match=r"^cannot write memory://user@host/x/a: refused:") as one:
        destination.write("a", "text")
    assert "hush-hush" not in str(one.value)


def test_killed_export_resumes_without_temporary_files(tmp_path):
    about = {"format": "coco", "labels": "/labels"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".export.json.0123456789ab.tmp").write_text("{")
    destination = Destination(str(tmp_path / "out"), about)
    destination.write("images/a.png", b"1")
    (tmp_path / "out" / "images" / ".b.png.0123456789ab.tmp").write_text("half")
    destination = Destination(str(tmp_path / "out"), about)
    assert destination.has("images/a.png")
    assert not destination.has("images/a.png", "images/b.png")
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"export.json", "a.png"}
