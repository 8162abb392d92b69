"""A package with its own proposer, retriever and refiner: label, kill, resume and retry.

The package in ``toy/`` is installed into a folder on PYTHONPATH, as a user would install one.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from salip_ray.models.bundled.phantoms import make_phantom
from tests.conftest import BIN, ROOT, check_exactly_once, tree
from tests.ray_cluster import RayCluster

TOY = Path(__file__).with_name("toy")
N_IMAGES = 10
COMMON = {
    "image.long_side": "96",
    "run.rows_per_shard": "2",
    "run.max_error_share": "1",
    "pools.propose.size": "1",
    "pools.propose.cpus": "0.5",
    "pools.fetch_cpus": "0.25",
}
OWN = {"propose.model": "toy", "retrieve.model": "toy", "refine.model": "toy"}


def settings(**changes: str) -> list[str]:
    """Return ``--set`` options of a small job with the toy models; ``__`` stands for a dot."""
    given = {name.replace("__", "."): value for name, value in changes.items()}
    values = {**COMMON, **OWN, **given}
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def install(target: Path, version: str = "1.0") -> Path:
    """Install the toy package into a folder, as of a version."""
    source = target.with_name(f"{target.name}-source")
    shutil.copytree(TOY, source)
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace('"1.0"', f'"{version}"'))
    subprocess.run(
        [
            *(BIN / "uv", "pip", "install", "--quiet", "--offline", "--no-deps"),
            *("--no-build-isolation", "--python", sys.executable, "--target", target, source),
        ],
        check=True,
    )
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return install(tmp_path_factory.mktemp("toy") / "site")


@pytest.fixture(scope="module")
def cluster(site):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{site}")
        with RayCluster(cpus=4) as cluster:
            cluster.env["RAY_ADDRESS"] = cluster.gcs_address
            yield cluster


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Images in ``images``, their masks in ``masks``; the height of the first one is odd."""
    folder = tmp_path_factory.mktemp("phantoms")
    for index in range(N_IMAGES):
        phantom = make_phantom("chest_xray", index, bank="tune", size=96)
        size = (96, 90 + (index == 0))  # that of the working image, too
        for name, picture in (
            ("images", phantom.image[..., ::-1]),
            ("masks", phantom.mask("lungs").astype(np.uint8) * 255),
        ):
            (folder / name).mkdir(exist_ok=True)
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(folder / name / f"{index}.png"), picture)
    return folder


def salip(cluster, *arguments, **more):
    return cluster.run(sys.executable, "-m", "salip_ray", *map(str, arguments), **more)


def label(cluster, images, output, *given, **changes):
    return salip(
        cluster, "label", images, output, "--config", "lungs", *given, *settings(**changes)
    )


def rows_of(output: Path) -> list[dict]:
    return pq.read_table(output / "shards").to_pylist()


