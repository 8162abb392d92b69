"""The report as text: everything said, nothing fetched, nothing of the data taken for markup."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.errors import ConfigError, InputError, OutputError
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.output.reader import LabelOutput
from salip_ray.report.build import find_runs, make_report
from salip_ray.report.charts import histogram, stage_columns
from salip_ray.report.scores import Scores
from salip_ray.report.statistics import Histogram
from salip_ray.sources.references import References
from tests.unit.report.conftest import label_row, mask_cell


def references(run, folder):
    """Reference masks of the run's phantoms, where the whole image is lung."""
    folder.mkdir()
    for row in LabelOutput.open(str(run)).rows():
        if row["status"] != "error":
            whole = np.full((row["height"], row["width"]), 255, np.uint8)
            Image.fromarray(whole).save(folder / row["uri"].rpartition("/")[2])
    return folder


def text_of(html: str) -> str:
    """The words of a page, its style and script left out."""
    html = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_counts_and_pictures(run):
    html = make_report(str(run))
    words = text_of(html)
    assert "Images 8 Labelled 5 62.5 % Empty 1 Errors 2" in words
    assert "labelled 5 empty 1 error 2" in words
    assert "1 SAM proposed no candidate" in words
    # Four labelled images that are still there, and the empty one.
    assert html.count("data:image/webp;base64,") == 5
    assert "decode ImageError 2" in words


def test_missing_image_is_shown_by_its_masks_with_a_note(run):
    html = make_report(str(run))
    assert html.count("xray-1.png does not exist") == 1
    assert html.count('class="bare"') == 1


def test_replaced_image_is_not_shown_with_old_masks(run, tmp_path):
    Image.new("RGB", (33, 44)).save(tmp_path / "images" / "xray-2.png")
    assert "is now 44 x 33 pixels (height x width), but was" in make_report(str(run))


