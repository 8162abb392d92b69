"""Label Studio: brush masks, tasks, URLs of images, and files that are refused."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from salip_ray.errors import InputError
from salip_ray.review.tools import brush_rle
from salip_ray.review.tools.urls import Urls
from tests.unit.review.mixed import refused, run


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=70)))
def test_a_brush_mask_survives(mask):
    np.testing.assert_array_equal(brush_rle.decode(brush_rle.encode(mask), *mask.shape), mask)


@pytest.mark.parametrize("side", [1, 3, 200])
def test_label_studio_reads_and_writes_the_same_brush_masks(side):
    brush = pytest.importorskip(
        "label_studio_sdk.converter.brush", reason="pip install label-studio-sdk"
    )
    mask = np.random.default_rng(0).random((side, side + 40)) < 0.3
    mask[:, 30:] = False
    values = brush.decode_rle(brush_rle.encode(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values == 255, np.repeat(mask[..., None], 4, 2))
    theirs = brush.mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(brush_rle.decode(list(theirs), *mask.shape), mask)


@pytest.mark.parametrize("data", [[], [0] * 3, brush_rle.encode(np.ones((5, 5), np.bool_))[:-2]])
def test_a_damaged_brush_mask_is_refused(data):
    with pytest.raises(ValueError, match="brush mask"):
        brush_rle.decode(data, 5, 5)


def test_images_stay_where_they_are_unless_a_browser_cannot_open_them(mixed, tmp_path):
    dest = tmp_path / "ls"
    run("export", "label-studio", mixed, dest)
    tasks = json.loads((dest / "tasks.json").read_text())
    assert tasks[0]["data"]["image"].endswith("/images/view0.png")
    assert str(tmp_path / "images").lstrip("/") in tasks[0]["data"]["image"]
    assert len(list((dest / "images").iterdir())) == 20  # DICOM files and slices
    assert "MEIER" not in (dest / "tasks.json").read_text()
    assert tasks[0]["predictions"][0]["score"] == pytest.approx(0.5)
    assert tasks[1]["predictions"][0]["result"][1]["score"] == pytest.approx(0.9)


def test_label_studio_accepts_the_configuration_and_the_predictions(mixed, tmp_path):
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="pip install label-studio-sdk"
    )
    run("export", "label-studio", mixed, tmp_path / "ls")
    label = interface.LabelInterface((tmp_path / "ls/config.xml").read_text())
    label.validate()
    for task in json.loads((tmp_path / "ls/tasks.json").read_text()):
        assert label.validate_prediction(task["predictions"][0], return_errors=True) == []


def test_label_studio_copies_images_if_asked(mixed, tmp_path):
    run("export", "label-studio", mixed, tmp_path / "ls", "--copy")
    assert len(list((tmp_path / "ls/images").iterdir())) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("salip_image_id"), "without salip_image_id"),
        (lambda data: data.update(salip_output="0" * 16), "exported from another output than"),
        (lambda data: data.update(salip_image_id="f" * 32), f"has no image {'f' * 32}"),
        (lambda data: data.update(salip_classes={"lung": 9}), "names the classes"),
    ],
)
def test_a_wrong_export_of_label_studio_is_refused_by_name(mixed, tmp_path, change, message):
    run("export", "label-studio", mixed, tmp_path / "ls")
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())[:1]
    tasks[0]["annotations"] = tasks[0]["predictions"]
    change(tasks[0]["data"])
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(tasks))
    output = refused("import-review", file, mixed)
    assert str(file) in output
    assert message in output
    assert not (mixed / "reviews").exists()


def test_urls_of_a_bucket_are_signed_if_asked(tmp_path):
    options = {"key": "access", "secret": "hidden", "endpoint_url": "http://127.0.0.1:9"}
    plain = Urls(options, "/dest", None, 0)
    assert plain.of("s3://bucket/a b.png") == "s3://bucket/a b.png"
    signed = Urls(options, "s3://other/dest", {}, 48)
    url = urlsplit(signed.of("s3://bucket/a b.png"))
    assert (url.netloc, url.path) == ("127.0.0.1:9", "/bucket/a%20b.png")
    assert {"Signature", "X-Amz-Signature"} & set(parse_qs(url.query))
    assert "hidden" not in url.query
    assert signed.of("https://site/a.png") == "https://site/a.png"
    assert signed.of("/data/a b.png") == "/data/local-files/?d=data/a%20b.png"


def test_a_store_without_signed_urls_is_refused():
    with pytest.raises(InputError, match=r"URLs of memory:// cannot be signed: leave out --sign"):
        Urls({}, "/dest", None, 48).of("memory://bucket/a.png")
