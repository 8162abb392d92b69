"""A consensus that is spread over Ray."""

from __future__ import annotations

import salip_ray.consensus.job as consensus_job
from salip_ray.consensus.job import make_consensus
from salip_ray.output.verify import verify
from tests.conftest import tree
from tests.unit.consensus.runs import block, write_run


def test_tasks_of_ray_write_the_same_bytes_as_this_process(local_ray, tmp_path, monkeypatch):
    names = [f"{n}.png" for n in range(7)]
    runs = [
        str(write_run(tmp_path / name, {image: {"lungs": mask} for image in names}))
        for name, mask in (("one", block((0, 4))), ("other", block((1, 5))))
    ]
    make_consensus(runs, str(tmp_path / "here"), quiet=True)
    monkeypatch.setattr(consensus_job, "_IMAGES_WITHOUT_RAY", 0)
    summary = make_consensus(runs, str(tmp_path / "out"), quiet=True)
    assert (summary.images, summary.shards, summary.status) == (7, 4, {"ok": 7})
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
    assert verify(str(tmp_path / "out")).problems == ()
