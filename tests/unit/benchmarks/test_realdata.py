"""The benchmark on real images labels what it says, with every method."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks import realdata


def test_every_method_labels_the_listed_images(tmp_path, monkeypatch):
    source = tmp_path / "data" / "chest_xray"
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
        cv2.imwrite(str(source / folder / "a.png"), np.zeros((8, 8), np.uint8))
    (source / "index.csv").write_text("image,mask\na.png,masks/a.png\n")
    monkeypatch.setenv("SALIP_REAL_DATA", str(tmp_path / "data"))
    studies = []
    monkeypatch.setattr(realdata, "run_studies", lambda given, *_, **__: studies.extend(given))

    realdata.main(
        tmp_path / "out", None, ["lungs"], None, assignments=["run.rows_per_shard=8"], quiet=True
    )

    (study,) = studies
    assert study.config.run.modes == ("cascade", "unprompted", "gt_sam")
    assert study.config.run.rows_per_shard == 8
    assert study.images.read_text().splitlines()[1].strip('"') == str(source / "images" / "a.png")
