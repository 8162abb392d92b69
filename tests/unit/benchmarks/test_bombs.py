"""Bombs are refused, or unpacked no further than their headers say, in little memory."""

from __future__ import annotations

import pytest

from benchmarks.bombs import BOMBS, measure, table

REFUSED = {"bomb.png", "bomb.jpg", "stream.dcm"}
MOST_MIB = 100


@pytest.mark.slow  # a fresh process for each bomb
def test_no_bomb_takes_much_memory(tmp_path):
    rows = [measure(bomb, tmp_path) for bomb in BOMBS if bomb.name != "largest.png"]
    assert {row.bomb.name for row in rows if row.outcome.startswith("error row: ")} == REFUSED
    assert all(row.mib < MOST_MIB < row.bomb.unpacked / 2**20 for row in rows)
    assert table(rows).count("MiB") == len(rows)
