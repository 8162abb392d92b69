"""The table of a reproduction and the figures behind it."""

from __future__ import annotations

import csv
import io
import math

from salip_ray.reproduction.scoring import Figure
from salip_ray.reproduction.table import figures_csv, markdown

METHODS = {
    "cascade": 0.9,
    "gt_sam": 0.95,
    "unprompted_confident": 0.5,
    "unprompted_largest": 0.6,
}


def figures():
    return [
        Figure(run, scoring, method, f"/in/{number}.png", None, dice - offset + number / 100)
        for offset, run in ((0, "faithful"), (0.1, "ours"))
        for scoring in ("published", "ours")
        for method, dice in METHODS.items()
        for number in (-1, 1)
    ]


def test_the_table_has_paper_faithful_and_ours_by_both_scorings():
    lines = markdown("SaLIP on lungs", 50.11, figures(), ["a note"]).splitlines()
    assert lines[2] == "| Dice | paper | faithful | ours |"
    table = "\n".join(lines)
    assert (
        "| SaLIP, published scoring | | 0.900 (0.890 to 0.910), n 2 | "
        "0.800 (0.790 to 0.810), n 2 |" in table
    )
    # The better of the two un-prompted variants counts.
    assert "| un-prompted SAM, our scoring | | 0.600 (0.590 to 0.610), n 2 |" in table
    assert "| gain in points, published scoring | +50.11 | +30.00 | +30.00 |" in table
    assert lines[-1] == "- a note"


def test_every_figure_is_in_the_csv_and_an_undefined_one_is_empty():
    undefined = Figure("ours", "published", "cascade", "/in/a,b.nii", 3, math.nan)
    rows = list(csv.DictReader(io.StringIO(figures_csv([*figures(), undefined]))))
    assert len(rows) == len(figures()) + 1
    assert rows[0]["dice"] == "0.890000"
    assert rows[-1] == {
        "run": "ours",
        "scoring": "published",
        "method": "cascade",
        "uri": "/in/a,b.nii",
        "slice": "3",
        "dice": "",
    }
