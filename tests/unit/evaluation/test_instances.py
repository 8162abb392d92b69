"""F1 and panoptic quality of objects, checked against MONAI and by hand."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from scipy.optimize import linear_sum_assignment

from salip_ray.config import load_config
from salip_ray.errors import ConfigError, InputError
from salip_ray.evaluation import as_json
from salip_ray.evaluation.coco_references import CocoReferences, open_references
from salip_ray.evaluation.instances import (
    InstanceScore,
    instance_averages,
    instances_of_cell,
    instances_of_mask,
    match,
)
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.output.cells import pack_masks
from salip_ray.output.masks import component_rles, encode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.report.tables import has_several_objects, instance_table
from salip_ray.schema import ClassMask, ImageRef, Instance

CONFIG = load_config({"task": {"name": "t", "prompts": {"lungs": ["the lungs"]}, "top_k": 2}})


def box(y0, y1, x0, x1, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


LEFT, RIGHT = box(5, 25, 5, 25), box(5, 25, 25, 45)  # they touch


def test_f1_and_pq_of_separate_objects_are_those_of_monai():
    from monai.metrics.panoptic_quality import compute_panoptic_quality

    rng = np.random.default_rng(3)
    for _ in range(6):
        maps = rng.integers(0, 4, (2, 6, 6))
        maps[1] = np.where(rng.random((6, 6)) < 0.8, maps[0], maps[1])
        rles = [[encode_rle(m == value) for value in np.unique(m) if value] for m in maps]
        matched, iou = match(*rles)
        score = InstanceScore("a", "a", "x", "m", *map(len, rles), matched, iou)
        mean = instance_averages([score])["x"]["m"]

        for name, figure in (("rq", mean.f1), ("pq", mean.pq)):
            theirs = compute_panoptic_quality(*map(torch.tensor, maps), metric_name=name)
            assert figure == pytest.approx(float(theirs), abs=1e-4)


def test_each_object_has_one_partner_and_the_best_pairs_are_taken():
    whole, most = box(0, 10, 0, 10), box(0, 10, 0, 8)
    assert match([encode_rle(most), encode_rle(whole)], [encode_rle(whole)]) == (1, 1.0)
    assert match([], [encode_rle(whole)]) == (0, 0.0)
    assert match([encode_rle(box(0, 10, 0, 5))], [encode_rle(whole)]) == (0, 0.0)  # exactly 0.5


def test_thousands_of_objects_are_matched_in_little_memory():
    specks = np.zeros((800, 800), bool)
    specks[::10, ::10] = specks[1::10, ::10] = True
    rles = component_rles(specks)
    tracemalloc.start()
    try:
        assert match(rles, rles[::-1]) == (6400, 6400.0)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000  # of all pairs at once, 330 MB
    finally:
        tracemalloc.stop()


def test_groups_of_overlapping_objects_are_matched_as_a_whole():
    rng = np.random.default_rng(11)
    for _ in range(20):
        sides = [
            [encode_rle(box(y, y + 8, x, x + 8)) for y, x in rng.integers(0, 12, (n, 2))]
            for n in (9, 7)
        ]
        plain = [[dict(rle) for rle in rles] for rles in sides]
        ious = np.asarray(coco.iou(*plain, [False] * 7))
        ious[ious <= 0.5] = 0
        best = ious[linear_sum_assignment(ious, maximize=True)]
        assert match(*sides) == (np.count_nonzero(best), pytest.approx(best.sum()))


def test_figures_are_of_all_images_together():
    scores = [
        InstanceScore("a", "a", "x", "m", 2, 2, 2, 1.8),
        InstanceScore("b", "b", "x", "m", 1, 3, 1, 0.6),
        InstanceScore("c", "c", "x", "m", 0, 0, 0, 0.0),
    ]
    mean = instance_averages(scores)["x"]["m"]
    assert (mean.labelled, mean.reference, mean.matched, mean.images) == (3, 5, 3, 3)
    assert mean.f1 == pytest.approx(6 / 8)
    assert mean.pq == pytest.approx(4.8 / 8)
    assert mean.f1_interval[0] == pytest.approx(0.5)
    assert mean.f1_interval[1] == pytest.approx(1.0)
    assert np.isnan(instance_averages(scores[2:])["x"]["m"].f1)


def test_specks_of_a_mask_are_no_objects():
    mask = LEFT | box(30, 31, 50, 52)  # 2 of 400 pixels
    assert instances_of_mask(mask) == [encode_rle(LEFT)]
    assert instances_of_mask(mask & False) == []


def test_a_mask_without_known_objects_has_its_components():
    far = box(5, 25, 40, 58)
    (cell,) = pack_masks([ClassMask("cascade", "lungs", 1, LEFT | far)])
    assert instances_of_cell(cell) == [cell["rle"]]
    del cell["instances"]  # schema 2, or a student
    assert instances_of_cell(cell) == [encode_rle(LEFT), encode_rle(far)]
    assert instances_of_cell(None) == []


@pytest.fixture
def output(write_output):
    """Return an output of two images: both lungs as instances, and the left lung alone."""
    both = ClassMask(
        *("cascade", "lungs", 1, LEFT | RIGHT), instances=(Instance(LEFT), Instance(RIGHT))
    )
    one = ClassMask("cascade", "lungs", 1, LEFT)
    rows = [
        {
            "image_id": name,
            "uri": f"/in/{name}.png",
            "height": 40,
            "width": 60,
            "status": "ok",
            "masks": pack_masks([mask]),
        }
        for name, mask in (("a", both), ("b", one))
    ]
    return LabelOutput.open(str(write_output(rows, config=CONFIG)))


def figures(output, location, **options):
    evaluation = evaluate_output(
        output, open_references(str(location), ["lungs"]), surfaces=False, **options
    )
    mean = instance_averages(evaluation.instances)["lungs"]["cascade"]
    return evaluation, (mean.labelled, mean.reference, mean.matched)


def test_instance_ids_separate_two_lungs_that_touch(output, tmp_path):
    for name in "ab":
        ids = LEFT + 2 * RIGHT.astype(np.uint8)
        Image.fromarray(ids.astype(np.uint8)).save(tmp_path / f"{name}.png")
    evaluation, counts = figures(output, tmp_path, instance_ids=True)
    assert counts == (3, 4, 3)
    assert [score.dice for score in evaluation.scores] == [1.0, pytest.approx(2 / 3)]
    assert figures(output, tmp_path)[1] == (3, 2, 0)  # as components they are one
    assert has_several_objects(evaluation)
    assert instance_table(evaluation).row_count == 2
    data = json.loads(as_json(evaluation))
    assert data["instances"]["lungs"]["cascade"]["f1"] == pytest.approx(6 / 7)
    assert [item["matched"] for item in data["objects"]] == [2, 1]


def test_instance_ids_of_several_classes_are_refused(output, tmp_path, write_output):
    coco_file(tmp_path / "coco.json", [("a.png", 1, encode_rle(LEFT))])
    with pytest.raises(ConfigError, match="a COCO file tells objects apart itself"):
        figures(output, tmp_path / "coco.json", instance_ids=True)


def coco_file(path, objects, names=("lungs", "spine"), extra=()):
    images = sorted({name for name, *_ in objects} | set(extra))
    content = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
        "images": [
            {"id": 7 + n, "file_name": name, "height": 40, "width": 60}
            for n, name in enumerate(images)
        ],
        "annotations": [
            {"id": n, "image_id": 7 + images.index(name), "category_id": of, "segmentation": seg}
            for n, (name, of, seg) in enumerate(objects)
        ],
    }
    path.write_text(json.dumps(content))


def test_a_coco_file_is_a_reference_in_each_form_of_its_masks(output, tmp_path):
    polygon = [[5, 5, 25, 5, 25, 25, 5, 25]]
    fortran = RIGHT.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(fortran, prepend=0, append=0))
    counts = np.diff([0, *edges, fortran.size]).tolist()
    coco_file(
        tmp_path / "coco.json",
        [
            ("x/a.png", 1, polygon),
            ("x/a.png", 1, {"size": [40, 60], "counts": counts}),
            ("x/a.png", 2, encode_rle(LEFT)),
            ("b.png", 1, encode_rle(RIGHT)),
        ],
    )
    evaluation, counted = figures(output, tmp_path / "coco.json")
    assert counted == (3, 3, 2)
    assert [score.dice for score in evaluation.scores] == [1.0, 0.0]
    assert evaluation.unscored == ()


def test_an_image_without_objects_is_an_empty_reference(output, tmp_path):
    coco_file(tmp_path / "coco.json", [("a.png", 1, encode_rle(LEFT))], extra=["b.png"])
    evaluation, counted = figures(output, tmp_path / "coco.json")
    assert counted == (3, 1, 1)
    assert [score.dice for score in evaluation.scores] == [pytest.approx(2 / 3), 0.0]
    coco_file(tmp_path / "coco.json", [("a.png", 1, encode_rle(LEFT))])
    evaluation, _ = figures(output, tmp_path / "coco.json")
    assert [item.reason for item in evaluation.unscored] == ["without_reference"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "is no COCO file of instances: its images"),
        (lambda content: content["annotations"][0].pop("segmentation"), "annotation 1 cannot be"),
        (
            lambda content: content["annotations"][0].update(segmentation=encode_rle(LEFT.T)),
            "its segmentation is of",
        ),
        (
            lambda content: [c.update(name=f"x{c['id']}") for c in content["categories"]],
            "has the categories x1, x2, but the classes are lungs",
        ),
        (lambda content: content["images"].append(content["images"][0] | {"id": 99}), "lists two"),
        (
            lambda content: content["annotations"][0].update(
                segmentation=[[0, 0, float("nan"), 0, 9, 9]]
            ),
            r"annotation 1 cannot be used \(it has a polygon far outside",
        ),
        (lambda content: content["images"][0].update(height=0), "an image has the height 0"),
        (lambda content: content["images"][0].update(slice=[3]), r"has the slice \[3\]"),
        (lambda content: content["images"][0].update(file_name=None), "without a file_name: 7"),
    ],
)
def test_a_coco_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, change, message):
    file = tmp_path / "coco.json"
    coco_file(file, [("a.png", 1, encode_rle(LEFT))])
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        CocoReferences.open(str(file), ["lungs"])
    with pytest.raises(InputError, match="cannot be read"):
        CocoReferences.open(str(tmp_path / "gone.json"), ["lungs"])


def test_a_stem_of_several_images_is_ambiguous(tmp_path):
    coco_file(tmp_path / "coco.json", [("a.png", 1, encode_rle(LEFT))])
    references = CocoReferences.open(str(tmp_path / "coco.json"), ["lungs"])
    image = ImageRef("/p1/a.png")
    assert references.among(["/p1/a.png"]).find(image) is not None
    shared = references.among(["/p1/a.png", "/p2/a.png"])
    assert shared.find(image) is None
    assert "2 images have the name" in shared.ambiguity(image)
