"""The bundled models on real images that nothing here was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.realdata import SETS, limited, real_data
from salip_ray import Cascade, load_config
from salip_ray.cascade.geometry import class_references
from salip_ray.evaluation.overlap import dice
from salip_ray.schema import ImageRef
from salip_ray.sources.decode import decode, open_stack
from salip_ray.sources.fetch import fetch_all
from salip_ray.sources.listing import list_images
from salip_ray.sources.references import References

DATA = real_data()
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no real images at {DATA}: set SALIP_REAL_DATA to their folder"
    ),
]


@pytest.mark.parametrize("task", SETS)
def test_the_cascade_finds_the_organ(task, tmp_path):
    folder, lay_out, _ = SETS[task]
    images, masks = lay_out(DATA / folder, tmp_path)
    references = References.open(str(masks))
    config = load_config(task)
    cascade = Cascade(config, device="cpu")
    dices = []
    for uri in list_images(limited(images, 4)).table["uri"].to_pylist():
        (data,) = fetch_all([uri])
        image = decode(data, uri, config.image)
        (truth,) = class_references(
            references.load(references.find(ImageRef(uri))), config.task.classes
        ).values()
        results = [item.mask for item in cascade(image).masks]
        mask = np.logical_or.reduce(results) if results else np.zeros_like(truth)
        both_empty = not (mask.any() or truth.any())
        dices.append(1.0 if both_empty else dice(mask, truth))
    assert len(dices) == 4
    # The floor the project set itself for the mean of each set; make realdata measures all of it.
    assert np.mean(dices) >= 0.5


def test_slices_of_a_stored_volume_equal_the_scored_images(tmp_path):
    source = DATA / SETS["brain"][0]
    images, _ = SETS["brain"][1](source, tmp_path)
    config = load_config("brain").image
    stack = open_stack((source / "single_subj_T1.nii").read_bytes(), "single_subj_T1.nii", config)
    pictures = sorted(images.iterdir())
    assert len(pictures) == 87  # four slices are blank
    for path in pictures:
        index = int(path.stem.removeprefix("slice-"))
        written = decode(path.read_bytes(), path.name, config)
        np.testing.assert_array_equal(stack.picture(index), written)
