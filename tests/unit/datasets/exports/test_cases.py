"""Names of exported files."""

from __future__ import annotations

import dataclasses

from salip_ray.datasets.exports import webdataset
from salip_ray.datasets.exports.cases import case_name
from salip_ray.datasets.pseudo_labels import PseudoLabels


def test_images_whose_ids_begin_alike_have_different_names(output):
    entry = PseudoLabels(str(output)).entries[0]
    ids = ("6d1f00aa" + digit * 24 for digit in "01")
    names = {case_name(dataclasses.replace(entry, image_id=one)) for one in ids}
    assert len(names) == 2


def test_a_slice_with_a_long_name_fits_into_a_tar(output, tmp_path):
    labels = PseudoLabels(str(output)).subset([0])
    path = tmp_path / "images" / f"{'long' * 40}.png"
    path.write_bytes((tmp_path / "images/patient0/view0.png").read_bytes())
    (entry,) = labels.entries
    picture = dataclasses.replace(entry.picture, uri=str(path))
    labels.entries = [dataclasses.replace(entry, uri=str(path), picture=picture, slice=12)]
    assert webdataset.export(labels, str(tmp_path / "tar")) == 1
