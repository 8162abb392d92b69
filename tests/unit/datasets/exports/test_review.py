"""A review queue has the least certain labels first, and its decisions come back."""

from __future__ import annotations

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from salip_ray.datasets.exports import coco, palette, review
from salip_ray.datasets.exports.review_import import import_review
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews
from salip_ray.errors import InputError, OutputError
from salip_ray.output.reader import LabelOutput


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
    confidences = [float(line["confidence"]) for line in lines(queue)]
    assert confidences == sorted(confidences)
    assert confidences[0] == pytest.approx(0.3)
    for line in lines(queue):
        for folder in ("images", "masks", "overlays"):
            assert (queue / folder / f"{line['name']}.png").is_file()
    review.export(PseudoLabels(str(output)), str(tmp_path / "short"), limit=2)
    assert len(lines(tmp_path / "short")) == 2


def test_imported_decisions_apply(queue, output):
    worst, second, *_ = lines(queue)
    mask = paint(queue, worst["name"], 2)
    decide(queue, r2="reject", r3="Accept")
    imported = import_review(queue, str(output))
    assert (imported.corrected, imported.accepted) == (1, 1)
    assert (imported.rejected, imported.undecided) == (1, 3)

    labels = PseudoLabels(str(output), min_confidence=0.6)
    by_id = {entry.image_id: entry for entry in labels.entries}
    assert second["image_id"] not in by_id
    corrected = by_id[worst["image_id"]]
    assert corrected.confidence == 1.0
    np.testing.assert_array_equal(labels.label_map(corrected), mask)
    assert {cell["label"] for cell in labels.masks(corrected)} == {"lung", "heart"}


def test_decided_images_are_not_queued_again(queue, output, tmp_path):
    decide(queue, r1="accept")
    import_review(queue, str(output))
    review.export(PseudoLabels(str(output)), str(tmp_path / "next"))
    assert len(lines(tmp_path / "next")) == 5


def test_untouched_queue_decides_nothing(queue, output):
    imported = import_review(queue, str(output))
    assert (imported.undecided, imported.corrected) == (6, 0)


def test_resumed_review_keeps_the_edited_queue(queue, output):
    decide(queue, r1="accept")
    review.export(PseudoLabels(str(output)), str(queue))
    assert lines(queue)[0]["decision"] == "accept"


def test_next_queue_needs_a_new_location(output, tmp_path):
    folder = tmp_path / "next"
    review.export(PseudoLabels(str(output)), str(folder), limit=2)
    decide(folder, r1="accept", r2="accept")
    import_review(folder, str(output))
    with pytest.raises(OutputError, match="give another output"):
        review.export(PseudoLabels(str(output)), str(folder), limit=2)
    assert len(list((folder / "masks").iterdir())) == 2


def test_a_queue_that_a_spreadsheet_saved_is_read(queue, output):
    decide(queue, r1="accept")
    file = queue / "queue.csv"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert import_review(queue, str(output)).accepted == 1


def paint(queue, name, value, where=np.s_[:3, :3]):
    """Paint class ids over a mask of the queue; returns the new mask."""
    file = queue / "masks" / f"{name}.png"
    with Pil.open(file) as picture:
        palette, mask = picture.getpalette(), np.array(picture)
    mask[where] = value
    painted = Pil.fromarray(mask, "L")
    painted.putpalette(palette)
    painted.save(file)
    return mask


@pytest.fixture
def lungs_only(output, tmp_path):
    review.export(PseudoLabels(str(output), classes=["lung"]), str(tmp_path / "lungs"))
    return tmp_path / "lungs"


def test_review_of_one_class_leaves_the_others_unchanged(lungs_only, output, scene):
    first, second, third, *_ = (line["image_id"] for line in lines(lungs_only))
    drawn = paint(lungs_only, lines(lungs_only)[0]["name"], 1)  # view1
    decide(lungs_only, r2="reject", r3="accept")
    import_review(lungs_only, str(output))

    labels = PseudoLabels(str(output))
    by_id = {entry.image_id: entry for entry in labels.entries}
    _, _, heart = scene(1)
    np.testing.assert_array_equal(labels.label_map(by_id[first]), drawn + 2 * heart)
    assert {cell["label"] for cell in labels.masks(by_id[first])} == {"lung", "heart"}
    assert by_id[first].confidences == pytest.approx({"lung": 1.0, "heart": 0.99})
    assert set(np.unique(labels.label_map(by_id[second]))) == {0, 2}
    assert by_id[second].confidences == pytest.approx({"heart": 0.99})
    assert by_id[third].confidences == pytest.approx({"lung": 1.0, "heart": 0.99})

    hearts = PseudoLabels(str(output), classes=["heart"])
    assert len(hearts) == 5
    assert all(entry.confidence < 1 for entry in hearts.entries)


