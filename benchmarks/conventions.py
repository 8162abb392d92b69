"""The effect of each of SaLIP's conventions on Dice: ``python -m benchmarks.conventions``.

The published code's recipe with the bundled models, in all five visual prompts, against the same
recipe with one convention replaced by ours, on the same images. Images are phantoms of the test
bank, drawn at 320 pixels, and the real images (where they are at hand; see realdata.py). Dice is
that of the label at the size of the image. Of each image the candidates and CLIP's features are
computed once for all recipes that share them. Scores of an image are saved as soon as they are
known, so that a second run resumes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console

from benchmarks.intervals import Column
from benchmarks.realdata import real_data
from salip_ray.cascade.compose import compose
from salip_ray.cascade.geometry import make_working
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.ranking import Ranker
from salip_ray.cascade.refiner import SamRefiner
from salip_ray.cascade.retriever import ClipRetriever
from salip_ray.config import Config, load_config
from salip_ray.evaluation import dice
from salip_ray.models.bundled.phantoms import TARGETS, make_phantom
from salip_ray.models.clip.load import load_clip
from salip_ray.models.sam.load import load_sam
from salip_ray.schema import Candidate, Image, Mask
from salip_ray.sources.decode import decode, open_stack

PROJECT = Path(__file__).resolve().parents[1]
MODES = ("crops", "crop_expand", "bbox", "reverse_box_mask", "contour")
KINDS = {"lungs": "chest_xray", "fetal_head": "fetal_ultrasound", "brain": "brain_mri"}
_PHANTOM_SIZE = 320
_MIN_BRAIN_SHARE = 0.03
#: The published settings with the bundled models.
PUBLISHED_RECIPE = (
    *("sam.model=bundled", "sam.checkpoint=null", "clip.model=bundled", "clip.pretrained=null"),
    *("propose.points_per_side=16", "propose.points_per_batch=128"),
    *("propose.pred_iou_thresh=0.5", "propose.stability_score_thresh=0.5"),
)
FAITHFUL = "faithful"
#: The published code's second normalisation of a slice, which salip-3d leaves out.
TRUNCATED = "greys truncated for the box prompt"


@dataclass(frozen=True)
class Deviation:
    """One convention of ours in the place of the published one.

    Attributes:
        overrides: what makes it.
        modes: visual prompts that it can change.
        tasks: tasks that it can change.
    """

    overrides: tuple[str, ...]
    modes: tuple[str, ...] = MODES
    tasks: tuple[str, ...] = tuple(KINDS)


DEVIATIONS: Mapping[str, Deviation] = {
    "original aspect": Deviation(("image.aspect=keep",), tasks=("lungs", "fetal_head")),
    "antialiased": Deviation(("image.resample=antialiased",)),
    "RGB": Deviation(("image.channels=rgb",), tasks=("lungs",)),
    "greys by percentiles of the volume": Deviation(("image.depth=percentile",), tasks=("brain",)),
    "area limits of the task": Deviation(("propose.min_area=null", "propose.max_area=null")),
    "complete crops": Deviation(("retrieve.box_end=inclusive",), ("crops", "crop_expand")),
    "thinner box": Deviation(("retrieve.box_line=2",), ("bbox",)),
    "outer contours only": Deviation(("retrieve.contours=outer",), ("contour",)),
    "thinner contour": Deviation(("retrieve.contour_line=2",), ("contour",)),
    "neutral grey outside": Deviation(("retrieve.outside=grey",), ("reverse_box_mask",)),
    "picks overlap by half at most": Deviation(("retrieve.max_overlap=0.5",), tasks=("lungs",)),
    "softmax with distractors": Deviation(("retrieve.scoring=softmax",)),
    "masks at the size of the image": Deviation(("refine.resolution=original",)),
    "a box for every part (GT-SAM)": Deviation(("refine.gt_boxes=parts",), ("crops",)),
}


@dataclass(frozen=True)
class Item:
    """An image with its mask; ``load`` draws it by the ``image`` section of a configuration."""

    name: str
    load: Callable[[Config], tuple[Image, Mask]]
    truncated: Callable[[], Image] | None = None


def phantoms(task: str, count: int) -> Iterator[Item]:
    """Yield phantoms of the test bank."""

    def load(index: int) -> tuple[Image, Mask]:
        phantom = make_phantom(KINDS[task], index, bank="test", size=_PHANTOM_SIZE)
        return phantom.image, phantom.mask(TARGETS[KINDS[task]])

    for index in range(count):
        yield Item(f"phantom-{index}", lambda _, index=index: load(index))


def spread(names: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` of the names, evenly spread."""
    chosen = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[index] for index in chosen]


