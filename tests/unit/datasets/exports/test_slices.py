"""Slices of volumes and DICOM files have pictures in every export and in the report."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile

import cv2
import nibabel
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from salip_ray.config import load_config
from salip_ray.datasets.exports import coco, png, review, yolo
from salip_ray.datasets.exports.cases import Split
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import ConfigError, InputError, OutputError
from salip_ray.report.build import make_report
from salip_ray.sources import decode
from tests.dicom_series import write_slice
from tests.handmade import write_labels


@pytest.fixture
def output(tmp_path):
    """Labels of a NIfTI volume of four slices, of a series of three and of a PNG; all 8 x 9."""
    folder = tmp_path / "in"
    for number in range(3):
        grey = np.full((8, 9), 300 * number, np.int16)
        write_slice(folder / "Doe Jane" / f"{number}.dcm", grey, 3.0 * number, number=number)
    values = np.zeros((9, 8, 4), np.int16)
    for index in range(4):
        values[index:, :, index] = 100
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 2.0, 1.0])), folder / "v.nii.gz")
    Pil.fromarray(np.arange(72, dtype=np.uint8).reshape(8, 9)).save(folder / "p.png")

    def masks_of(row):
        mask = np.zeros((8, 9), np.bool_)
        mask[2:6, 3 : 5 + (row["slice"] or 0)] = True
        return {"lungs": mask}

    write_labels(folder, tmp_path / "out", load_config("lungs"), masks_of)
    return tmp_path / "out"


def columns_lit(image):
    """How many columns of a slice of the volume are white."""
    return int((np.asarray(image)[0, :] > 128).sum())


def test_items_are_the_slices_that_were_labelled(output, monkeypatch):
    labels = PseudoLabels(str(output))
    opened = []
    plain = decode.open_stack
    monkeypatch.setattr(
        "salip_ray.datasets.images.open_stack", lambda *a: opened.append(a[1]) or plain(*a)
    )
    samples = list(labels)
    by_file = {}
    for sample in samples:
        by_file.setdefault(sample["uri"], []).append(sample["image"][..., 0])
    (volume,) = (images for uri, images in by_file.items() if uri.endswith("v.nii.gz"))
    assert [columns_lit(picture) for picture in volume] == [9, 8, 7, 6]
    assert len([uri for uri in opened if uri.endswith("v.nii.gz")]) == 1
    series = [image for uri, (image, *_) in by_file.items() if uri.startswith("id:")]
    assert sorted(int(picture[0, 0]) for picture in series) == [0, 77, 153]


def test_coco_writes_images_that_trainers_cannot_open(output, tmp_path):
    dest = tmp_path / "coco"
    assert coco.export(PseudoLabels(str(output)), str(dest)) == 8
    data = json.loads((dest / "annotations" / "instances_train.json").read_text())
    lit = []
    for image in data["images"]:
        picture = cv2.imread(str(dest / image["file_name"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (image["height"], image["width"])
        if image["uri"].endswith("v.nii.gz"):
            lit.append(columns_lit(picture))
    assert lit == [9, 8, 7, 6]
    written = b"".join(str(p).encode() + p.read_bytes() for p in dest.rglob("*") if p.is_file())
    assert b"Doe" not in written
    names = sorted(image["file_name"] for image in data["images"])
    assert sum(bool(re.fullmatch(r"images/v-000[0-3]-\w{16}\.png", name)) for name in names) == 4


def write_squares(images, tmp_path):
    """Labels of images of 8 x 9, each of a corner."""
    mask = np.zeros((8, 9), np.bool_)
    mask[:3, :4] = True
    write_labels(images, tmp_path / "out", load_config("lungs"), lambda row: {"lungs": mask})
    return PseudoLabels(str(tmp_path / "out"))


def coco_images(labels, dest):
    """What a COCO export says of its images."""
    coco.export(labels, str(dest))
    return json.loads((dest / "annotations" / "instances_train.json").read_text())["images"]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_coco_writes_images_that_are_stored_turned(tmp_path, suffix):
    turned = Pil.Exif()
    turned[0x112] = 6  # orientation: to be turned by 90 degrees
    (tmp_path / "in").mkdir()
    Pil.new("L", (8, 9)).save(tmp_path / f"in/a.{suffix}", exif=turned)
    (image,) = coco_images(write_squares(tmp_path / "in", tmp_path), tmp_path / "coco")
    assert (image["height"], image["width"]) == (8, 9)
    with Pil.open(tmp_path / "coco" / image["file_name"]) as picture:
        assert picture.size == (9, 8)


def test_coco_names_upright_images_without_copying_them(tmp_path):
    (tmp_path / "in").mkdir()
    for suffix in ("jpg", "png", "tif", "webp"):
        Pil.new("L", (9, 8)).save(tmp_path / f"in/{suffix}.{suffix}")
    images = coco_images(write_squares(tmp_path / "in", tmp_path), tmp_path / "coco")
    names = {image["file_name"] for image in images}
    assert names == {"jpg.jpg", "png.png", "tif.tif", "webp.webp"}
    assert not (tmp_path / "coco" / "images").exists()


def write_archive(path):
    """An image of 8 x 9 for each of two patients, all of one name."""
    with zipfile.ZipFile(path, "w") as archive:
        for patient in "12":
            buffer = io.BytesIO()
            Pil.new("L", (9, 8), int(patient)).save(buffer, "PNG")
            archive.writestr(f"p{patient}/a.png", buffer.getvalue())
    return path


def test_coco_writes_the_members_of_archives(tmp_path):
    images = coco_images(
        write_squares(write_archive(tmp_path / "in.zip"), tmp_path), tmp_path / "coco"
    )
    for image in images:
        grey = cv2.imread(str(tmp_path / "coco" / image["file_name"]), cv2.IMREAD_UNCHANGED)
        assert (grey == int(image["uri"].removeprefix("zip://p")[0])).all()
    assert len({image["file_name"] for image in images}) == 2


def test_maps_of_the_members_of_an_archive_have_their_folders(tmp_path):
    labels = write_squares(write_archive(tmp_path / "in.zip"), tmp_path)
    assert png.file_names(labels) == ["p1/a.png", "p2/a.png"]


def test_members_of_a_moved_archive_are_read(tmp_path):
    write_squares(write_archive(tmp_path / "in.zip"), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in.zip").rename(tmp_path / "elsewhere" / "in.zip")
    labels = PseudoLabels(str(tmp_path / "out"), images_root=str(tmp_path / "elsewhere"))
    assert [int(sample["image"].max()) for sample in labels] == [1, 2]


def test_a_split_keeps_a_series_together(output, tmp_path):
    labels = PseudoLabels(str(output))
    for seed in range(5):
        parts = Split(val=0.4, seed=seed).parts(labels)
        volumes = [{labels.entries[i].volume for i in indices} for indices in parts.values()]
        assert volumes[0].isdisjoint(volumes[1])
    with_folders = labels.split({"train": 0.5, "val": 0.5}, group_by=r"in/(\w+)")
    assert sum(map(len, with_folders.values())) == 8


def test_every_slice_is_drawn_for_yolo_and_review(output, tmp_path):
    yolo.export(PseudoLabels(str(output)), str(tmp_path / "yolo"), val_on_train=True)
    assert len(list((tmp_path / "yolo" / "images" / "train").iterdir())) == 8
    review.export(PseudoLabels(str(output)), str(tmp_path / "review"))
    with (tmp_path / "review" / "queue.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            picture = cv2.imread(str(tmp_path / "review" / "images" / f"{line['name']}.png"))
            if line["uri"].endswith("v.nii.gz"):
                assert columns_lit(picture[..., 0]) == 9 - int(line["name"].split("-")[2])


def test_report_shows_slices_without_hidden_names(output):
    html = make_report(str(output))
    assert html.count("data:image/webp;base64,") == 8
    assert "v.nii.gz [3]" in html
    assert "Doe" not in html


def test_hidden_names_need_the_manifest(output, tmp_path):
    elsewhere = tmp_path / "elsewhere.parquet"
    (output / "manifest.parquet").rename(elsewhere)
    with pytest.raises(OutputError, match="give the manifest"):
        PseudoLabels(str(output))
    assert len(PseudoLabels(str(output), manifest=str(elsewhere))) == 8
    html = make_report(str(output), manifest=str(elsewhere))
    assert html.count("data:image/webp;base64,") == 8


def test_the_manifest_of_another_run_is_refused(output, tmp_path):
    manifest = pq.read_table(output / "manifest.parquet")
    (output / "manifest.parquet").unlink()
    other = tmp_path / "other.parquet"
    pq.write_table(manifest.filter(pc.invert(pc.match_substring(manifest["uri"], "Doe"))), other)
    with pytest.raises(OutputError, match=r"other\.parquet is the manifest of another run"):
        PseudoLabels(str(output), manifest=str(other))


def test_messages_about_hidden_images_hide_their_names(output, tmp_path):
    labels = PseudoLabels(str(output))
    (folder,) = (tmp_path / "in").glob("Doe*")
    entry = next(e for e in labels.entries if e.uri.startswith("id:"))
    original = (folder / "0.dcm").read_bytes()
    for damage in (lambda f: f.unlink(), lambda f: f.write_bytes(original[:200])):
        for file in folder.glob("*.dcm"):
            damage(file)
        with pytest.raises(InputError) as caught:
            labels.sample(entry)
        assert "Doe" not in str(caught.value)
        assert entry.image_id in str(caught.value)
        for number in range(3):
            (folder / f"{number}.dcm").write_bytes(original)
    with pytest.raises(ConfigError) as caught:
        labels.split({"a": 0.5, "b": 0.5}, group_by="nothing like it")
    assert "Doe" not in str(caught.value)
