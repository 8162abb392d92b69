"""The labels of the slices of a volume are chosen together, at the commit of their shard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from salip_ray.config import load_config
from salip_ray.output.cells import pack_masks, pack_outcomes
from salip_ray.output.masks import decode_png, decode_rle
from salip_ray.output.verify_row import check_row
from salip_ray.pipeline.retry_errors import _rows_to_label
from salip_ray.pipeline.rows.columns import TYPES
from salip_ray.pipeline.stages import BLANK
from salip_ray.pipeline.volumes import choose_labels
from salip_ray.schema import ClassMask, ClipScores, Outcome, SamScores

NAMES = (
    *("image_id", "uri", "height", "width", "status", "error", "volume", "slice"),
    *("outcomes", "masks", "ranking", "_png", "_alternatives"),
)
LEFT, RIGHT = (slice(10, 30), slice(2, 18)), (slice(10, 30), slice(22, 38))


@pytest.fixture
def config():
    settings = ["volumes.consistent=true", "task.min_confidence=0.5"]
    return load_config("brain", overrides=settings)


def mask(confidence, where, identity, label="brain", method="cascade", **more):
    pixels = np.zeros((40, 40), bool)
    pixels[where] = True
    return ClassMask(
        **{"method": method, "label": label, "class_id": 1, "mask": pixels, **more},
        sam=SamScores(0.9, 0.9),
        candidate_ids=(identity,),
        clip=ClipScores(20.0),
        confidence=confidence,
    )


def row(number, *alternatives, volume="v", others=(), status=None, reason="low"):
    """Return a refined row whose first alternative is its label if it is confident enough."""
    labelled = bool(alternatives) and alternatives[0].confidence >= 0.5
    outcome = Outcome("brain", "labelled" if labelled else "empty", "" if labelled else reason)
    of_row = [*(alternatives[:1] if labelled else ()), *others]
    ranking = [
        {"label": "brain", "class_id": 1, "candidate_id": item.candidate_ids[0], "retrieved": not n}
        for n, item in enumerate(alternatives)
    ]
    return {
        "image_id": f"{volume}{number}",
        "uri": "v.nii",
        "height": 40,
        "width": 40,
        "status": status or ("ok" if of_row else "empty"),
        "volume": volume,
        "slice": number,
        "outcomes": pack_outcomes([outcome]),
        "masks": pack_masks(of_row),
        "ranking": ranking,
        "_png": b"as refined",
        "_alternatives": pack_masks(alternatives),
    }


def table(*rows):
    return pa.table({name: pa.array([r.get(name) for r in rows], TYPES[name]) for name in NAMES})


def chosen(rows):
    """Return the candidates of each row's label, by slice; None if it is empty."""
    labels = {}
    for item in rows.to_pylist():
        assert list(check_row(item, load_config("brain").task.classes)) == []
        ids = [m["candidate_ids"] for m in item["masks"] if m["method"] == "cascade"]
        labels[item["slice"]] = ids[0] if ids else None
    return labels


def good(identity=1):
    return mask(0.9, LEFT, identity)


def test_a_slice_that_jumps_takes_the_candidate_that_fits_its_neighbours(config):
    jump = row(1, mask(0.8, RIGHT, 5), mask(0.7, LEFT, 6), others=[mask(0.1, LEFT, 7, method="x")])
    rows = choose_labels(table(row(2, good()), jump, row(0, good(2))), config)
    assert chosen(rows) == {0: [2], 1: [6], 2: [1]}
    assert rows.column_names == [name for name in NAMES if name != "_alternatives"]
    changed = rows.to_pylist()[1]
    assert [m["method"] for m in changed["masks"]] == ["cascade", "x"]
    painted = decode_png(changed["_png"]) == 1
    np.testing.assert_array_equal(painted, decode_rle(changed["masks"][0]["rle"]))
    assert [(e["candidate_id"], e["retrieved"]) for e in changed["ranking"]] == [
        *((5, False), (6, True)),
    ]
    assert [r["_png"] for r in rows.to_pylist()[::2]] == [b"as refined"] * 2


def test_an_end_slice_is_left_empty_although_it_is_confident_alone(config):
    lone = [row(n) for n in (3, 4, 5)]
    rows = choose_labels(
        table(row(0, good()), row(1, good()), *lone, row(6, mask(0.6, RIGHT, 9))), config
    )
    assert chosen(rows) == {0: [1], 1: [1], **dict.fromkeys((3, 4, 5, 6))}
    last = rows.to_pylist()[-1]
    assert last["status"] == "empty"
    reason = "the best path through the volume leaves it empty (confidence 0.600)"
    assert last["outcomes"] == [{"label": "brain", "outcome": "empty", "reason": reason}]
    assert not decode_png(last["_png"]).any()


def test_without_a_limit_of_confidence_every_slice_is_labelled():
    config = load_config("brain", overrides=["volumes.consistent=true", "task.min_confidence=0"])
    stack = [row(0, mask(0.5, LEFT, 1)), row(1), row(2, mask(0.5, RIGHT, 2)), row(3), row(4)]
    assert chosen(choose_labels(table(*stack), config)) == {
        0: [1],
        1: None,
        2: [2],
        3: None,
        4: None,
    }


