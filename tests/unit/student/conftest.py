"""An output to learn from, made without a model."""

from __future__ import annotations

import pytest

from salip_ray.datasets.pseudo_labels import PseudoLabels
from tests.unit.datasets.conftest import write_output


@pytest.fixture
def labels(tmp_path) -> PseudoLabels:
    return PseudoLabels(str(write_output(tmp_path)), ignore_disagreement=True)
