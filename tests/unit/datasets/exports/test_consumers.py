"""Each export is read by the tool it is for, which must get the masks that were labelled."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil

import cv2
import numpy as np
import pytest
import yaml

from salip_ray.datasets.exports import coco, decathlon, hf, nnunet, webdataset, yolo
from salip_ray.datasets.exports.cases import Split
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Decision
from salip_ray.errors import ConfigError
from salip_ray.output.cells import pack_instance
from salip_ray.output.masks import decode_rle, encode_png, encode_rle
from salip_ray.schema import Instance
from tests.unit.datasets.conftest import save_decisions, write_output

HALVES = Split(val=0.34, seed=1, group_by="folder")


@pytest.fixture
def labels(output):
    return PseudoLabels(str(output))


@pytest.fixture
def two_lungs(labels, monkeypatch):
    """Labels of one image with a class of two objects, which may touch or overlap."""
    entry, masks = labels.entries[1], labels.masks
    cell = masks(entry)[0]
    one, other = (decode_rle(item["rle"]) for item in masks(entry))
    instances = [Instance(one), Instance(other, confidence=0.75)]
    both = {
        **cell,
        "rle": encode_rle(one | other),
        "instances": [pack_instance(item) for item in instances],
    }
    monkeypatch.setattr(labels, "masks", lambda shown: [both] if shown is entry else [])
    return labels, one, other


def expected(labels):
    return {e.image_id: labels.label_map(e) for e in labels.entries}


def test_pycocotools_loads_and_evaluates(labels, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert coco.export(labels, str(tmp_path / "coco")) == 6
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
        # Copies, because loadRes renumbers its argument.
        results = truth.loadRes(copy.deepcopy(list(truth.anns.values())))
        evaluation = COCOeval(truth, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    assert {c["name"]: c["id"] for c in truth.dataset["categories"]} == labels.class_ids
    for image_id, image in truth.imgs.items():
        merged = sum(truth.annToMask(a) * a["category_id"] for a in truth.imgToAnns[image_id])
        np.testing.assert_array_equal(merged, expected(labels)[image["salip_image_id"]])
        assert (tmp_path / "images" / image["file_name"]).is_file()
    scores = sorted(a["score"] for a in truth.anns.values())
    assert scores[0] == pytest.approx(0.3)


def test_two_lungs_are_two_annotations(two_lungs, tmp_path):
    """And pycocotools evaluates them: a lost one costs half of the recall."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels, one, other = two_lungs
    coco.export(labels, str(tmp_path / "coco"))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco/annotations/instances_train.json"))
        annotations = list(truth.anns.values())
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(annotations[:1])), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert [item["category_id"] for item in annotations] == [1, 1]
    assert [item["area"] for item in annotations] == [one.sum(), other.sum()]
    assert [item["score"] for item in annotations] == [0.3, 0.75]  # of the class if it has no own
    np.testing.assert_array_equal(truth.annToMask(annotations[1]) > 0, other)
    assert evaluation.stats[8] == pytest.approx(0.5)


def test_components_are_annotations_if_the_output_stores_no_objects(two_lungs, tmp_path):
    labels, one, other = two_lungs
    cells = labels.masks(labels.entries[1])
    del cells[0]["instances"]  # schema 2
    for name, options, areas in (
        ("whole", {}, [(one | other).sum()]),
        ("components", {"components": True}, [one.sum(), other.sum()]),
    ):
        coco.export(labels, str(tmp_path / name), **options)
        file = tmp_path / name / "annotations/instances_train.json"
        written = json.loads(file.read_bytes())["annotations"]
        assert [item["area"] for item in written] == areas