def real_images(task: str, count: int) -> Iterator[Item]:
    """Yield real images, evenly spread; none if they are not at hand."""
    folder = real_data() / KINDS[task] if task != "fetal_head" else real_data() / "fetal_head"
    if not folder.is_dir():
        return
    if task == "brain":
        yield from _brain_slices(folder, count)
        return

    def load(config: Config, image: str, mask: str) -> tuple[Image, Mask]:
        pixels, truth = ((folder / name).read_bytes() for name in (image, mask))
        return decode(pixels, image, config.image), decode(truth, mask, config.image)[..., 0] > 0

    with (folder / "index.csv").open(newline="") as file:
        rows = [(row["image"], row["mask"]) for row in csv.DictReader(file)]
    for image, mask in spread(rows, count):
        yield Item(
            f"real-{Path(image).stem}",
            lambda config, pair=(f"images/{image}", f"masks/{mask}"): load(config, *pair),
        )


def _brain_slices(folder: Path, count: int) -> Iterator[Item]:
    """Yield axial slices of the T1 volume with enough brain."""
    source = folder / "single_subj_T1.nii"
    brain = nibabel.as_closest_canonical(nibabel.load(folder / "brainmask.nii"))
    truth = np.asarray(brain.dataobj) > 0.5
    values = np.asarray(nibabel.as_closest_canonical(nibabel.load(source)).dataobj, np.float64)

    def drawn(volume: npt.NDArray[Any], z: int) -> npt.NDArray[Any]:
        return np.ascontiguousarray(volume[::-1, ::-1, z].T)

    def load(config: Config, z: int) -> tuple[Image, Mask]:
        stack = open_stack(source.read_bytes(), str(source), config.image)
        return stack.picture(z), drawn(truth, z)

    def truncated(z: int) -> Image:
        plane = drawn(values, z)
        grey = (255 * (plane - plane.min()) / (plane.max() - plane.min())).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

    used = [z for z in range(truth.shape[2]) if truth[:, :, z].mean() > _MIN_BRAIN_SHARE]
    for z in spread(used, count):
        yield Item(
            f"real-slice-{z}",
            lambda config, z=z: load(config, z),
            lambda z=z: truncated(z),
        )


def recipes(task: str) -> Iterator[tuple[str, str, Config]]:
    """Yield deviation, mode and configuration of every recipe of a task."""
    preset = "salip-3d" if task == "brain" else "salip-2d"
    everything = ("run.modes=[cascade, gt_sam]", "task.min_confidence=0")
    for mode in MODES:
        base = (*PUBLISHED_RECIPE, *everything, f"retrieve.visual_prompt={mode}")
        yield FAITHFUL, mode, load_config(task, preset=preset, overrides=base)
        for name, deviation in DEVIATIONS.items():
            if task in deviation.tasks and mode in deviation.modes:
                overrides = [*base, *deviation.overrides]
                yield name, mode, load_config(task, preset=preset, overrides=overrides)
        overrides = [*everything, f"retrieve.visual_prompt={mode}"]
        if task == "brain":
            overrides.append("image.axis=axial")
        yield "all of them", mode, load_config(task, preset="paper-bundled", overrides=overrides)


@dataclass
class Shared:
    """What recipes share on one image: proposals by image and ``propose``, and CLIP's features."""

    item: Item
    images: dict[str, tuple[Image, Mask]] = field(default_factory=dict)
    proposals: dict[str, Any] = field(default_factory=dict)
    features: dict[str, torch.Tensor] = field(default_factory=dict)

    def load(self, config: Config) -> tuple[Image, Mask]:
        """Return the image, as the ``image`` section draws it, and its mask."""
        key = config.image.model_dump_json()
        if key not in self.images:
            self.images[key] = self.item.load(config)
        return self.images[key]


class Models:
    """The bundled models and what is made of them."""

    def __init__(self) -> None:
        config = load_config("lungs")
        self.sam, self.clip = load_sam(config.sam), load_clip(config.clip)
        self.rankers: dict[str, Ranker] = {}

    def score(self, config: Config, shared: Shared) -> dict[str, float]:
        """Return the Dice of the cascade and of GT-SAM by a recipe on an image."""
        image, reference = shared.load(config)
        working = make_working(image, config.image)
        size = working.shape[:2]
        proposing = config.propose.model_dump(exclude={"min_area", "max_area"})
        key = json.dumps([config.image.model_dump(), proposing])
        if key not in shared.proposals:
            everything = config.propose.model_copy(update={"min_area": 0.0, "max_area": 1.0})
            proposer = SamProposer(self.sam, config.model_copy(update={"propose": everything}))
            shared.proposals[key] = proposer(working)
        proposals = shared.proposals[key]
        low, high = config.area_limits(*size)
        allowed = [number for number, c in enumerate(proposals.candidates) if low < c.area < high]
        candidates = [proposals.candidates[number] for number in allowed]
        result = {}
        embeddings = {"": proposals.embedding}
        if shared.item.truncated is not None and config.image.depth == "slice_range":
            other = make_working(shared.item.truncated(), config.image)
            embeddings[TRUNCATED] = SamRefiner(self.sam, config).encode(other)
        for name, embedding in embeddings.items():
            made = compose(
                config,
                SamRefiner(self.sam, config),
                candidates=candidates,
                n_proposed=len(candidates),
                embedding=embedding,
                selections=self._select(config, shared, key, working, candidates, allowed),
                working_size=(size[0], size[1]),
                original_size=(image.shape[0], image.shape[1]),
                references={config.task.classes[0].label: reference},
            )
            scores = {mask.method: dice(mask.mask, reference) for mask in made.masks}
            result[name] = scores.get("cascade", 0.0)
            if not name:
                result["gt_sam"] = scores.get("gt_sam", 0.0)
        return result

    def _select(
        self,
        config: Config,
        shared: Shared,
        key: str,
        working: Image,
        candidates: Sequence[Candidate],
        allowed: Sequence[int],
    ) -> Any:
        if not candidates:
            return ()
        drawing = config.retrieve.model_dump(
            include={"visual_prompt", "padding", "expand_px", "box_end", "box_line"}
            | {"contour_line", "contours", "outside"}
        )
        drawn = json.dumps([key, drawing])
        proposed = shared.proposals[key].candidates
        if drawn not in shared.features:
            retriever = ClipRetriever(self.clip, config)
            shared.features[drawn] = retriever.image_features(working, proposed)
        ranking = json.dumps([config.task.model_dump(), config.retrieve.model_dump()])
        if ranking not in self.rankers:
            self.rankers[ranking] = Ranker(self.clip, config)
        return self.rankers[ranking].select(shared.features[drawn][allowed], candidates)


