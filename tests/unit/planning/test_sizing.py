"""From measured seconds to pools, hours and cost."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from salip_ray.cluster.session import local_cores
from salip_ray.config import load_config
from salip_ray.errors import ConfigError, InputError
from salip_ray.planning import profile as profiles
from salip_ray.planning.profile import Profile, measure
from salip_ray.planning.sizing import size, sized_config
from tests.conftest import SMALL

PROFILE = Profile(
    images=8,
    device="cpu",
    cores=8,
    seconds={"fetch": 0.1, "propose": 1.0, "retrieve": 0.2, "refine": 0.1, "commit": 0.1},
    row_bytes=2e6,
    output_bytes=3000.0,
)


def test_cores_are_shared_by_all_stages():
    sizing = size(PROFILE, images=3600, cores=15, price=0.5)
    assert sizing.images_per_second == pytest.approx(15 / 1.5 * 0.95)
    assert sizing.hours == pytest.approx(1 / 9.5)
    assert sizing.cost == pytest.approx(0.5 * 15 / 9.5)
    assert sizing.output_bytes == 3600 * 3000
    assert sizing.pools == {"propose": {"size": 15, "threads": 1}}


def test_gpus_have_an_actor_of_each_stage_by_their_share_of_the_work():
    sizing = size(replace(PROFILE, device="cuda"), images=1000, gpus=4, price=2.0)
    assert {pool["size"] for pool in sizing.pools.values()} == {4}
    assert sum(pool["gpus"] for pool in sizing.pools.values()) <= 1
    assert sizing.images_per_second == pytest.approx(4 / 1.3 * 0.95)
    assert sizing.cost == pytest.approx(2.0 * sizing.gpu_hours)
    assert sizing.fetch_cores == pytest.approx(sizing.images_per_second * 0.2)


def test_gpus_are_not_planned_from_a_cpus_profile():
    with pytest.raises(ConfigError, match="one of a cpu"):
        size(PROFILE, images=10, gpus=8)


def test_the_configuration_is_one_that_loads(tmp_path):
    import yaml

    config = load_config("lungs", overrides=["storage.input.secret=hidden"])
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(sized_config(config, size(PROFILE, images=10))))
    assert "hidden" not in path.read_text()
    loaded = load_config(path)
    assert loaded.recipe() == config.recipe()
    assert loaded.pools.propose.size == PROFILE.cores
    assert not loaded.pools.own


def test_a_profile_is_saved_and_read(tmp_path):
    PROFILE.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == PROFILE
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"bad\.json cannot be read"):
        Profile.load(tmp_path / "bad.json")


def test_a_few_images_are_measured_stage_by_stage(images):
    config = load_config("lungs", overrides=SMALL)
    profile = measure(str(images), config, images=3)
    assert profile.images == 2  # one of the three is empty
    assert set(profile.seconds) == {"fetch", "propose", "retrieve", "refine", "commit"}
    assert all(spent > 0 for spent in profile.seconds.values())
    # A row, not three: an embedding, the pixels, and not much else.
    assert 96 * 16 * 16 * 4 < profile.row_bytes < 2.5 * 96 * 16 * 16 * 4
    assert profile.output_bytes > 100


@pytest.mark.parametrize(
    ("device", "processes"), [("auto", 1), ("cuda", 1), ("cpu", min(8, local_cores()))]
)
def test_a_gpu_is_measured_by_one_process(images, monkeypatch, device, processes):
    """Several would take turns on it, and each would count the time of all."""
    used = []

    class Pool(contextlib.nullcontext):
        def __init__(self, count, mp_context):
            super().__init__(self)
            used.append(count)

        def map(self, _, *several):
            sized = {"images": 8, "device": "x", "row_bytes": 1.0, "output_bytes": 1.0}
            return [{**sized, "seconds": {"fetch": 1.0}} for _ in zip(*several, strict=True)]

    monkeypatch.setattr(profiles, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    config = load_config("lungs", overrides=[*SMALL, f"run.device={device}"])
    assert measure(str(images), config).seconds == {"fetch": 1.0}
    assert used == [processes]


def test_an_input_without_a_readable_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"none")
    config = load_config("lungs", overrides=SMALL)
    with pytest.raises(InputError, match="can be read"):
        measure(str(tmp_path), config, images=2)
