"""The review page as a file: what it holds, and what it must not hold."""

from __future__ import annotations

import json
import re

import numpy as np
from typer.testing import CliRunner

from salip_ray.cli import app
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.review.runs import unpack
from tests.unit.datasets.conftest import write_output as write_thorax


def test_label_maps_are_in_the_page_without_a_loss(thorax, write_page):
    file, entries = write_page(thorax)
    labels = PseudoLabels(str(thorax), negatives=True)
    texts = re.findall(r'id="m\d+">([^<]*)<', file.read_text())
    for entry, text in zip(entries, texts, strict=True):
        again = unpack(text, (entry.height, entry.width), 255)
        np.testing.assert_array_equal(again, labels.label_map(entry))


def test_names_cannot_end_the_script(tmp_path, write_page):
    output = write_thorax(tmp_path, names=("</script><script>alert(1)</script>", "heart"))
    text = write_page(output)[0].read_text()
    assert "<script>alert(1)" not in text
    about = json.loads(re.search(r'id="about">(.*?)</script>', text)[1])
    assert about["classes"][0]["label"].startswith("</script>")


def test_the_policy_allows_no_request_and_no_other_script(thorax, write_page):
    text = write_page(thorax)[0].read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "://" not in re.sub(r'<script type="(?!application).*?</script>', "", text)


def test_hidden_names_stay_out_of_the_page(thorax, write_page):
    import pyarrow.parquet as pq

    for shard in (thorax / "shards").iterdir():
        rows = pq.read_table(shard)
        hidden = [f"id:{image_id}" for image_id in rows["image_id"].to_pylist()]
        at = rows.schema.get_field_index("uri")
        pq.write_table(rows.set_column(at, rows.schema.field(at), [hidden]), shard)
    text = write_page(thorax)[0].read_text()
    assert "patient" not in text
    assert (
        "view"
        not in json.loads(re.search(r'id="about">(.*?)</script>', text)[1])["items"][0]["name"]
    )


def test_missing_images_are_left_out_with_a_note(thorax, tmp_path):
    (tmp_path / "thorax/images/patient0/view1.png").unlink()
    done = CliRunner().invoke(app, ["review", str(thorax)])
    assert done.exit_code == 0, done.output
    assert f"5 images in {thorax}/review.html" in done.stdout
    assert "view1.png" in done.stderr


def test_only_chosen_classes_are_shown(thorax, tmp_path):
    file = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["review", str(thorax), "--class", "heart", "--html", str(file)])
    assert done.exit_code == 0, done.output
    about = json.loads(re.search(r'id="about">(.*?)</script>', file.read_text())[1])
    assert [each["label"] for each in about["classes"]] == ["heart"]
    assert len(about["items"]) == 5


def test_nothing_to_review_is_one_line(thorax, tmp_path):
    from salip_ray.datasets.reviews import Decision
    from tests.unit.datasets.conftest import save_decisions

    ids = [entry.image_id for entry in PseudoLabels(str(thorax)).entries]
    save_decisions(thorax, {image_id: Decision("accepted") for image_id in ids})
    done = CliRunner().invoke(app, ["review", str(thorax)])
    assert (done.exit_code, done.output) == (0, "nothing to review: every label has a decision\n")