def test_yolo_has_a_line_for_each_of_two_objects_that_touch(two_lungs, tmp_path):
    labels, one, other = two_lungs
    yolo.export(labels, str(tmp_path / "yolo"), val_on_train=True)
    lines = [
        line
        for file in (tmp_path / "yolo/labels").rglob("*.txt")
        for line in file.read_text().splitlines()
    ]
    assert [line.partition(" ")[0] for line in lines] == ["0", "0"]
    for line, mask in zip(lines, (one, other), strict=True):
        outline = [float(value) for value in line.split()[1:]]
        drawn = rasterised([outline], mask.shape, np.floor)
        np.testing.assert_array_equal(drawn, mask)


def test_datumaro_reads_coco(labels, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="pip install datumaro")
    coco.export(labels, str(tmp_path / "coco"))
    shutil.copytree(tmp_path / "images", tmp_path / "coco/images")  # which datumaro insists on
    dataset = datumaro.Dataset.import_from(str(tmp_path / "coco"), "coco_instances")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    by_stem = {e.uri.rpartition("/")[2].removesuffix(".png"): e for e in labels.entries}
    items = list(dataset)
    assert len(items) == 6
    for item in items:
        label_map = labels.label_map(by_stem[item.id.rpartition("/")[2]])
        drawn = np.zeros_like(label_map)
        masks = [a for a in item.annotations if a.type == datumaro.AnnotationType.mask]
        for mask in masks:
            drawn[mask.image.astype(bool)] = labels.class_ids[names[mask.label]]
        np.testing.assert_array_equal(drawn, label_map)


def test_webdataset_reads_every_shard(labels, tmp_path):
    import webdataset as wds

    webdataset.export(labels, str(tmp_path / "wds"), shard_size=4, split=HALVES)
    image_ids = []
    for part in ("train", "val"):
        shards = sorted(str(path) for path in tmp_path.glob(f"wds/{part}-*.tar"))
        for item in wds.WebDataset(shards, shardshuffle=False).decode("pil"):
            mask = np.asarray(item["mask.png"])[..., 0]  # pil gives RGB, ids in each channel
            np.testing.assert_array_equal(mask, expected(labels)[item["json"]["image_id"]])
            assert np.asarray(item["png"]).shape == (*mask.shape, 3)
            image_ids.append(item["json"]["image_id"])
    assert sorted(image_ids) == sorted(expected(labels))


def test_load_dataset_reads_the_folder(labels, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    hf.export(labels, str(tmp_path / "hf"), shard_size=3, split=HALVES)
    read = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in read.items()} == {"train": 4, "validation": 2}
    for part in read.values():
        for item in part:
            mask = np.asarray(item["label"])
            np.testing.assert_array_equal(mask, expected(labels)[item["image_id"]])
            assert item["image"].size == mask.shape[::-1]
    assert min(min(part["confidence"]) for part in read.values()) == pytest.approx(0.3)


def test_monai_loads_the_decathlon_list(labels, tmp_path):
    from monai.data import load_decathlon_datalist

    decathlon.export(labels, str(tmp_path / "dec"), split=HALVES)
    list_file = str(tmp_path / "dec/dataset.json")
    items = [
        item
        for section in ("training", "validation")
        for item in load_decathlon_datalist(list_file, True, section)
    ]
    assert len(items) == 6
    maps = [cv2.imread(item["label"], cv2.IMREAD_UNCHANGED) for item in items]
    assert all(
        cv2.imread(item["image"]).shape[:2] == m.shape for item, m in zip(items, maps, strict=True)
    )
    wanted = sorted(m.tobytes() for m in expected(labels).values())
    assert sorted(m.tobytes() for m in maps) == wanted


