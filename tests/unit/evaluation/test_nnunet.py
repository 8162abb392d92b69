"""The summary under nnU-Net's names."""

from __future__ import annotations

import json
import math

import numpy as np

from salip_ray.evaluation import nnunet_summary, score_rows
from salip_ray.output.masks import encode_rle

LEFT = np.array([[1, 1, 0, 0]] * 3, np.bool_)
NONE = np.zeros((3, 4), np.bool_)


def summary():
    row = {"height": 3, "width": 4, "status": "ok"}
    mask = {"method": "cascade", "label": "lungs", "rle": encode_rle(np.ones((3, 4)))}
    rows = [
        {**row, "image_id": "a", "uri": "/a.png", "masks": [mask]},
        {**row, "image_id": "b", "uri": "/b.png", "masks": []},
    ]
    references = {"/a.png": {"lungs": LEFT}, "/b.png": {"lungs": NONE}}
    evaluation = score_rows(
        rows, lambda row: references[row["uri"]], labels=["lungs"], methods=["cascade"]
    )
    text = nnunet_summary(evaluation, {"lungs": 1}, reference_file=lambda of: f"/masks{of.uri}")
    return json.loads(text)


def test_cases_and_means_have_the_names_and_counts_of_nnunet():
    written = summary()
    first, second = written["metric_per_case"]
    assert first["metrics"]["1"] | {"HD95": 0, "NSD": 0} == {
        "Dice": 2 / 3,
        "IoU": 0.5,
        "TP": 6,
        "FP": 6,
        "FN": 0,
        "TN": 0,
        "n_pred": 12,
        "n_ref": 6,
        "HD95": 0,
        "NSD": 0,
    }
    assert (first["prediction_file"], first["reference_file"]) == ("a.mask.png", "/masks/a.png")
    assert math.isnan(second["metrics"]["1"]["Dice"])
    mean = written["mean"]["1"]
    assert mean["Dice"] == 2 / 3  # the empty image counts in no mean of overlap ...
    assert mean["n_empty"] == 1
    assert mean["TP"] == 3  # ... but in the pixel counts, as nnU-Net has it
    assert written["foreground_mean"]["Dice"] == 2 / 3