def require_success(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def labelled(cluster, phantoms, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("labelled") / "out"
    require_success(label(cluster, phantoms / "images", output))
    return output


def test_every_image_is_labelled_and_run_json_names_the_package(labelled):
    check_exactly_once(labelled, N_IMAGES)
    rows = rows_of(labelled)
    assert [row["status"] for row in rows].count("ok") >= N_IMAGES - 2
    assert not [row["error"] for row in rows if row["error"]]
    assert {mask["method"] for row in rows for mask in row["masks"]} == {"cascade"}
    fingerprint = json.loads((labelled / "run.json").read_text())["fingerprint"]
    assert fingerprint["weights"] == {}
    assert fingerprint["models"]["refine"] == {
        "model": "toy",
        "code": "toy_models:refine",
        "package": "toy-models",
        "version": "1.0",
    }


@pytest.mark.slow
def test_a_second_run_in_separate_actors_writes_the_same_bytes(
    cluster, phantoms, labelled, tmp_path
):
    pools = {"pools__retrieve__size": "1", "pools__refine__size": "1"}
    pools |= {"pools__retrieve__cpus": "0.5", "pools__refine__cpus": "0.5"}
    require_success(label(cluster, phantoms / "images", tmp_path / "out", **pools))
    assert tree(tmp_path / "out") == tree(labelled)


@pytest.mark.slow
def test_a_killed_job_resumes_to_the_same_bytes(cluster, phantoms, labelled, tmp_path):
    output = tmp_path / "out"
    command = [sys.executable, "-m", "salip_ray", "label", phantoms / "images", output]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*map(str, command), "--config", "lungs", *settings()],
            env=cluster.env,
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + 300
    while not list(output.glob("shards/*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    require_success(label(cluster, phantoms / "images", output))
    assert tree(output) == tree(labelled)


def test_another_version_of_the_package_is_refused_by_name(
    cluster, phantoms, labelled, tmp_path, monkeypatch
):
    newer = install(tmp_path / "site", version="1.1")
    monkeypatch.setitem(cluster.env, "PYTHONPATH", f"{ROOT}:{newer}")
    done = label(cluster, phantoms / "images", labelled)
    assert done.returncode == 2
    assert 'models.propose.version was "1.0", is "1.1"' in done.stderr
    retried = salip(cluster, "retry", labelled)
    assert retried.returncode == 2
    assert 'models.propose.version was "1.0", is "1.1"' in retried.stderr


def test_other_options_are_refused_by_name(cluster, phantoms, labelled):
    done = label(cluster, phantoms / "images", labelled, refine__options="{threshold: 81}")
    assert done.returncode == 2
    assert "refine.options" in done.stderr


def test_a_factory_that_raises_ends_the_job_with_one_line(cluster, phantoms, tmp_path):
    broken = {"propose__model": "toy_models.faulty:Raises", "refine__model": "none"}
    done = label(cluster, phantoms / "images", tmp_path / "out", **broken)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert "toy_models.faulty:Raises cannot be built: ValueError: there is no licence" in lines[-1]
    assert "Traceback" not in done.stderr


DATASET = """
import sys
import ray
from salip_ray import label_dataset, load_config
from salip_ray.errors import ModelError

ray.init(log_to_driver=False, logging_level="error")
images = ray.data.read_images(sys.argv[1], mode="RGB")
broken = ["propose.model=toy_models.faulty:Raises", "refine.model=none"]
try:
    label_dataset(images, load_config("lungs", overrides=[*sys.argv[3:], *broken]))
except ModelError as problem:
    print(problem)
labelled = label_dataset(images, load_config("lungs", overrides=sys.argv[3:]))
labelled.select_columns(["status", "masks"]).write_parquet(sys.argv[2])
"""


@pytest.mark.slow
def test_label_dataset_names_a_factory_that_raises_and_labels_as_the_job_does(
    cluster, phantoms, labelled, tmp_path
):
    output, given = tmp_path / "out", [value for value in settings() if value != "--set"]
    done = cluster.run(sys.executable, "-c", DATASET, phantoms / "images", output, *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "propose.model toy_models.faulty:Raises cannot be built: ValueError: there is no licence "
        "for this model"
    )
    rows = [(row["status"], row["masks"]) for row in rows_of(labelled)]
    written = pq.read_table(output).to_pylist()
    assert sorted(map(str, rows)) == sorted(str((row["status"], row["masks"])) for row in written)


@pytest.mark.slow
def test_weights_are_recorded_and_other_weights_refused(cluster, phantoms, tmp_path):
    table = tmp_path / "table.json"
    table.write_text('{"threshold": 70}')
    given = {"refine__weights": f"{{table: {table}}}"}
    require_success(label(cluster, phantoms / "images", tmp_path / "out", **given))
    weights = json.loads((tmp_path / "out" / "run.json").read_text())["fingerprint"]["weights"]
    assert list(weights) == ["refine.table"]
    table.write_text('{"threshold": 71}')
    done = label(cluster, phantoms / "images", tmp_path / "out", **given)
    assert done.returncode == 2
    assert "weights.refine.table was" in done.stderr


@pytest.mark.slow
def test_images_on_which_a_model_crashes_are_error_rows(cluster, phantoms, labelled, tmp_path):
    output = tmp_path / "out"
    done = label(
        cluster,
        phantoms / "images",
        output,
        propose__model="toy_models.faulty:Crashing",
        refine__model="none",
    )
    require_success(done)
    check_exactly_once(output, N_IMAGES)
    rows = rows_of(output)
    assert {row["height"] % 2 for row in rows} == {0, 1}
    assert all((row["status"] == "error") == bool(row["height"] % 2) for row in rows)
    assert {row["error"]["type"] for row in rows if row["error"]} == {"WorkerDiedError"}
    retried = salip(cluster, "retry", output)
    assert "1 of 10 images is an error row" in retried.stdout + retried.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "model", "error", "message"),
    [
        ("propose", "Starving", "MemoryError", "Unable to allocate"),
        ("propose", "NaNScores", "ModelError", "returned scores with NaN or infinite values"),
        ("retrieve", "NaNRanks", "ModelError", "returned scores with NaN or infinite values"),
        ("refine", "SoftMasks", "ModelError", "returned masks of float64 with other values"),
    ],
)
def test_a_model_that_fails_on_images_gives_error_rows(
    cluster, phantoms, tmp_path, stage, model, error, message
):
    changes = {f"{stage}__model": f"toy_models.faulty:{model}"}
    if stage == "propose":
        changes["refine__model"] = "none"
    output = tmp_path / "out"
    label(cluster, phantoms / "images", output, "--limit", "2", **changes)
    check_exactly_once(output, 2)
    for row in rows_of(output):
        assert (row["status"], row["error"]["stage"]) == ("error", stage)
        assert row["error"]["type"] == error
        assert message in row["error"]["message"]
