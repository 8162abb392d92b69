"""A review: worst first, and what people decide comes back."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from salip_ray.errors import InputError
from salip_ray.labels.dataset import PseudoLabels
from salip_ray.labels.exports import review
from salip_ray.labels.exports.review import import_review


@pytest.fixture
def queue(output, tmp_path):
    review.export(PseudoLabels(str(output)), str(tmp_path / "review"))
    return tmp_path / "review"


def lines(queue):
    with (queue / "queue.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def decide(queue, **decisions):
    rows = lines(queue)
    for row in rows:
        row["decision"] = decisions.get(f"r{row['rank']}", "")
    with (queue / "queue.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_least_certain_comes_first(queue, output, tmp_path):
    found = [float(line["confidence"]) for line in lines(queue)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.3)
    for line in lines(queue):
        for folder in ("images", "masks", "overlays"):
            assert (queue / folder / f"{line['name']}.png").is_file()
    review.export(PseudoLabels(str(output)), str(tmp_path / "short"), limit=2)
    assert len(lines(tmp_path / "short")) == 2


def test_decisions_come_back_and_count(queue, output):
    worst, second, *_ = lines(queue)
    mask_file = queue / "masks" / f"{worst['name']}.png"
    mask = cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED)
    mask[:3, :3] = 2
    cv2.imwrite(str(mask_file), mask)
    decide(queue, r2="reject", r3="Accept")
    found = import_review(queue, str(output))
    assert (found.corrected, found.accepted, found.rejected, found.undecided) == (1, 1, 1, 3)

    labels = PseudoLabels(str(output), min_confidence=0.6)
    by_id = {entry.image_id: entry for entry in labels.entries}
    assert second["image_id"] not in by_id
    corrected = by_id[worst["image_id"]]
    assert corrected.confidence == 1.0
    np.testing.assert_array_equal(labels.label_map(corrected), mask)
    assert {cell["label"] for cell in labels.masks(corrected)} == {"lung", "heart"}


def test_what_is_decided_is_not_asked_again(queue, output, tmp_path):
    decide(queue, r1="accept")
    import_review(queue, str(output))
    review.export(PseudoLabels(str(output)), str(tmp_path / "next"))
    assert len(lines(tmp_path / "next")) == 5


def test_nothing_done_is_nothing_decided(queue, output):
    found = import_review(queue, str(output))
    assert (found.undecided, found.corrected) == (6, 0)


def test_a_review_goes_on_without_losing_what_was_written_into_it(queue, output):
    decide(queue, r1="accept")
    review.export(PseudoLabels(str(output)), str(queue))
    assert lines(queue)[0]["decision"] == "accept"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q, f: decide(q, r1="maybe"), "'maybe', but must be accept, reject or empty"),
        (lambda q, f: f.unlink(), "is missing: to throw a label away write reject"),
        (lambda q, f: cv2.imwrite(str(f), np.zeros((9, 9), np.uint8)), "is 9 x 9"),
        (lambda q, f: cv2.imwrite(str(f), np.full((42, 56), 7, np.uint8)), "has the value 7"),
        (lambda q, f: (q / "queue.csv").unlink(), "it is not a review"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_kept(queue, output, spoil, message):
    spoil(queue, queue / "masks" / f"{lines(queue)[0]['name']}.png")
    with pytest.raises(InputError) as caught:
        import_review(queue, str(output))
    assert message in str(caught.value)
    assert not (output / "reviews").exists()