def test_a_slice_between_labelled_ones_is_labelled_with_little_confidence(config):
    rows = choose_labels(table(row(0, good()), row(1, mask(0.3, LEFT, 4)), row(2, good())), config)
    assert chosen(rows) == {0: [1], 1: [4], 2: [1]}
    assert rows.to_pylist()[1]["outcomes"][0] == {
        "label": "brain",
        "outcome": "labelled",
        "reason": "",
    }


@pytest.mark.parametrize(("missing", "filled"), [(2, True), (3, False)])
def test_short_gaps_are_filled_from_both_sides(config, missing, filled):
    before = [row(n, mask(0.7, LEFT, 1)) for n in range(4)]
    gap = [row(4 + n) for n in range(missing)]
    after = [row(4 + missing + n, good()) for n in range(4)]
    rows = choose_labels(table(*before, *gap, *after), config).to_pylist()
    gap = rows[4:-4]
    assert {item["status"] for item in gap} == {"ok" if filled else "empty"}
    if filled:
        (cell,) = gap[0]["masks"]
        np.testing.assert_array_equal(decode_rle(cell["rle"]), mask(1, LEFT, 1).mask)
        assert cell["confidence"] == pytest.approx(0.7)
        assert (cell["candidate_ids"], cell["prompt_boxes"]) == ([], [])
        assert gap[0]["outcomes"][0]["reason"] == "filled between the slices 3 and 6"


def test_instances_of_a_filled_slice_are_its_components(config):
    two = mask(0.7, LEFT, 1)
    two.mask[RIGHT] = True
    stack = [row(n, two) for n in range(4)], [row(4)], [row(n, two) for n in range(5, 9)]
    rows = choose_labels(table(*(item for part in stack for item in part)), config)
    assert chosen(rows)[4] == []
    (cell,) = rows.to_pylist()[4]["masks"]
    assert [(item["candidate_id"], item["area"]) for item in cell["instances"]] == [
        *((None, 320), (None, 320)),
    ]
    assert cell["instances"][0]["confidence"] == pytest.approx(0.7)


def test_slices_with_many_missing_between_them_are_chosen_separately(config):
    """Files of a series that are named 1, 10, 100 lie in a shard without those between."""
    doubtful = row(40, mask(0.6, RIGHT, 9))
    near = choose_labels(table(*(row(n, good()) for n in (38, 39)), doubtful, row(41)), config)
    far = choose_labels(table(*(row(n, good()) for n in (1, 2)), doubtful, row(80)), config)
    assert chosen(near)[40] is None
    assert chosen(far)[40] == [9]


def test_pages_of_another_size_do_not_compare(config):
    """A TIFF may hold a small copy of its pages."""
    pages = [row(n, good(n)) for n in range(4)]
    small = np.zeros((20, 20), bool)
    small[5:15, 1:9] = True
    thumbnail = row(2, replace(good(9), mask=small)) | {"height": 20, "width": 20}
    rows = choose_labels(table(*pages[:2], thumbnail, pages[3]), config)
    assert chosen(rows) == {0: [0], 1: [1], 2: [9], 3: [3]}


@pytest.mark.parametrize(("last", "filled"), [(3, True), (4, False)])
def test_length_of_gap_follows_slice_numbers(config, last, filled):
    rows = choose_labels(table(row(0, good()), row(2), row(last, good())), config)
    assert (chosen(rows)[2] is not None) == filled


def test_blank_slices_are_not_filled_and_error_rows_stay(config):
    blank, error = row(1, status="empty", reason=BLANK), row(2, status="error")
    error |= {"error": {"stage": "decode", "type": "E", "message": "m"}, "masks": []}
    around = [row(n, good()) for n in (-2, -1, 0, 3, 4, 5)]
    rows = choose_labels(table(*around, blank, error), config).to_pylist()
    assert [item["status"] for item in rows] == [*["ok"] * 6, "empty", "error"]


def test_volumes_and_single_images_have_no_influence_on_each_other(config):
    doubtful = mask(0.6, RIGHT, 3)
    other = row(1, doubtful, volume="w")
    single = {**row(1, doubtful), "volume": None, "slice": None}
    rows = choose_labels(table(row(0, good()), other, single, row(2, good())), config)
    assert [r["masks"][0]["candidate_ids"] for r in rows.to_pylist()] == [[1], [3], [3], [1]]


def test_rows_without_alternatives_are_those_of_refine(config):
    rows = table(row(0, good())).drop_columns(["_alternatives"])
    assert choose_labels(rows, config) is rows


def test_a_retry_labels_the_slices_that_a_failed_one_is_chosen_with(config):
    manifest = pa.table(
        {
            "image_id": ["a", "b", "c", "d", "e"],
            "shard": pa.array([0, 0, 1, 1, 1], pa.int32()),
            "volume": ["v", "v", "v", None, None],
        }
    )
    failed = pa.array(["a", "d"])
    assert _rows_to_label(manifest, failed, config)["image_id"].to_pylist() == ["a", "b", "d"]
    alone = config.without_volumes()
    assert _rows_to_label(manifest, failed, alone)["image_id"].to_pylist() == ["a", "d"]
