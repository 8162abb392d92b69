"""Memory stays flat: ten times the images take no more of it; actors that leak are replaced.

Minutes long: ``make soak``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.chaos.harness import draw_images
from tests.conftest import ROOT, SMALL, check_exactly_once, tree

pytestmark = pytest.mark.slow

SHORT, LONG = 200, 2000
RECYCLE_AFTER = 100
LARGE_BLOCK = 256  #: of a long job by itself; an actor ends between two, or after the next one
#: Images that an actor gets at once. Short jobs have smaller blocks, and smaller blocks take less:
#: where lengths are compared, the blocks of the short job are those of the long one.
BLOCK = 50
#: What a peak may be off by, for the hour at which Python and Arrow give memory back.
SLACK_MIB = 60


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Many names of few images."""
    drawn = sorted(draw_images(tmp_path_factory.mktemp("drawn"), 40).iterdir())
    folder = tmp_path_factory.mktemp("images")
    for count in (SHORT, LONG):
        (folder / str(count)).mkdir()
        for index in range(count):
            os.link(drawn[index % len(drawn)], folder / str(count) / f"{index:05d}.png")
    return folder


def run(images, output, count, *settings, hook="", block=BLOCK):
    """Run a job in a separate process; return its peak memory."""
    spec = output.with_suffix(".json")
    settings = [*SMALL, "run.rows_per_shard=50", "pools.propose.cpus=0.5", *settings]
    data = {"input": str(images / str(count)), "output": str(output), "hook": hook, "block": block}
    spec.write_text(json.dumps({**data, "settings": settings}))
    command = [sys.executable, "-m", "tests.chaos.soak", str(spec)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    print(f"{count} images{' ' * bool(hook)}{hook}: {results}")  # noqa: T201
    return results


@pytest.fixture(scope="module")
def long_run(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("long") / "out"
    return output, run(images, output, LONG)


def test_ten_times_the_images_take_no_more_memory(images, long_run, tmp_path):
    short = run(images, tmp_path / "out", SHORT)["peak_mib"]
    peaks = long_run[1]["peak_mib"]
    assert set(peaks) == {"actor", "driver", "monitor", "object store", "task"}
    assert {kind for kind in peaks if peaks[kind] > short[kind] + SLACK_MIB} == set()


def test_actors_that_leak_are_replaced_and_nothing_is_lost(images, long_run, tmp_path):
    calm, results = long_run
    recycled = run(
        images,
        tmp_path / "out",
        LONG,
        f"pools.propose.recycle_after={RECYCLE_AFTER}",
        hook="leak",
        block=LARGE_BLOCK,
    )
    assert recycled["actors"] >= LONG // (2 * LARGE_BLOCK)
    # A mebibyte is lost an image: 2 GB in all, but no actor lives to lose more than a part.
    lost = recycled["peak_mib"]["actor"] - results["peak_mib"]["actor"]
    assert 100 < lost < 2 * LARGE_BLOCK + SLACK_MIB
    check_exactly_once(tmp_path / "out", LONG)
    assert tree(tmp_path / "out") == tree(calm)