def test_yolo_polygons_give_the_masks_back(labels, tmp_path):
    yolo.export(labels, str(tmp_path / "yolo"), split=HALVES)
    described = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert described["names"] == {0: "lung", 1: "heart"}
    assert "path" not in described  # readers take that from where they run, not from the file
    by_name = {f"-{e.image_id[:16]}": labels.label_map(e) for e in labels.entries}
    files = sorted(tmp_path.glob("yolo/labels/*/*.txt"))
    assert len(files) == 6
    for file in files:
        wanted = by_name[file.stem[-17:]]
        drawn = np.zeros_like(wanted)
        for line in file.read_text().splitlines():
            number, *values = line.split()
            corners = np.array(values, float).reshape(-1, 2) * wanted.shape[::-1]
            cv2.fillPoly(drawn, [np.rint(corners).astype(np.int32)], int(number) + 1)
        assert (drawn != wanted).mean() < 0.01
        image = tmp_path / "yolo" / "images" / file.parent.name / f"{file.stem}.png"
        assert cv2.imread(str(image)).shape[:2] == wanted.shape


def rasterised(outlines, shape, whole):
    """Polygons as readers draw them, which make corners ``whole`` numbers of pixels."""
    drawn = np.zeros(shape, np.uint8)
    for outline in outlines:
        corners = np.array([f"{value:.6g}" for value in outline], float).reshape(-1, 2)
        cv2.fillPoly(drawn, [whole(corners * shape[::-1]).astype(np.int32)], 1)
    return drawn.astype(np.bool_)


@pytest.mark.parametrize("shape", [(100, 90), (1023, 1537)])
@pytest.mark.parametrize("whole", [np.floor, np.rint])
def test_polygon_of_a_square_gives_the_square_back(shape, whole):
    square = np.zeros(shape, np.bool_)
    square[10:20, 30:40] = True
    np.testing.assert_array_equal(rasterised(yolo.outlines(square), shape, whole), square)


@pytest.mark.parametrize(
    "where",
    [
        np.s_[50:51, 10:80],
        np.s_[10:80, 89:90],
        np.s_[10:12, 10:12],
        np.s_[10:12, 10:15],
        np.s_[99:, 89:],
        np.eye(100, 90, dtype=np.bool_),
    ],
    ids=["row", "column", "2x2", "2x5", "point", "diagonal"],
)
def test_a_thin_mask_has_a_polygon(where):
    thin = np.zeros((100, 90), np.bool_)
    thin[where] = True
    (outline,) = yolo.outlines(thin)
    assert 0 <= min(outline) < max(outline) <= 1
    assert cv2.contourArea(np.float32(outline).reshape(-1, 1, 2)) > 0
    np.testing.assert_array_equal(rasterised([outline], thin.shape, np.floor), thin)


def test_nnunet_layout(labels, tmp_path):
    nnunet.export(labels, str(tmp_path / "raw"), number=7, name="Thorax", split=HALVES)
    folder = tmp_path / "raw/Dataset007_Thorax"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "lung": 1, "heart": 2}
    assert described["numTraining"] == len(list(folder.glob("labelsTr/*.png"))) == 6
    (split,) = json.loads((folder / "splits_final.json").read_text())
    cases = {path.name.removesuffix("_0000.png") for path in folder.glob("imagesTr/*")}
    assert set(split["train"]) | set(split["val"]) == cases


def test_nnunet_numbers_classes_without_gaps_and_has_its_own_ignore(output, tmp_path):
    labels = PseudoLabels(str(output), classes=["heart"], ignore_disagreement=True)
    nnunet.export(labels, str(tmp_path / "raw"))
    folder = tmp_path / "raw/Dataset500_thorax"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "heart": 1, "ignore": 2}
    values = {v for p in folder.glob("labelsTr/*") for v in np.unique(cv2.imread(str(p), -1))}
    assert values == {0, 1, 2}