def test_data_is_escaped_in_html(run):
    html = make_report(str(run))
    assert "<script>alert" not in html
    assert "<b>no&name" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_report_loads_nothing_from_the_network(run):
    html = make_report(str(run))
    addresses = re.findall(r"""(?:\b(?:src|href)="|url\()([^")]*)""", html)
    assert addresses
    assert [a for a in addresses if not a.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in html


def test_the_same_run_and_seed_give_the_same_bytes(run):
    assert make_report(str(run), seed=3) == make_report(str(run), seed=3)


def test_report_of_an_unfinished_run_states_its_progress(write_output):
    row = label_row("/in/a.png", (8, 8), [mask_cell(np.ones((8, 8), np.bool_))])
    out = write_output([row], pending=9)
    assert "1 of 10 images are committed" in text_of(make_report(str(out)))


def test_a_run_without_a_shard_is_refused(write_output):
    with pytest.raises(ConfigError, match="no committed shard yet"):
        make_report(str(write_output(pending=3)))


def test_scores_by_references_given(run, tmp_path):
    html = make_report(str(run), reference=str(references(run, tmp_path / "masks")))
    words = text_of(html)
    assert "Scores against the references" in words
    assert re.search(r"cascade( [.\d]+){4} 6", words)  # Dice, IoU, HD95, NSD; images
    assert html.count('data-layer="reference"') == 6


def test_scores_of_an_evaluation_in_the_output(run, tmp_path):
    from salip_ray.evaluation import as_json

    assert "Scores against the references" not in make_report(str(run))
    evaluation = evaluate_output(
        LabelOutput.open(str(run)), References.open(str(references(run, tmp_path / "masks")))
    )
    (run / "evaluation.json").write_text(as_json(evaluation))
    assert "Scores against the references" in make_report(str(run))


def test_objects_have_scores_if_a_class_has_several(run, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for row in LabelOutput.open(str(run)).rows():
        if row["status"] != "error":
            # Each lung is an object; the labels have both lungs, too.
            index = int(row["uri"].rpartition("-")[2].removesuffix(".png"))
            phantom = make_phantom("chest_xray", index, bank="tune", size=96 + 8 * index)
            mask = phantom.mask(TARGETS["chest_xray"]).astype(np.uint8)
            Image.fromarray(mask).save(folder / row["uri"].rpartition("/")[2])
    words = text_of(make_report(str(run), reference=str(folder)))
    assert "Two objects match if their IoU is above 0.5." in words
    # Five images are labelled like their references, and one with two lungs is empty.
    assert "Class Method F1 PQ Labels References Matched" in words
    assert "lungs cascade 0.909 0.909 10 12 10" in words
    assert "lungs GT-SAM 0.909 0.909 10 12 10" in words


def test_single_objects_have_no_table_and_an_older_evaluation_is_shown_without_it(run, tmp_path):
    from salip_ray.evaluation import as_json

    folder = references(run, tmp_path / "masks")
    of_ones = evaluate_output(LabelOutput.open(str(run)), References.open(str(folder)))
    content = json.loads(as_json(of_ones))
    several = {**content["objects"][0], "reference": 2}
    for change, shown in (
        ({"objects": [{**item, "labelled": 1} for item in content["objects"]]}, False),
        ({"objects": [several]}, True),
        ({"objects": None, "instances": None}, False),
    ):
        data = {key: value for key, value in {**content, **change}.items() if value is not None}
        (run / "evaluation.json").write_text(json.dumps(data))
        words = text_of(make_report(str(run)))
        assert "Scores against the references" in words
        assert ("Objects against the references" in words) == shown


def test_objects_of_unprompted_sam_are_those_of_its_better_variant():
    variants = {"unprompted_largest": {"f1": 0.4}, "unprompted_confident": {"f1": 0.9}}
    content = {
        "classes": {"lungs": {"unprompted": {"dice": 0.5, "variant": "unprompted_largest"}}},
        "images": [],
        "instances": {"lungs": variants},
        "objects": [{"label": "lungs", "labelled": 0, "reference": 2}],
    }
    scores = Scores.parse(json.dumps(content).encode(), "evaluation.json")
    assert scores.objects == {"lungs": {"unprompted": {"f1": 0.4}}}


def test_an_evaluation_of_other_images_is_not_shown(run):
    other = {"image_id": "f" * 32, "label": "lungs", "method": "cascade", "dice": 0.9}
    means = {"lungs": {"cascade": {"dice": 0.9, "iou": 0.8, "n": 1, "empty": 0}}}
    (run / "evaluation.json").write_text(json.dumps({"classes": means, "images": [other]}))
    assert "Scores against the references" not in make_report(str(run))


def test_a_broken_evaluation_is_named(run):
    (run / "evaluation.json").write_text("[]")
    with pytest.raises(InputError, match=r"labels/evaluation\.json is not an evaluation"):
        make_report(str(run))


def test_a_folder_of_runs_is_one_report(run):
    words = text_of(make_report(str(run.parent)))
    assert words.count("Images 8 Labelled 5") == 1
    runs, shared = find_runs(str(run.parent))
    assert [labels.uri for labels in runs] == [str(run)]
    assert shared is None


def test_a_location_without_a_run_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        make_report(str(tmp_path))
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        make_report(str(tmp_path / "nowhere"))


def test_a_run_on_s3_is_read_and_its_report_written_there(run, s3, tmp_path):
    s3.upload(run, "report/labels")
    given = [f"--output-option={key}={value}" for key, value in s3.options.items()]
    done = CliRunner().invoke(app, ["report", "s3://report/labels", *given])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("report: s3://report/labels/report.html")
    there = (s3.download("report/labels", tmp_path / "labels") / "report.html").read_text()
    assert text_of(there) == text_of(make_report(str(run))).replace(str(run), "s3://report/labels")
    assert s3.secret not in there


# -------------------------------------------------------------------------------------- charts


def test_bars_of_a_histogram_hold_every_value():
    counts = Histogram(0.0, 1.0)
    counts.add(np.random.default_rng(0).random(500) * 0.5)
    chart = histogram("x", counts, low=0, high=1)
    assert (chart.low, chart.high) == ("0", "1")
    assert sum(int(bar.title.rpartition(": ")[2]) for bar in chart.bars) == 500
    assert max(bar.height for bar in chart.bars) == 100
    assert max(bar.x + bar.width for bar in chart.bars) == pytest.approx(52, abs=4)
    assert histogram("x", Histogram(0.0, 1.0)) is None


def test_one_value_is_one_bar():
    counts = Histogram(-100.0, 100.0, 4000)
    counts.add(np.array([30.0, 30.0]))
    (bar,) = histogram("x", counts).bars
    assert (bar.x, bar.width, bar.height) == (0, 100, 100)


def test_columns_of_stage_times_keep_the_order_of_shards():
    shards = [
        {"shard": n, "rows": 10, "seconds": {"fetch": 10.0, "propose": 30.0 * (1 + (n >= 500))}}
        for n in range(1000)
    ]
    chart = stage_columns(shards)
    assert len(chart.columns) <= 60
    assert chart.top == "7"
    early, late = chart.columns[0], chart.columns[-1]
    assert [part.length for part in early.parts] == pytest.approx([100 / 7, 300 / 7])
    assert [part.length for part in late.parts] == pytest.approx([100 / 7, 600 / 7])
    assert stage_columns(shards[:3]) is None
