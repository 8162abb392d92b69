"""Score whole volumes in 3-D, with and without ``volumes.consistent``: ``make volume``.

Two sets, by the shipped task ``brain``: head MR phantoms of the ``test`` bank, 20 slices each, and
the real T1 volume of ``brain_mri`` in ``$SALIP_REAL_DATA`` (default ``../shared/data``), all of its
slices along each of the three axes. A line gives means over volumes (95 % intervals over volumes):
Dice, HD95 and NSD in 3-D, jumps (neighbouring slices with the organ whose labels overlap by a Dice
below .6), and labels on slices without the organ. The interval of a single volume is that of its
slices, resampled. The labels stay in ``volume-output/``.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel
import numpy as np
import numpy.typing as npt
import typer

from benchmarks.intervals import interval
from benchmarks.realdata import PROJECT, real_data
from salip_ray.config import load_config
from salip_ray.evaluation import Score, VolumeScore, dice, volume_scores
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.models.bundled.phantoms import make_volume
from salip_ray.output.masks import decode_rle
from salip_ray.output.reader import LabelOutput
from salip_ray.sources.references import References

_JUMP = 0.6
_RESAMPLINGS = 2000
_SLICES, _SIZE = 20, 160
_MM = (1.5, 1.5, 6.0)  # of a phantom: column, row, slice
_VARIANTS = {"slice by slice": "false", "consistent": "true"}


@dataclass(frozen=True)
class Volume:
    """The figures of one labelled volume."""

    score: VolumeScore
    slices: tuple[Score, ...]
    jumps: int
    wrong: int


def draw_phantoms(folder: Path, count: int) -> None:
    """Write phantoms of the test bank as NIfTI volumes, and their brains as masks."""
    affine = np.diag([-_MM[0], -_MM[1], _MM[2], 1.0])
    for index in range(count):
        phantoms = make_volume(index, bank="test", size=_SIZE, slices=_SLICES)
        images = np.stack([phantom.image[..., 0].T for phantom in phantoms], axis=-1)
        brains = np.stack([phantom.mask("brain").T for phantom in phantoms], axis=-1)
        for name, values in (("images", images), ("masks", brains.astype(np.uint8))):
            path = folder / name / f"head-{index:02d}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), path)


def copy_real(folder: Path) -> None:
    """Copy the real volume. Its mask is soft and next to it: brain is what is above 0.5."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    source = real_data() / "brain_mri"
    image = (source / "single_subj_T1.nii").read_bytes()
    (folder / "images" / "brain.nii").write_bytes(image)
    soft = nibabel.load(source / "brainmask.nii")
    brain = (np.asarray(soft.dataobj) > 0.5).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(brain, soft.affine), folder / "masks" / "brain.nii")


def measure(inputs: Path, output: Path, settings: Sequence[str]) -> list[Volume]:
    """Label volumes, and return the figures of each."""
    from salip_ray import pipeline

    config = load_config("brain", overrides=settings)
    began = time.monotonic()
    summary = pipeline.label(inputs / "images", output, config, quiet=True)
    print(f"{output.name}: {summary.images} slices, {time.monotonic() - began:.0f} s")
    labels = LabelOutput.open(str(output))
    evaluation = evaluate_output(labels, References.open(str(inputs / "masks")))
    masks = {}
    for row in labels.rows(columns=["image_id", "masks"]):
        cells = [cell for cell in row["masks"] or () if cell["method"] == "cascade"]
        masks[row["image_id"]] = decode_rle(cells[0]["rle"]) if cells else None
    volumes = []
    for score in volume_scores(evaluation):
        if score.method != "cascade":
            continue
        slices = sorted(
            (s for s in evaluation.scores if (s.volume, s.method) == (score.volume, "cascade")),
            key=lambda s: s.slice or 0,
        )
        jumps = sum(
            _jumps(masks[one.image_id], masks[other.image_id])
            for one, other in itertools.pairwise(slices)
            if one.tp + one.fn and other.tp + other.fn
        )
        wrong = sum(not s.tp + s.fn and s.fp > 0 for s in slices)
        volumes.append(Volume(score, tuple(slices), jumps, wrong))
    return volumes


def _jumps(one: npt.NDArray[np.bool_] | None, other: npt.NDArray[np.bool_] | None) -> bool:
    if one is None or other is None:
        return one is not other
    return dice(one, other) < _JUMP


def resampled(volumes: Sequence[Volume]) -> npt.NDArray[np.float64]:
    """Return the 3-D Dice of each resampling: of volumes, or of the slices of a single one."""
    rng = np.random.default_rng(0)
    if len(volumes) > 1:
        values = np.array([volume.score.dice for volume in volumes])
        picks = rng.integers(len(values), size=(_RESAMPLINGS, len(values)))
        return np.asarray(values[picks].mean(axis=1))
    counts = np.array([(s.tp, s.tp + s.fp, s.tp + s.fn) for s in volumes[0].slices], np.float64)
    picks = rng.integers(len(counts), size=(_RESAMPLINGS, len(counts)))
    both, ours, theirs = counts[picks].sum(axis=1).T
    return np.asarray(2 * both / (ours + theirs))


def lines(variants: dict[str, list[Volume]]) -> Iterator[str]:
    """Yield the figures of each variant, and the difference of the two."""
    for name, volumes in variants.items():
        scores = [volume.score for volume in volumes]
        mean, hd95, nsd = (
            float(np.nanmean([getattr(score, figure) for score in scores]))
            for figure in ("dice", "hd95_mm", "nsd_mm")
        )
        low, high = np.percentile(resampled(volumes), [2.5, 97.5])
        yield (
            f"  {name}: Dice {mean:.4f} ({low:.3f} to {high:.3f}), HD95 {hd95:.1f} mm, "
            f"NSD {nsd:.3f}, {sum(v.jumps for v in volumes)} jumps, "
            f"{sum(v.wrong for v in volumes)} labels on slices without the organ"
        )
    before, after = variants.values()
    change = np.array([b.score.dice - a.score.dice for a, b in zip(before, after, strict=True)])
    # The same seed draws the same slices for both, so that the difference is paired.
    low, high = np.percentile(resampled(after) - resampled(before), [2.5, 97.5])
    if len(change) > 1:
        low, high = interval(change)
    yield f"  change: {change.mean():+.4f} ({low:+.3f} to {high:+.3f})"


def main(
    output: Annotated[Path, typer.Option(help="Where everything is written.")] = PROJECT
    / "volume-output",
    phantoms: Annotated[int, typer.Option(help="Number of phantom volumes.")] = 20,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="As for salip-ray label.")
    ] = None,
) -> None:
    """Label volumes with and without consistency, and score them in 3-D."""
    sets: list[tuple[str, str, Path]] = []
    if phantoms:
        draw_phantoms(output / "phantoms", phantoms)
        sets.append((f"{phantoms} phantoms", "axial", output / "phantoms"))
    if (real_data() / "brain_mri").is_dir():
        copy_real(output / "real")
        axes = ("axial", "coronal", "sagittal")
        sets += [(f"real volume, {axis}", axis, output / "real") for axis in axes]
    for title, axis, inputs in sets:
        figures = {
            name: measure(
                inputs,
                output / f"{inputs.name}-{axis}-{name.replace(' ', '-')}",
                [f"image.axis={axis}", f"volumes.consistent={value}", *(assignments or ())],
            )
            for name, value in _VARIANTS.items()
        }
        print(title, *lines(figures), sep="\n")


if __name__ == "__main__":
    typer.run(main)
