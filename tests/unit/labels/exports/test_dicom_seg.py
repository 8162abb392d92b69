"""DICOM Segmentations: the pixels of each class at the slices they were found on."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from highdicom.seg import segread

from salip_ray.config import load_config
from salip_ray.errors import OutputError
from salip_ray.labels.exports.dicom_seg import export_dicom_seg
from salip_ray.labels.exports.outside import Destination
from salip_ray.labels.masks import area, bbox_xywh, encode_rle
from salip_ray.labels.reading import Labels
from salip_ray.pipeline.headers import expand
from salip_ray.pipeline.plan import make_plan
from salip_ray.rows import LABEL_SCHEMA
from salip_ray.sources.listing import list_images
from tests.dicom_series import write_slice

CLASSES = {"liver": 1, "spleen": 2, "nothing": 3}


def mask_cell(label, mask):
    rle = encode_rle(mask)
    cell = {"method": "cascade", "label": label, "class_id": CLASSES[label], "rle": rle}
    return {**cell, "bbox": bbox_xywh(rle), "area": area(rle), "clip_score": 1.0}


@pytest.fixture
def output(tmp_path):
    """Labels of a series of three slices named against their order, and of a lone image."""
    grey = np.zeros((8, 9), np.int16)
    for number, place in enumerate((6.0, 0.0, 3.0), start=1):
        write_slice(tmp_path / "in" / f"{number}.dcm", grey, place, number=number)
    write_slice(tmp_path / "in" / "lone.dcm", grey, 3.0, number=9, series="1.2.3.4")
    config = load_config({"task": {"name": "organs", "prompts": {name: ["x"] for name in CLASSES}}})
    plan = make_plan(expand(list_images(tmp_path / "in"), config)[0], 2)
    rng = np.random.default_rng(0)
    rows, masks = [], {}
    for row in plan.manifest.to_pylist():
        found = {name: rng.random((8, 9)) < 0.4 for name in ("liver", "spleen")}
        masks[row["uri"].rsplit("/", 1)[-1]] = found
        rows.append(
            {
                **{name: row[name] for name in ("image_id", "uri", "volume", "slice")},
                "height": 8,
                "width": 9,
                "status": "ok",
                "masks": [mask_cell(name, mask) for name, mask in found.items()],
            }
        )
    out = tmp_path / "out"
    (out / "shards").mkdir(parents=True)
    (out / "run.json").write_text(
        json.dumps({"schema_version": 1, "fingerprint": {"recipe": config.recipe()}})
    )
    pq.write_table(plan.manifest, out / "manifest.parquet")
    for shard in range(plan.n_shards):
        table = pa.Table.from_pylist(rows[2 * shard : 2 * shard + 2], schema=LABEL_SCHEMA)
        pq.write_table(table, out / "shards" / f"part-{shard:05d}.parquet")
    return out, masks


def test_every_pixel_comes_back_at_its_slice(output, tmp_path):
    out, masks = output
    labels = Labels.open(str(out))
    written, notes = export_dicom_seg(labels, Destination(tmp_path / "seg", labels))
    assert (written, notes) == (2, [])
    by_uid = {}
    for name, found in masks.items():
        by_uid[str(pydicom.dcmread(tmp_path / "in" / name).SOPInstanceUID)] = found
    seen = 0
    for path in (tmp_path / "seg").glob("*.dcm"):
        seg = segread(path)
        assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
        assert seg.PatientID == "PID-77123"
        assert [seg.get_segment_description(n).segment_label for n in seg.segment_numbers] == [
            "liver",
            "spleen",
        ]
        uids = [uid for _, _, uid in seg.get_source_image_uids()]
        pixels = seg.get_pixels_by_source_instance(uids)
        for uid, planes in zip(uids, pixels, strict=True):
            np.testing.assert_array_equal(planes[..., 0] > 0, by_uid[uid]["liver"])
            np.testing.assert_array_equal(planes[..., 1] > 0, by_uid[uid]["spleen"])
            seen += 1
    assert seen == 4


def test_the_same_export_gives_the_same_uids(output, tmp_path):
    labels = Labels.open(str(output[0]))
    found = []
    for name in ("a", "b"):
        export_dicom_seg(labels, Destination(tmp_path / name, labels))
        paths = sorted((tmp_path / name).glob("*.dcm"))
        found.append([pydicom.dcmread(path).SOPInstanceUID for path in paths])
    assert found[0] == found[1]


def test_what_is_not_labelled_gives_no_object(output, tmp_path):
    labels = Labels.open(str(output[0]))
    written, notes = export_dicom_seg(
        labels, Destination(tmp_path / "seg", labels), method="gt_sam"
    )
    assert written == 0
    assert all("nothing was labelled" in note for note in notes)


def test_a_series_that_is_not_complete_is_refused(output, tmp_path):
    out, _ = output
    (out / "shards" / "part-00001.parquet").unlink()
    labels = Labels.open(str(out))
    with pytest.raises(OutputError, match="not complete"):
        export_dicom_seg(labels, Destination(tmp_path / "seg", labels))


def test_not_into_the_output(output):
    labels = Labels.open(str(output[0]))
    with pytest.raises(OutputError, match="export to another place"):
        Destination(output[0] / "seg", labels)