def test_review_of_one_class_refuses_other_class_ids(lungs_only, output):
    paint(lungs_only, lines(lungs_only)[0]["name"], 2)
    with pytest.raises(InputError, match="has the value 2, but the class ids are 0, 1, 255"):
        import_review(lungs_only, str(output))


def test_a_review_without_its_record_is_refused(queue, output):
    (queue / "export.json").unlink()
    with pytest.raises(InputError, match=r"holds no export\.json of a review"):
        import_review(queue, str(output))


def test_accepting_all_classes_keeps_an_earlier_correction(lungs_only, output, tmp_path):
    paint(lungs_only, lines(lungs_only)[0]["name"], 1)
    import_review(lungs_only, str(output))
    review.export(PseudoLabels(str(output)), str(tmp_path / "all"))
    image_id = lines(lungs_only)[0]["image_id"]
    (row,) = (line for line in lines(tmp_path / "all") if line["image_id"] == image_id)
    decide(tmp_path / "all", **{f"r{row['rank']}": "accept"})
    assert import_review(tmp_path / "all", str(output)).accepted == 1
    labels = PseudoLabels(str(output))
    (entry,) = (entry for entry in labels.entries if entry.image_id == image_id)
    assert entry.confidence == 1.0
    assert (labels.label_map(entry)[:3, :3] == 1).all()


def test_class_added_by_a_reviewer_counts(queue, output, tmp_path):
    (line,) = (line for line in lines(queue) if line["uri"].endswith("view0.png"))  # of lungs alone
    paint(queue, line["name"], 2)
    import_review(queue, str(output))
    hearts = PseudoLabels(str(output), classes=["heart"])
    (entry,) = (entry for entry in hearts.entries if entry.image_id == line["image_id"])
    assert entry.confidences == {"heart": 1.0}
    coco.export(PseudoLabels(str(output)), str(tmp_path / "coco"))
    data = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    (number,) = (i["id"] for i in data["images"] if i["salip_image_id"] == line["image_id"])
    scores = {a["category_id"]: a["score"] for a in data["annotations"] if a["image_id"] == number}
    assert scores == {1: 1.0, 2: 1.0}


def test_class_erased_by_a_reviewer_is_background(queue, output):
    worst, second, *_ = lines(queue)
    mask = paint(queue, worst["name"], 0, np.s_[:, :30])
    assert 1 not in mask
    paint(queue, second["name"], 0, np.s_[:])
    import_review(queue, str(output))
    labels = PseudoLabels(str(output), min_confidence=0.6)
    by_id = {entry.image_id: entry for entry in labels.entries}
    assert by_id[worst["image_id"]].confidences == {"heart": 1.0}
    assert by_id[second["image_id"]].confidence == 1.0
    assert not labels.label_map(by_id[second["image_id"]]).any()
    lungs = PseudoLabels(str(output), classes=["lung"])
    assert not lungs.label_map(by_id[worst["image_id"]]).any()


def test_decisions_without_classes_cover_all_classes(output, tmp_path):
    first, second, third, *_ = (entry.image_id for entry in PseudoLabels(str(output)).entries)
    (output / "reviews/masks").mkdir(parents=True)
    cv2.imwrite(str(output / f"reviews/masks/{third}.png"), np.full((44, 56), 2, np.uint8))
    verdicts = {first: "accepted", second: "rejected", third: "corrected"}
    decisions = {image_id: {"verdict": verdict} for image_id, verdict in verdicts.items()}
    (output / "reviews/decisions.json").write_text(json.dumps({"decisions": decisions}))
    labels = PseudoLabels(str(output))
    by_id = {entry.image_id: entry for entry in labels.entries}
    assert by_id[first].confidences == {"lung": 1.0}
    assert second not in by_id
    assert by_id[third].confidences == {"heart": 1.0}
    assert (labels.label_map(by_id[third]) == 2).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda q, f: decide(q, r1="maybe"), "'maybe', but must be accept, reject or empty"),
        (lambda q, f: f.unlink(), "is missing: restore it, or write reject"),
        (lambda q, f: cv2.imwrite(str(f), np.zeros((9, 9), np.uint8)), "is 9 x 9"),
        (lambda q, f: cv2.imwrite(str(f), np.full((42, 56), 7, np.uint8)), "has the value 7"),
        (lambda q, f: (q / "queue.csv").unlink(), "it is not a review"),
        (lambda q, f: shutil.rmtree(q), "does not exist"),
        (lambda q, f: f.write_bytes(b"GIF89a"), "is not a PNG file"),
    ],
)
def test_invalid_review_is_named_and_nothing_is_imported(queue, output, spoil, message):
    spoil(queue, queue / "masks" / f"{lines(queue)[0]['name']}.png")
    with pytest.raises(InputError) as caught:
        import_review(queue, str(output))
    assert message in str(caught.value)
    assert not (output / "reviews").exists()