def measure(models: Models, task: str, item: Item) -> dict[str, float]:
    """Return the Dice of every recipe on an image: ``deviation/mode``, ``gt_sam/deviation``."""
    shared, scores = Shared(item), {}
    for name, mode, config in recipes(task):
        if name == "greys by percentiles of the volume" and item.truncated is None:
            continue  # phantoms have the greys that they have
        result = models.score(config, shared)
        scores[f"{name}/{mode}"] = result[""]
        if mode == "crops":
            scores[f"gt_sam/{name}"] = result["gt_sam"]
        if name == FAITHFUL and TRUNCATED in result:
            scores[f"{TRUNCATED}/{mode}"] = result[TRUNCATED]
    return scores


def table(entries: Mapping[str, Mapping[str, float]], title: str) -> list[str]:
    """Return the lines of a table: Dice of the published recipe, and changes by deviations."""
    lines = [f"\n## {title}, n {len(entries)}\n", f"| recipe | {' | '.join(MODES)} |"]
    lines.append("| --- |" + " --- |" * len(MODES))
    names = list(dict.fromkeys(key.partition("/")[0] for e in entries.values() for key in e))
    for name in (each for each in names if each != "gt_sam"):
        cells = []
        for mode in MODES:
            key, base = f"{name}/{mode}", f"{FAITHFUL}/{mode}"
            rows = [entry for entry in entries.values() if key in entry]
            if not rows:
                cells.append("")
                continue
            own, against = (Column([row[k] for row in rows]) for k in (key, base))
            summary = own.summary(against)
            if name == FAITHFUL:
                low, high = summary["interval"]
                cells.append(f"{summary['mean']:.3f} ({low:.3f} to {high:.3f})")
            else:
                low, high = summary["change_interval"]
                cells.append(f"{summary['change']:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    gt_sam = "a box for every part (GT-SAM)"
    pairs = [(e[f"gt_sam/{gt_sam}"], e[f"gt_sam/{FAITHFUL}"]) for e in entries.values()]
    summary = Column([own for own, _ in pairs]).summary(Column([base for _, base in pairs]))
    low, high = summary["change_interval"]
    lines.append(
        f"\nGT-SAM with a box for every part {summary['mean']:.3f}, change "
        f"{summary['change']:+.3f} ({low:+.3f} to {high:+.3f})."
    )
    return lines


def main(
    output: Annotated[Path, typer.Option(help="Where scores are saved.")] = PROJECT
    / "conventions-output",
    results: Annotated[Path, typer.Option(help="The table.")] = PROJECT
    / "benchmarks"
    / "results"
    / "conventions.md",
    count: Annotated[int, typer.Option("--images", min=2, help="Of each set.")] = 20,
) -> None:
    """Measure all recipes and write the tables."""
    torch.set_num_threads(1)
    models, console = Models(), Console()
    lines = [
        "# Effect of SaLIP's conventions on Dice",
        "",
        "First row: the published code's conventions with the bundled models. Other rows: change "
        "of the mean Dice if one convention is replaced by ours. In brackets: 95 % bootstrap "
        "intervals over images, of the paired difference. `python -m benchmarks.conventions`.",
    ]
    for task in KINDS:
        for title, items in (
            ("phantoms", phantoms(task, count)),
            ("real images", real_images(task, count)),
        ):
            entries: dict[str, dict[str, float]] = {}
            for item in items:
                file = output / task / f"{item.name}.json"
                if not file.is_file():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(measure(models, task, item)))
                entries[item.name] = json.loads(file.read_text())
                console.print(f"{task} {item.name}", highlight=False)
            if entries:
                lines += table(entries, f"{task}: {title}")
    results.write_text("\n".join(lines) + "\n")
    console.print("\n".join(lines), highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
