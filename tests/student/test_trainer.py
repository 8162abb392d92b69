"""A student is trained on Ray Train, stopped, resumed, and compared with its teacher."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import typer
from typer.testing import CliRunner

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.errors import InputError, JobError, LeaseError, OutputError, ResumeError
from salip_ray.models.bundled.sam_net import load_bundled_sam
from salip_ray.output.layout import LEASE
from salip_ray.output.lease import held
from salip_ray.output.store import Store
from salip_ray.student import trainer
from salip_ray.student.options import StudentOptions
from salip_ray.student.output import load_student, trained_images
from tests.conftest import ROOT
from tests.unit.datasets.conftest import CONFIDENCES, draw, write_output

SMALL = StudentOptions(
    size=32, width=2, epochs=3, batch_size=2, val_share=0.3, group_by=r"patient\d+", workers=2
)
AS_WORDS = (
    *("--size", "32", "--width", "2", "--epochs", "3", "--batch-size", "2", "--val", "0.3"),
    *("--group-by", r"patient\d+", "--workers", "2"),
)


class Breaks:
    """A transform that fails from the second epoch on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, sample):
        with (self.folder / "read").open("a") as file:
            file.write(".")
        if (self.folder / "read").stat().st_size > len(CONFIDENCES) + 1:
            raise RuntimeError("the disk is gone")
        return sample


def run_command(*given: object) -> str:
    spec = importlib.util.spec_from_file_location("job", ROOT / "jobs" / "train_student.py")
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    app = typer.Typer()
    app.command()(job.main)
    done = CliRunner().invoke(app, [str(part) for part in given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_failed_training_resumes_and_is_scored(local_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_FAILURES", 0)
    learnt, tested = write_output(tmp_path / "a"), write_output(tmp_path / "b")
    student = tmp_path / "student"
    broken = PseudoLabels(str(learnt), ignore_disagreement=True, transform=Breaks(tmp_path))
    with pytest.raises(JobError, match=r"the disk is gone.*resume after the last complete epoch"):
        trainer.train_student(broken, str(student), SMALL)
    assert not (student / "student.safetensors").exists()
    with pytest.raises(ResumeError, match=r"options\.epochs was 3, is 4"):
        trainer.train_student(broken, str(student), replace(SMALL, epochs=4))
    with pytest.raises(OutputError, match="is not empty"):
        trainer.train_student(broken, str(learnt), SMALL)

    # A mark in the state of the first epoch, to recognise that the run resumed from it.
    (checkpoint,) = student.glob("train/checkpoint_*/course.pt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["epochs_done"] == 1
    state["history"][0]["loss"] = 123.0
    torch.save(state, checkpoint)
    masks = tmp_path / "masks"
    masks.mkdir()
    for index in range(len(CONFIDENCES)):
        _, left, right = draw(index)
        cv2.imwrite(str(masks / f"view{index}.png"), (left + 2 * right).astype(np.uint8))
    test = ("--test", tested, "--references", masks)
    run_command(learnt, student, *test, *AS_WORDS)

    store = Store(str(student))
    history = json.loads(store.read("history.json"))
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[0]["loss"] == 123.0
    assert all(0 <= entry["val_dice"] <= 1 for entry in history)
    assert set(load_student(store).class_ids) == {"lung", "heart"}
    scores = json.loads(store.read("scores/labels/evaluation.json"))
    assert set(scores["classes"]["lung"]) == {"cascade", "student"}
    about = json.loads(store.read("student.json"))
    assert about["scores"]["labels"]["heart"]["n"] == len(CONFIDENCES)
    # The images that chose the epoch are of other patients than those learnt from.
    rows = pq.read_table(student / "images.parquet").to_pylist()
    assert trained_images(store) == {row["image_id"] for row in rows}
    patients = {
        part: {row["uri"].split("/")[-2] for row in rows if row["part"] == part}
        for part in ("train", "val")
    }
    assert sum(map(len, patients.values())) == 3
    assert not patients["train"] & patients["val"]
    assert "is complete" in run_command(learnt, student, *AS_WORDS)


def test_a_student_on_the_encoder_of_sam_is_trained_by_the_command(local_ray, tmp_path):
    labels, student = write_output(tmp_path / "a"), tmp_path / "student"
    words = ("--network", "sam", "--width", "2", "--epochs", "1", "--val", "0", "--rate", "1e-9")
    run_command(labels, student, *words)
    trained = load_student(Store(str(student)))
    assert trained.network == "sam"
    # At this rate the encoder is still that of the bundled SAM.
    encoder = load_bundled_sam().image_encoder
    torch.testing.assert_close(trained.net.pretrained.pos_embed, encoder.pos_embed)


# Trains a student; the process is killed at the first checkpoint, or before the last file.
KILLED_TRAINING = """
import os, pathlib, signal, sys, threading, time
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.student import trainer
from tests.student.test_trainer import SMALL
labels, output, at = sys.argv[1:]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def kill_at_checkpoint():
    while not list(pathlib.Path(output).glob("train/checkpoint_*/course.pt")):
        time.sleep(0.01)
    kill()
if at == "end":
    trainer._student_of = kill
else:
    threading.Thread(target=kill_at_checkpoint, daemon=True).start()
trainer.train_student(PseudoLabels(labels), output, SMALL)
"""


@pytest.mark.slow
def test_killed_training_does_not_block_the_next_one(local_ray, tmp_path):
    import ray

    labels, student = write_output(tmp_path / "a"), tmp_path / "student"
    env = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    for at in ("checkpoint", "end"):
        command = [sys.executable, "-c", KILLED_TRAINING, str(labels), str(student), at]
        killed = subprocess.run(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (student / LEASE).exists()
    trainer.train_student(PseudoLabels(str(labels)), str(student), SMALL)
    history = json.loads(Store(str(student)).read("history.json"))
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert set(load_student(Store(str(student))).class_ids) == {"lung", "heart"}
    assert not (student / LEASE).exists()
    assert not list(student.rglob(".*.tmp"))


def test_second_training_at_the_same_time_is_refused_before_ray_starts(tmp_path):
    labels, student = write_output(tmp_path / "a"), tmp_path / "student"
    message = f"written by another driver .*process {os.getpid()}"
    with held(Store(student)), pytest.raises(LeaseError, match=message):
        trainer.train_student(PseudoLabels(str(labels)), str(student), SMALL)
    assert list(student.iterdir()) == []


def test_images_that_are_learnt_from_are_refused_as_tests_before_the_training(tmp_path):
    labels, student, masks = write_output(tmp_path / "a"), tmp_path / "student", tmp_path / "masks"
    masks.mkdir()
    _, left, right = draw(1)
    cv2.imwrite(str(masks / "view1.png"), (left + 2 * right).astype(np.uint8))
    test = ("--test", labels, "--references", masks)
    with pytest.raises(InputError, match=r"the student learns from image .*view1\.png"):
        run_command(labels, student, *test, *AS_WORDS)
    assert not student.exists()