def mask_file(queue, number=0):
    return queue / "masks" / f"{lines(queue)[number]['name']}.png"


def test_masks_show_colours_and_hold_class_ids(queue):
    with Pil.open(mask_file(queue)) as picture:
        assert picture.mode == "P"
        assert set(np.unique(picture)) == {0, 1, 2}
        colours = {tuple(colour) for colour in np.array(picture.convert("RGB")).reshape(-1, 3)}
    assert len(colours) == 3
    assert all(max(colour) > 150 for colour in colours - {(0, 0, 0)})


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "reordered", "P"])
def test_masks_saved_in_another_way_are_read(queue, output, mode):
    file = mask_file(queue)
    with Pil.open(file) as picture:
        ids = np.array(picture)
        ids[:3, :3] = 2
        palette = np.array(picture.getpalette()).reshape(-1, 3)
    if mode == "L":
        saved = Pil.fromarray(ids, "L")
    elif mode in {"RGB", "RGBA"}:
        saved = Pil.fromarray(palette[ids].astype(np.uint8), "RGB").convert(mode)
    else:  # "P": another palette, of which only the indices tell
        order = np.array([2, 0, 1]) if mode == "reordered" else np.arange(3)
        saved = Pil.fromarray(order[ids].astype(np.uint8), "L")
        table = np.empty((3, 3), int)
        table[order] = palette[:3] if mode == "reordered" else [[0, 0, 0], [9, 9, 9], [7, 7, 9]]
        saved.putpalette(table.ravel().tolist())
    saved.save(file)
    assert import_review(queue, str(output)).corrected == 1
    labels = PseudoLabels(str(output))
    (entry,) = (e for e in labels.entries if e.image_id == lines(queue)[0]["image_id"])
    np.testing.assert_array_equal(labels.label_map(entry), ids)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_mask_saved_as_0_and_255_is_refused_by_name(queue, output, mode):
    file = mask_file(queue)
    with Pil.open(file) as picture:
        organs = np.where(np.array(picture) > 0, 255, 0).astype(np.uint8)
    Pil.fromarray(organs, "L").convert(mode).save(file)
    with pytest.raises(InputError) as caught:
        import_review(queue, str(output))
    assert str(file) in str(caught.value)
    assert "class 1 (lung) is gone and the value 255 took its place" in str(caught.value)
    assert "write reject into queue.csv" in str(caught.value)
    assert not (output / "reviews").exists()


def test_pixels_to_ignore_next_to_all_classes_are_accepted(queue, output):
    paint(queue, lines(queue)[0]["name"], 255)
    assert import_review(queue, str(output)).corrected == 1


def test_a_colour_of_no_class_is_refused(queue, output):
    file = mask_file(queue)
    with Pil.open(file) as picture:
        blurred = (
            picture.convert("RGB").resize((28, 21)).resize(picture.size, Pil.Resampling.BICUBIC)
        )
    blurred.save(file)
    with pytest.raises(InputError, match=r"has the colour #\w{6}, which is that of no class"):
        import_review(queue, str(output))


def test_a_colour_added_to_the_palette_is_no_class(queue, output):
    """The paint tool gives white the next free index, which may be the id of a class."""
    file = mask_file(queue)
    with Pil.open(file) as picture:
        ids, palette = np.array(picture), picture.getpalette()[:3] + picture.getpalette()[6:9]
    ids[ids == 2] = 1
    ids[:3, :3] = 2
    painted = Pil.fromarray(ids, "L")
    painted.putpalette([*palette, 255, 255, 255])
    painted.save(file)
    with pytest.raises(InputError, match="the colour #ffffff, which is that of no class"):
        import_review(queue, str(output))


def test_a_rejected_image_needs_no_mask(queue, output):
    mask_file(queue).unlink()
    decide(queue, r1="reject")
    assert import_review(queue, str(output)).rejected == 1


def test_colours_of_classes_are_distinct():
    assert len(set(palette.colours())) == 256
    assert all(len(set(colour)) > 1 for colour in palette.colours()[1:])


def test_two_imports_at_once_lose_no_decision(lungs_only, output, tmp_path, monkeypatch):
    """The second import is finished between the reading and the writing of the first."""
    other = tmp_path / "other"
    review.export(PseudoLabels(str(output), classes=["heart"]), str(other))
    for folder in (lungs_only, other):
        decide(folder, r1="accept")
    read_bytes = type(lungs_only).read_bytes

    def read_and_import_the_other(path):
        if path.parent.parent == lungs_only:
            monkeypatch.undo()
            import_review(other, str(output))
        return read_bytes(path)

    monkeypatch.setattr(type(lungs_only), "read_bytes", read_and_import_the_other)
    import_review(lungs_only, str(output))
    decisions = Reviews.of(LabelOutput.open(str(output))).decisions
    assert {c for ones in decisions.values() for d in ones for c in d.classes} == {1, 2}
