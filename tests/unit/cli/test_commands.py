"""The command line: what it passes on, and how it reports errors."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from salip_ray import pipeline
from salip_ray.cli import app
from salip_ray.cli.weights import CHECKPOINTS
from salip_ray.config import load_config
from salip_ray.errors import JobError
from salip_ray.output.masks import encode_rle
from tests.conftest import SMALL


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def job(monkeypatch):
    """Record the calls of ``salip_ray.pipeline.label``, which is tested elsewhere."""
    calls = []
    monkeypatch.setattr(pipeline, "label", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_python_m_runs_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "salip_ray", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("salip-ray 0.")


def test_label_passes_every_argument_on(job):
    done = run(
        *("label", "s3://in", "s3://out", "--config", "lungs"),
        *("--set", "propose.points_per_side=8", "--mode", "cascade,unprompted"),
        *("--mode", "gt_sam", "--reference", "s3://masks", "--quiet"),
        *("--prompts", "s3://boxes.json", "--candidates", "s3://masks-elsewhere"),
        *("--include", "images/*", "--include", "*.dcm", "--exclude", "masks", "--limit", "7"),
        *("--input-option", "anon=true"),
        *("--output-option", "client_kwargs.endpoint_url=http://127.0.0.1:9000"),
    )
    assert done.exit_code == 0, done.output
    ((args, kwargs),) = job
    assert args[:2] == ("s3://in", "s3://out")
    config = args[2]
    assert config.task.name == "lungs"
    assert config.propose.points_per_side == 8
    assert config.run.modes == ("cascade", "unprompted", "gt_sam")
    assert config.storage.input == {"anon": True}
    assert config.storage.output == {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9000"}}
    assert kwargs == {
        "references": "s3://masks",
        "prompts": "s3://boxes.json",
        "candidates": "s3://masks-elsewhere",
        "manifest": None,
        "quiet": True,
        "extend": False,
        "include": ["images/*", "*.dcm"],
        "exclude": ["masks"],
        "limit": 7,
    }


def test_label_uses_the_preset(job, tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("image: {long_side: 333}\n")
    assert run("label", "in", "out", "--config", "brain", "--preset", preset).exit_code == 0
    assert job[0][0][2].image.long_side == 333


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "liver"], "no task named 'liver'"),
        (
            ["--config", "lungs", "--set", "propose.points_per_sid=3"],
            "did you mean points_per_side",
        ),
        (["--config", "lungs", "--set", "nonsense"], "must look like section.field=value"),
        (["--config", "lungs", "--mode", "magic"], "--mode 'magic' must be one of cascade"),
        (["--config", "lungs", "--preset", "huge"], "no preset named 'huge'"),
        (["--config", "lungs", "--reference", "masks"], "--reference is for the mode gt_sam"),
        (["--config", "lungs", "--input-option", "s3cret"], "--input-option must look like"),
    ],
)
def test_wrong_argument_is_one_line_and_starts_no_job(job, arguments, message):
    done = run("label", "in", "out", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "s3cret" not in done.output
    assert job == []


def test_job_error_exits_with_1(monkeypatch):
    def fail(*args, **kwargs):
        raise JobError("3 of 4 images are error rows")

    monkeypatch.setattr(pipeline, "label", fail)
    done = run("label", "in", "out", "--config", "lungs")
    assert done.exit_code == 1
    assert done.stderr == "salip-ray: 3 of 4 images are error rows\n"


# -------------------------------------------------------------------------------------- config


def test_lack_of_memory_is_one_line(monkeypatch):
    def allocate(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline, "label", allocate)
    done = run("label", "in", "out", "--config", "lungs")
    assert done.exit_code == 1
    assert done.output.startswith("salip-ray: the memory of this process ran out")
    assert len(done.output.splitlines()) == 1


def test_config_show_prints_a_loadable_task_file_without_secrets(tmp_path):
    done = run(
        *("config", "lungs", "--set", "propose.points_per_side=8", "--show"),
        *("--input-option", "key=hunter2", "--output-option", "client_kwargs.token=hunter2"),
        *("--set", "sam.model=vit_b"),
        *("--set", "sam.checkpoint=https://h/sam.pth?X-Amz-Signature=hunter2"),
    )
    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.output
    (tmp_path / "merged.yaml").write_text(done.stdout)
    merged = load_config(tmp_path / "merged.yaml")
    assert merged.propose.points_per_side == 8
    assert merged.sam.checkpoint == "https://h/sam.pth"
    assert merged.storage.input == {"key": "***"}
    expected = load_config("lungs", overrides=["propose.points_per_side=8"])
    assert merged.task == expected.task
    assert merged.retrieve == expected.retrieve


def test_config_without_show_is_one_line():
    done = run("config", "brain", "--preset", "paper-2d")
    assert done.exit_code == 0
    assert done.output == (
        "brain: valid; classes: brain; SAM: vit_h; CLIP: ViT-L-14-quickgelu "
        "(print every setting with --show)\n"
    )


def test_config_refuses_an_unknown_key():
    done = run("config", "lungs", "--set", "propose.points_per_sid=3")
    assert done.exit_code == 2
    assert "did you mean points_per_side" in done.stderr


# ------------------------------------------------------------------------------------ evaluate


@pytest.fixture
def labelled(write_output, tmp_path):
    """An output of two images, and a folder of references for both."""
    mask = np.zeros((8, 10), np.bool_)
    mask[2:6, 2:6] = True
    masks = tmp_path / "masks"
    masks.mkdir()
    rows = []
    for name in ("a", "b"):
        Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{name}.png")
        cell = {"method": "cascade", "label": "lungs", "class_id": 1, "rle": encode_rle(mask)}
        rows.append(
            {
                "image_id": name,
                "uri": f"/in/{name}.jpg",
                "height": 8,
                "width": 10,
                "status": "ok",
                "masks": [cell] if name == "a" else [],
            }
        )
    return write_output(rows), masks


def test_evaluate_prints_and_writes_the_figures(labelled, tmp_path):
    out, masks = labelled
    done = run("evaluate", out, masks, "--json", tmp_path / "new" / "scores.json")
    assert done.exit_code == 0, done.output
    assert "a.jpg" in done.output
    assert "b.jpg" in done.output
    data = json.loads((tmp_path / "new" / "scores.json").read_text())
    mean = data["classes"]["lungs"]["cascade"]
    assert mean.items() >= {"dice": 0.5, "iou": 0.5, "n": 2, "empty": 0}.items()
    summary = json.loads((tmp_path / "new" / "summary_nnunet.json").read_text())
    assert summary["mean"]["1"]["Dice"] == 0.5
    # A mode of the run that wrote no mask scores 0.
    assert data["classes"]["lungs"]["gt_sam"]["dice"] == 0
    assert len(data["images"]) == 2 * 4


def test_evaluate_prints_the_worst_images_unless_all_are_requested(labelled, monkeypatch):
    # The attribute of the package is the command, not its module.
    monkeypatch.setattr(importlib.import_module("salip_ray.cli.evaluate"), "_WORST", 1)
    done = run("evaluate", *labelled)
    assert done.exit_code == 0
    assert sum(name in done.output for name in ("a.jpg", "b.jpg")) == 1
    assert "(--all prints the rest)" in " ".join(done.output.split())
    everything = run("evaluate", *labelled, "--all").output
    assert "a.jpg" in everything
    assert "b.jpg" in everything


def test_evaluate_reads_an_index(labelled, tmp_path):
    out, _ = labelled
    (tmp_path / "index.csv").write_text("image,mask\nsome/a.jpg,masks/a.png\n")
    done = run("evaluate", out, tmp_path / "index.csv", "--json", tmp_path / "scores.json")
    assert done.exit_code == 0, done.output
    assert "1 image in no mean: no reference mask" in done.output
    assert json.loads((tmp_path / "scores.json").read_text())["without_reference"] == 1


def test_evaluate_names_the_reference_of_another_size(labelled):
    out, masks = labelled
    Image.fromarray(np.ones((10, 8), np.uint8)).save(masks / "b.png")
    done = run("evaluate", out, masks)
    assert done.exit_code == 2
    assert "/in/b.jpg is 10 x 8" in done.stderr


def test_evaluate_says_that_values_of_a_mask_are_joined_for_one_class(labelled):
    out, masks = labelled
    assert "several values" not in run("evaluate", out, masks).stdout
    two = np.zeros((8, 10), np.uint8)
    two[2:6, 2:5], two[2:6, 5:7] = 1, 2
    Image.fromarray(two).save(masks / "b.png")
    done = run("evaluate", out, masks)
    assert "1 reference mask with several values above 0: all of them count as" in done.stdout


def test_evaluate_without_any_match_fails(labelled, tmp_path):
    out, masks = labelled
    for name in ("a", "b"):
        (masks / f"{name}.png").rename(masks / f"other-{name}.png")
    done = run("evaluate", out, masks)
    assert done.exit_code == 1
    assert "no image of" in done.stderr


def test_evaluate_refuses_a_folder_that_is_no_output(tmp_path):
    done = run("evaluate", tmp_path, tmp_path)
    assert done.exit_code == 2
    assert "holds no run.json" in done.stderr


# ------------------------------------------------------------------------------- demo, weights


def test_demo_draws_test_phantoms_once(tmp_path):
    from salip_ray.cli.demo import draw_phantoms
    from salip_ray.models.bundled.phantoms import make_phantom

    draw_phantoms("chest_xray", 2, tmp_path)
    image, mask = tmp_path / "images", tmp_path / "masks"
    names = ["chest_xray-0000.png", "chest_xray-0001.png"]
    assert sorted(path.name for path in image.iterdir()) == names
    phantom = make_phantom("chest_xray", 1, bank="test")
    with Image.open(image / names[1]) as file:
        np.testing.assert_array_equal(np.asarray(file), phantom.image)
    with Image.open(mask / names[1]) as file:
        np.testing.assert_array_equal(np.asarray(file) > 0, phantom.mask("lungs"))

    (image / names[0]).write_bytes(b"half")
    before = (image / names[1]).stat().st_mtime_ns
    draw_phantoms("chest_xray", 2, tmp_path)
    assert (image / names[0]).stat().st_size > 1000
    assert (image / names[1]).stat().st_mtime_ns == before


def test_demo_skips_phantoms_that_lack_an_organ_of_its_task(tmp_path):
    from salip_ray.cli.demo import draw_phantoms
    from salip_ray.models.bundled.phantoms import make_phantom

    organs = ["fetal head", "placenta"]
    draw_phantoms("fetal_ultrasound", 2, tmp_path, classes=organs, complete=True)
    indices = [int(path.stem[-4:]) for path in sorted((tmp_path / "masks").iterdir())]
    shown = [
        all(
            make_phantom("fetal_ultrasound", index, bank="test").mask(organ).any()
            for organ in organs
        )
        for index in range(indices[-1] + 1)
    ]
    assert indices == [index for index, both in enumerate(shown) if both]
    assert len(indices) == 2
    with Image.open(tmp_path / "masks" / f"fetal_ultrasound-{indices[0]:04d}.png") as file:
        assert set(np.unique(np.asarray(file))) == {0, 1, 2}


def test_demo_with_fewer_images_than_before_is_refused(tmp_path):
    from salip_ray.cli.demo import draw_phantoms
    from salip_ray.errors import ConfigError

    draw_phantoms("brain_mri", 2, tmp_path)
    with pytest.raises(ConfigError, match="1 image more than --images 1"):
        draw_phantoms("brain_mri", 1, tmp_path)


def test_a_demo_that_has_run_is_not_drawn_with_another_number(tmp_path):
    from salip_ray.cli.demo import draw_phantoms

    folder = tmp_path / "phantoms" / "head"
    draw_phantoms("brain_mri", 2, folder, classes=["head", "brain"], complete=True)
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "run.json").write_text("{}")
    done = run("demo", "--kind", "brain_mri", "--images", 3, "--output", tmp_path)
    assert done.exit_code == 2
    assert "holds a demo of 2 images per kind: give --images 2" in done.stderr
    assert len(list((folder / "images").iterdir())) == 2


def test_unknown_kind_is_refused_with_the_choices():
    done = run("demo", "--kind", "knee")
    assert done.exit_code == 2
    assert "--kind 'knee' must be one of chest_xray" in done.stderr


def test_weights_list_shows_every_checkpoint():
    done = run("weights", "list")
    assert done.exit_code == 0
    for name, file in CHECKPOINTS.items():
        assert name in done.output
        assert file.uri in done.output
        assert file.sha256 in done.output


def test_weights_fetch_verifies(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"abc")
    right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    done = run("weights", "fetch", file, "--sha256", right)
    assert done.exit_code == 0
    assert done.output.strip() == str(file)
    assert run("weights", "fetch", file, "--sha256", "0" * 64).exit_code == 2


# -------------------------------------------------------------------------------------- report


def test_report_is_written_into_the_output(labelled):
    out, _ = labelled
    done = run("report", out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"report: {out}/report.html (0.0 MB)")
    assert "<h1>lungs</h1>" in (out / "report.html").read_text()


def test_report_goes_to_the_given_file_and_uses_references(labelled, tmp_path):
    out, masks = labelled
    done = run("report", out, "--html", tmp_path / "new" / "page.html", "--reference", masks)
    assert done.exit_code == 0, done.output
    assert "Scores against the references" in (tmp_path / "new" / "page.html").read_text()
    assert not (out / "report.html").exists()


def test_report_of_an_empty_folder_is_one_line(tmp_path):
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"salip-ray: {tmp_path} holds no run.json")


# ---------------------------------------------------------------------------------------- show


def test_show_draws_one_image(images, tmp_path):
    png = tmp_path / "new" / "walk.png"
    small = [argument for value in SMALL for argument in ("--set", value)]
    done = run("show", images / "3.png", "--config", "lungs", "--png", png, *small)
    assert done.exit_code == 0, done.output
    assert done.output.endswith(f"picture: {png}\n")
    with Image.open(png) as picture:
        assert picture.width == 1272


@pytest.mark.parametrize(
    ("name", "message"), [("cut.png", "corrupt or truncated"), ("gone.png", "does not exist")]
)
def test_show_names_the_image_that_cannot_be_read(images, name, message):
    done = run("show", images / name, "--config", "lungs")
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_show_asks_for_a_slice_if_there_are_several(tmp_path):
    pages = [Image.new("L", (64, 64), grey) for grey in (0, 90, 180)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    done = run("show", tmp_path / "pages.tif", "--config", "lungs")
    assert done.exit_code == 2
    assert "holds 3 pages: choose one with --slice 0 to 2" in done.stderr
    done = run("show", tmp_path / "pages.tif", "--config", "lungs", "--slice", 3)
    assert done.exit_code == 2
    assert "3 is not among them" in done.stderr