def test_ignore_label_of_a_reviewer_is_declared(output, labels, tmp_path):
    entry = labels.entries[0]
    drawn = labels.label_map(entry)
    drawn[:3] = 255
    decision = Decision("corrected", values=tuple(np.unique(drawn).tolist()))
    save_decisions(output, {entry.image_id: decision}, {entry.image_id: encode_png(drawn)})
    nnunet.export(PseudoLabels(str(output)), str(tmp_path / "raw"))
    folder = tmp_path / "raw/Dataset500_thorax"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "lung": 1, "heart": 2, "ignore": 3}
    values = {v for p in folder.glob("labelsTr/*") for v in np.unique(cv2.imread(str(p), -1))}
    assert values == {0, 1, 2, 3}
    decathlon.export(PseudoLabels(str(output)), str(tmp_path / "dec"))
    described = json.loads((tmp_path / "dec/dataset.json").read_text())
    assert described["labels"]["255"] == "ignore"


def test_nnunet_checks_its_integrity(labels, tmp_path):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    nnunet.export(labels, str(tmp_path / "raw"), number=7)
    verify.verify_dataset_integrity(str(tmp_path / "raw/Dataset007_thorax"), num_processes=1)
    nnunet.export(labels, str(tmp_path / "rgb"), number=8, rgb=True)
    verify.verify_dataset_integrity(str(tmp_path / "rgb/Dataset008_thorax"), num_processes=1)


@pytest.fixture
def with_negative(output):
    """Labels of six images and one without a label."""
    return PseudoLabels(str(output), negatives=True)


def test_negatives_are_in_every_export(with_negative, tmp_path):
    assert coco.export(with_negative, str(tmp_path / "coco")) == 7
    data = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    annotated = {item["image_id"] for item in data["annotations"]}
    assert {image["id"] for image in data["images"]} - annotated == {7}
    assert nnunet.export(with_negative, str(tmp_path / "raw")) == 7
    maps = [cv2.imread(str(p), -1) for p in tmp_path.glob("raw/*/labelsTr/*.png")]
    assert sum(not label_map.any() for label_map in maps) == 1
    assert yolo.export(with_negative, str(tmp_path / "yolo"), val_on_train=True) == 7
    assert [p.read_text() for p in tmp_path.glob("yolo/labels/train/blank-*.txt")] == [""]


def test_unknown_confidence_is_valid_json(with_negative, tmp_path):
    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    decathlon.export(with_negative, str(tmp_path / "dec"))
    text = (tmp_path / "dec/dataset.json").read_text()
    items = json.loads(text, parse_constant=no_constant)["training"]
    assert [item["confidence"] for item in items if "blank" in item["image"]] == [None]
    hf.export(with_negative, str(tmp_path / "hf"))
    webdataset.export(with_negative, str(tmp_path / "wds"))
    assert webdataset.export(with_negative, str(tmp_path / "wds")) == 7


def test_yolo_without_validation_images_is_refused(labels, tmp_path):
    with pytest.raises(ConfigError, match=r"give --val 0\.2 .* or --val-on-train"):
        yolo.export(labels, str(tmp_path / "yolo"))
    assert not (tmp_path / "yolo").exists()
    yolo.export(labels, str(tmp_path / "yolo"), val_on_train=True)
    described = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert described["val"] == described["train"] == "images/train"


@pytest.fixture
def reserved(tmp_path):
    """Labels of a task whose names are reserved, or are no file names."""
    return PseudoLabels(str(write_output(tmp_path, names=("Background", "ignore"), task="a/b c")))


def test_reserved_class_names_are_renamed(reserved, tmp_path):
    nnunet.export(reserved, str(tmp_path / "raw"))
    (folder,) = (tmp_path / "raw").iterdir()
    assert folder.name == "Dataset500_a-b-c"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "Background_class": 1, "ignore_class": 2}
    decathlon.export(reserved, str(tmp_path / "dec"))
    described = json.loads((tmp_path / "dec/dataset.json").read_text())
    assert described["labels"]["0"] == "background"
    assert described["labels"]["1"] == "Background_class"


def test_a_dataset_name_with_a_slash_is_refused(labels, tmp_path):
    with pytest.raises(ConfigError, match="letters, digits, _ and - only, found 'a/b'"):
        nnunet.export(labels, str(tmp_path / "raw"), name="a/b")
