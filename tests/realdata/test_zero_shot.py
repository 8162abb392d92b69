"""The bundled models on real images that nothing here was trained or tuned on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.realdata import SETS, limited, real_data
from salip_ray import Cascade, load_config
from salip_ray.cascade.reference import class_references
from salip_ray.evaluation.metrics import dice
from salip_ray.rows import Picture
from salip_ray.sources.decode import decode
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
            references.load(references.find(Picture(uri))), config.task.classes
        ).values()
        found = [item.mask for item in cascade(image).masks]
        mask = np.logical_or.reduce(found) if found else np.zeros_like(truth)
        dices.append(dice(mask, truth))
    assert len(dices) == 4
    # The floor the project set itself for the mean of each set; make realdata measures all of it.
    assert np.mean(dices) >= 0.5
