"""``salip-ray export`` and ``import-review``: arguments they pass on, and messages."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.datasets.exports import (
    coco,
    decathlon,
    hf,
    nnunet,
    png,
    review,
    webdataset,
    yolo,
)
from salip_ray.datasets.reviews import Imported
from salip_ray.review import importing


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def opened(monkeypatch):
    """Record how ``PseudoLabels`` is opened; exports are tested elsewhere."""
    from salip_ray.datasets import pseudo_labels

    calls = []

    class Stub:
        def __init__(self, output, **options):
            self.left_out = {"empty": 2}
            calls.append((output, options))

    monkeypatch.setattr(pseudo_labels, "PseudoLabels", Stub)
    return calls


FORMATS = {
    "coco": coco,
    "nnunet": nnunet,
    "png": png,
    "webdataset": webdataset,
    "hf": hf,
    "yolo": yolo,
    "decathlon": decathlon,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_receives_labels_destination_and_split(name, opened, monkeypatch):
    calls = []
    monkeypatch.setattr(FORMATS[name], "export", lambda *a, **k: calls.append((a, k)) or 1234)
    done = run(
        *("export", name, "s3://b/labels", "s3://b/dest", "--min-confidence", 0.7),
        *("--min-presence", 0.5, "--min-area", 20, "--negatives"),
        *("--class", "lung", "--val", 0.2, "--seed", 5, "--group-by", "folder"),
        *("--labels-option", "anon=true", "--dest-option", "endpoint_url=http://x:1"),
    )
    assert done.exit_code == 0, done.output
    assert "1,234 images in s3://b/dest" in done.output
    assert "left out 2 images without a label (exports take those with --negatives)" in done.stderr
    ((output, options),) = opened
    assert output == "s3://b/labels"
    assert (options["min_confidence"], options["classes"]) == (0.7, ["lung"])
    assert (options["min_presence"], options["min_area"], options["negatives"]) == (0.5, 20, True)
    assert options["storage_options"] == {"anon": True}
    ((args, kwargs),) = calls
    assert args[1] == "s3://b/dest"
    assert (kwargs["split"].val, kwargs["split"].seed, kwargs["split"].group_by) == (
        *(0.2, 5),
        "folder",
    )
    assert kwargs["storage_options"] == {"endpoint_url": "http://x:1"}


def test_review_is_exported_and_imported(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(review, "export", lambda *a, **k: k["limit"])
    done = run("export", "review", "labels", tmp_path / "review", "--limit", 7)
    assert f"7 images in {tmp_path / 'review'}" in done.output.replace("\n", "")
    imported = Imported(1, 2, 3, 4)
    monkeypatch.setattr(importing, "import_queue", lambda *a: imported)
    done = run("import-review", tmp_path, "labels")
    assert done.output == "1 corrected, 2 accepted, 3 rejected, 4 undecided\n"


def test_export_of_an_empty_folder_is_one_line(tmp_path):
    done = run("export", "coco", tmp_path, tmp_path / "dest")
    assert done.exit_code == 2
    assert "holds no run.json" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_finished_export_records_that_it_is_complete(tmp_path):
    from salip_ray.datasets.exports.destination import destination_of

    with destination_of(str(tmp_path / "d"), {"format": "coco"}) as destination:
        destination.complete(images_written=0)
    assert json.loads((tmp_path / "d/export.json").read_text())["complete"] is True
