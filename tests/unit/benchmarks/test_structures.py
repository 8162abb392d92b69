"""The benchmark of structures judges every structure of a phantom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import structures

from salip_ray.models.bundled.phantoms import KINDS, make_phantom

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_structure_of_each_kind_has_a_row(capsys, monkeypatch):
    monkeypatch.setattr(structures, "KINDS", KINDS[1:2])
    structures.main(images=1, bank="tune", weights=None)
    _, _, *lines = capsys.readouterr().out.splitlines()
    split = ([cell.strip() for cell in line.split("|")] for line in lines)
    rows = {cells[2]: cells[4:] for cells in split}
    phantom = make_phantom(KINDS[1], 0, bank="tune")
    assert set(rows) == {structure.name for structure in phantom.structures}
    area, box, candidate, every = rows["brain"][:4]
    assert float(area.rstrip("%")) == pytest.approx(100 * phantom.mask("brain").mean(), abs=0.1)
    assert float(box) > 0.9
    assert float(every) >= float(candidate)
