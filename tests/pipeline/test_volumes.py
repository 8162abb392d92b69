"""Volumes from file to label volume: slices as rows, and back on the grid they came from."""

from __future__ import annotations

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from salip_ray import label
from salip_ray.datasets.exports.nifti import export_nifti
from salip_ray.errors import ResumeError
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.output.masks import decode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.output.verify import verify
from salip_ray.sources.formats.nifti import Grid
from tests.conftest import check_exactly_once, tree
from tests.dicom_series import SECRETS, write_slice

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A volume stored as left, inferior, posterior; a short one as NIfTI-2; a TIFF of two pages."""
    folder = tmp_path_factory.mktemp("volumes")
    made = [make_phantom("chest_xray", i, bank="tune", size=64).image[..., 0] for i in range(5)]
    saved = [np.asarray(Pil.fromarray(grey).resize((64, 64))) for grey in made]
    values = np.stack([*saved, np.zeros((64, 64), np.uint8)], axis=-1).astype(np.int16) * 7
    affine = np.array([[-2.0, 0, 0, 60], [0, 0, -3, 20], [0, -2, 0, 50], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(values, affine)
    image.header["descrip"] = b"Doe^Jane"
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    nibabel.save(image, folder / "first.nii.gz")
    nibabel.save(nibabel.Nifti2Image(values[:, :, :2], np.eye(4)), folder / "second.nii")
    pages = [Pil.fromarray(page) for page in saved[:2]]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    (folder / "broken.nii.gz").write_bytes((folder / "first.nii.gz").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def labelled(volumes, tmp_path_factory, local_ray):
    from salip_ray import load_config
    from tests.conftest import SMALL

    output = tmp_path_factory.mktemp("labelled") / "out"
    config = load_config(
        "lungs", overrides=[*SMALL, "image.axis=coronal", "volumes.consistent=true"]
    )
    label(volumes, output, config, quiet=True)
    return output, config


def test_each_slice_is_a_row(labelled, volumes):
    output, _ = labelled
    check_exactly_once(output, 6 + 64 + 2 + 1)
    rows = pq.read_table(output / "shards").to_pylist()
    first = [row for row in rows if row["uri"].endswith("first.nii.gz")]
    assert [row["slice"] for row in first] == list(range(6))
    assert len({row["volume"] for row in first}) == 1
    assert len({row["image_id"] for row in rows}) == len(rows)
    assert first[0]["spacing"] == [2.0, 2.0]
    # Coronal slices count from the back, and this volume is stored from the front.
    assert first[0]["status"] == "empty"
    assert first[0]["outcomes"][0]["reason"] == "the slice is blank"
    assert {row["status"] for row in first[1:]} <= {"ok", "empty"}
    assert any(row["status"] == "ok" for row in first)
    (broken,) = (row for row in rows if row["uri"].endswith("broken.nii.gz"))
    assert (broken["status"], broken["slice"]) == ("error", None)
    assert "gzip stream ends early" in broken["error"]["message"]
    pages = [row for row in rows if row["uri"].endswith("pages.tif")]
    assert [row["slice"] for row in pages] == [0, 1]


def test_a_label_volume_lies_where_its_image_lies(labelled, volumes, tmp_path):
    labels = LabelOutput.open(str(labelled[0]))
    written, notes = export_nifti(labels, str(tmp_path / "nifti"))
    assert written == 2
    (note,) = notes
    assert note == "pages is left out: its frames have no position"
    source = nibabel.load(volumes / "first.nii.gz")
    saved = nibabel.load(tmp_path / "nifti" / "first.nii.gz")
    assert saved.shape == source.shape
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(saved.affine, source.affine)
    for field in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
        np.testing.assert_array_equal(saved.header[field], source.header[field])
    assert b"Doe" not in saved.header.binaryblock
    values = np.asarray(saved.dataobj)
    assert set(np.unique(values)) == {0, 1}
    grid = Grid(source.shape, source.affine, "coronal")
    for row in labels.rows():
        if row["uri"].endswith("first.nii.gz"):
            wanted = np.zeros((row["height"], row["width"]), bool)
            for mask in row["masks"]:
                wanted |= decode_rle(mask["rle"])
            np.testing.assert_array_equal(grid.plane(values, row["slice"]) > 0, wanted)
            # And by hand: voxels are [to the left, down, to the back].
            np.testing.assert_array_equal(values[:, :, 5 - row["slice"]].T > 0, wanted)
    second = nibabel.load(tmp_path / "nifti" / "second.nii.gz")
    assert isinstance(second, nibabel.Nifti2Image)
    assert second.shape == (64, 64, 2)


def test_nothing_of_a_patient_is_in_an_output(tmp_path, small_config, capfd):
    folder = tmp_path / "Musterfrau_Erika" / "Saint Nowhere Hospital"
    secrets = (*SECRETS, "Musterfrau_Erika", "hidden-name")
    phantom = np.asarray(make_phantom("chest_xray", 0, bank="tune", size=64).image[..., 0])
    for number in range(3):
        pixels = phantom.astype(np.int16) * 4
        write_slice(folder / f"hidden-name-{number}.dcm", pixels, 3.0 * number, number=number)
    cut = (folder / "hidden-name-2.dcm").read_bytes()
    (folder / "hidden-name-2.dcm").write_bytes(cut[:-50])
    given = b"".join(str(p).encode() + p.read_bytes() for p in sorted(folder.iterdir()))
    assert [secret for secret in secrets if secret.encode() not in given] == []
    output, manifest = tmp_path / "out", tmp_path / "elsewhere" / "names.parquet"
    label(folder, output, small_config(), manifest=str(manifest))
    shown = "".join(capfd.readouterr())
    written = shown.encode() + b"".join(_unpacked(path) for path in output.rglob("*"))
    assert b"truncated: the pixels have" in written  # the error row says why, and not whose
    assert [secret for secret in secrets if secret.encode() in written] == []
    assert str(folder) in pq.read_table(manifest)["uri"][0].as_py()
    rows = pq.read_table(output / "shards").to_pylist()
    assert [row["slice"] for row in rows] == [0, 1, 2]
    assert {row["uri"] for row in rows} == {f"id:{row['image_id']}" for row in rows}
    labels = LabelOutput.open(str(output), manifest=str(manifest))
    assert labels.source_uri(rows[0]["uri"]) == str(folder / "hidden-name-0.dcm")
    label(folder, output, small_config(), manifest=str(manifest), quiet=True)
    with pytest.raises(ResumeError, match="manifest stored elsewhere"):
        label(folder, output, small_config(), quiet=True)
    assert not (output / "manifest.parquet").exists()
    assert verify(str(output), manifest=str(manifest)).problems == ()


def _unpacked(path):
    """A file's name and its bytes, Parquet's columns as text."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return str(path.name).encode() + str(table.to_pylist()).encode() + path.read_bytes()
    return str(path.name).encode() + (path.read_bytes() if path.is_file() else b"")


def test_a_volume_over_several_shards_gives_the_same_bytes(labelled, volumes, tmp_path):
    output, config = labelled
    label(volumes, tmp_path / "again", config, quiet=True)
    assert tree(tmp_path / "again") == tree(output)
    (output / "shards" / "part-00001.parquet").unlink()
    label(volumes, output, config, quiet=True)
    assert tree(output) == tree(tmp_path / "again")
