"""A calibrated output: rows are read with fitted confidences, and the shards do not change."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from salip_ray.cascade.confidence import Calibration
from salip_ray.cli import app
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import OutputError
from salip_ray.output.calibration import Calibrations, ClassFit
from salip_ray.output.layout import CALIBRATION
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify import verify
from tests.conftest import tree
from tests.unit.consensus.runs import block, write_run

#: The expected Dice is 0.25 or 0.75, whatever the stored confidence.
LOW, HIGH = (
    Calibration(math.log(odds), (0.0,), (0.0,), (1.0,), (0.0,), (1.0,)) for odds in (1 / 3, 3)
)


@pytest.fixture
def output(tmp_path):
    images = {f"{n}.png": {"lungs": block((0, 4)), "heart": block((4, 6))} for n in range(4)}
    images |= {"bad.png": "cut off", "none.png": {}}
    return write_run(tmp_path / "labels", images, classes=("lungs", "heart"))


def calibrate(output, **fits):
    fits = {label: ClassFit(("confidence",), model) for label, model in fits.items()}
    content = Calibrations("/masks", frozenset({"a"}), fits)
    (output / CALIBRATION).write_bytes(content.to_bytes())
    return content


def confidences(rows):
    return {cell["label"]: cell["confidence"] for row in rows for cell in row["masks"] or ()}


def test_content_is_read_as_it_was_written(output):
    content = calibrate(output, lungs=LOW, heart=HIGH)
    assert LabelOutput.open(str(output)).calibrations == content


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(images="abc"),
        lambda content: content.update(classes=[]),
        lambda content: content["classes"]["lungs"].update(figures=[]),
        lambda content: content["classes"]["lungs"].update(figures=["clip"]),
        lambda content: content["classes"]["lungs"]["model"].update(weights=[1.0, 2.0]),
        lambda content: content["classes"]["lungs"]["model"].update(scale=[0]),
        lambda content: content["classes"]["lungs"]["model"].update(low=[math.nan]),
        lambda content: content["classes"]["lungs"]["model"].update(intercept="high"),
    ],
)
def test_a_file_of_wrong_values_is_damaged(output, change):
    calibrate(output, lungs=LOW)
    content = json.loads((output / CALIBRATION).read_text())
    change(content)
    (output / CALIBRATION).write_text(json.dumps(content))
    with pytest.raises(OutputError, match="is damaged: delete it and calibrate again"):
        LabelOutput.open(str(output))


def test_every_way_to_read_gives_the_fitted_confidence(output):
    calibrate(output, lungs=LOW)
    labels = LabelOutput.open(str(output))
    expected = {"lungs": pytest.approx(0.25), "heart": 0.5}
    some = ["image_id", "masks.list.element.label", "masks.list.element.confidence"]
    assert confidences(labels.rows()) == expected
    assert confidences(labels.rows(columns=some)) == expected
    for shard in labels.shards:
        rows = labels.table(shard).to_pylist()
        # As text: NaN is not equal to itself.
        assert repr(rows) == repr(list(labels.shard_rows(shard)))
        assert repr(rows) == repr([labels.row(shard, index) for index in range(len(rows))])
    statuses = {row["uri"]: row["status"] for row in labels.rows()}
    assert statuses["/in/bad.png"] == "error"
    assert statuses["/in/none.png"] == "empty"


def test_limits_use_the_fitted_confidence_and_no_byte_changes(output):
    before = tree(output)
    calibrate(output, lungs=LOW, heart=HIGH)
    labels = PseudoLabels(str(output), classes=["heart"], min_confidence=0.7)
    assert [entry.confidence for entry in labels.entries] == [pytest.approx(0.75)] * 4
    assert tree(output) == before
    assert verify(str(output)).problems == ()


def test_an_unknown_figure_leaves_the_confidence_unknown():
    assert math.isnan(ClassFit(("confidence",), LOW)({"confidence": None}))
    assert math.isnan(ClassFit(("confidence",), LOW)({"confidence": math.nan}))


def test_a_damaged_calibration_is_named(output):
    (output / CALIBRATION).write_text('{"classes": 3}')
    with pytest.raises(OutputError, match=r"calibration\.json is damaged: delete it"):
        LabelOutput.open(str(output))
    done = CliRunner().invoke(app, ["verify", str(output)])
    assert done.exit_code == 2
    assert "calibration.json is damaged" in done.output
