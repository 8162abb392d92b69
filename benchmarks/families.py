"""Proposals of each SAM family against its official generator: ``python -m benchmarks.families``.

Both have the same random weights at the real size (they cost what trained ones cost), the same
image of 1024 pixels and the same grid of points. The thresholds are set so that about a third of
the masks pass that of predicted IoU and few that of stability: masks of random weights are noise,
whose run-length codes would take longer than those of organs. Ours and the official generator run
in turns, on one thread; the figures are seconds of CPU, which a busy machine changes little.

The official packages are not dependencies of the project:
``pip install --no-deps segment-anything-hq==0.3 mobilesam-mirror==1.0.0``, and
``pip install sam2==1.1.0 transformers``. A family whose package is missing is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks.measure import machine
from benchmarks.sam2_names import to_transformers
from salip_ray.cascade.proposer import SamProposer
from salip_ray.cascade.sam2 import Sam2Proposer
from salip_ray.cascade.sam_hq import SamHq, SamHqProposer
from salip_ray.config import Config, load_config
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.models.sam import mobile_sam, sam_hq
from salip_ray.models.sam.encoder import quicken_blocks
from salip_ray.models.sam.load import quicken
from salip_ray.models.sam.sam2 import Sam2
from salip_ray.schema import Image
from salip_ray.wording import counted

RESULTS = Path(__file__).resolve().parent / "results" / "families.md"
_SIDE = 1024
_SETTINGS = (
    *("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh"),
    *("box_nms_thresh", "min_mask_region_area"),
)


@dataclass(frozen=True)
class Family:
    """A family: its official model, its official generator, and ours with the same weights."""

    name: str
    package: str
    official: Callable[[], Any]
    generator: str
    ours: Callable[[Any, Config], SamProposer]

    def make_generator(self, official: Any, config: Config) -> Any:
        """Return the official generator with the settings of ours."""
        module, _, name = self.generator.rpartition(".")
        settings = {name: getattr(config.propose, name) for name in _SETTINGS}
        return getattr(importlib.import_module(module), name)(official, **settings)


def official_v1(package: str, model: str) -> Any:
    """Return a model of a package with the interface of the official SAM v1."""
    return importlib.import_module(package).sam_model_registry[model]()


def official_sam2() -> Any:
    """Return the official SAM 2.1 tiny."""
    from sam2.build_sam import build_sam2

    config = "configs/sam2.1/sam2.1_hiera_t.yaml"
    return build_sam2(config, device="cpu", apply_postprocessing=False)


def ours_sam(official: Any, config: Config) -> SamProposer:
    """Return our SAM v1 with the weights of the official one."""
    from segment_anything import sam_model_registry

    sam = sam_model_registry["vit_b"]()
    sam.load_state_dict(official.state_dict())
    quicken(sam.eval().requires_grad_(False))
    return SamProposer(sam, config)


def ours_hq(official: Any, config: Config) -> SamProposer:
    """Return our SAM-HQ with the weights of the official one."""
    state = official.state_dict()
    sam = sam_hq.build(state, sam_hq.Shape(12, (2, 5, 8, 11)))
    sam.load_state_dict(state)
    quicken_blocks(sam.image_encoder)
    proposer = SamHqProposer.__new__(SamHqProposer)  # without a checkpoint
    proposer.hq = SamHq(sam.eval().requires_grad_(False))
    SamProposer.__init__(proposer, sam, config)
    return proposer


def ours_mobile(official: Any, config: Config) -> SamProposer:
    """Return our MobileSAM with the weights of the official one."""
    sam = mobile_sam.build_mobile_sam()
    sam.load_state_dict(mobile_sam.to_timm(official.state_dict()))
    quicken(sam.eval().requires_grad_(False))
    return SamProposer(sam, config)


def ours_sam2(official: Any, config: Config) -> SamProposer:
    """Return our SAM 2.1 tiny with the weights of the official one."""
    from transformers import Sam2Config, Sam2Model

    model = Sam2Model(Sam2Config())
    model.load_state_dict(to_transformers(official.state_dict()))
    proposer = Sam2Proposer.__new__(Sam2Proposer)  # without a checkpoint
    proposer.sam2 = Sam2(model.eval().requires_grad_(False))
    SamProposer.__init__(proposer, model, config)
    return proposer


FAMILIES = (
    *(
        Family(
            name,
            package,
            partial(official_v1, package, model),
            f"{package}.SamAutomaticMaskGenerator",
            ours,
        )
        for name, package, model, ours in (
            ("SAM ViT-B", "segment_anything", "vit_b", ours_sam),
            ("SAM-HQ ViT-B", "segment_anything_hq", "vit_b", ours_hq),
            ("MobileSAM", "mobile_sam", "vit_t", ours_mobile),
        )
    ),
    Family(
        "SAM 2.1 tiny",
        "sam2",
        official_sam2,
        "sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator",
        ours_sam2,
    ),
)


def config_of(points: int, min_iou: float, min_stability: float) -> Config:
    propose = {
        "points_per_side": points,
        "points_per_batch": 64,
        "pred_iou_thresh": min_iou,
        "stability_score_thresh": min_stability,
        "box_nms_thresh": 0.7,
        "min_mask_region_area": 0,
    }
    return load_config("lungs", overrides={"propose": propose, "image": {"long_side": _SIDE}})


def make_decisive(decoder: Any) -> None:
    """Scale the last layers, so that predicted IoUs are above 0 and logits far from 0."""
    decoder.iou_prediction_head.layers[-1].bias += 0.5
    for network in (*decoder.output_hypernetworks_mlps, getattr(decoder, "hf_mlp", None)):
        if network is not None:
            network.layers[-1].weight *= 1000
            network.layers[-1].bias *= 1000


def thresholds(family: Family, official: Any, image: Image) -> tuple[float, float]:
    """Return thresholds of predicted IoU and stability that a third, and few masks pass."""
    everything = family.ours(official, config_of(4, 0.0, 0.0)).decode_views(image)[0]
    ious = torch.cat([view.predicted_iou for view in everything])
    stability = torch.cat([view.stability for view in everything]).nan_to_num()
    return float(ious.quantile(0.67)), min(0.99, float(stability.quantile(0.95)))


def measured(image: Image, families: Iterable[Family], points: int, pairs: int) -> Iterator[str]:
    """Yield a line of the table for each family whose package is installed."""
    for family in families:
        if importlib.util.find_spec(family.package) is None:
            yield f"| {family.name} | {family.package} is not installed | | | |"
            continue
        torch.manual_seed(0)
        official = family.official().eval().requires_grad_(False)
        make_decisive(getattr(official, "sam_mask_decoder", None) or official.mask_decoder)
        min_iou, min_stability = thresholds(family, official, image)
        config = config_of(points, min_iou, min_stability)
        proposer = family.ours(official, config)
        generator = family.make_generator(official, config)
        times = [(cpu(proposer, image), cpu(generator.generate, image)) for _ in range(pairs)]
        ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(b / a for a, b in times)
        yield (
            f"| {family.name} | {theirs:.1f} | {ours:.1f} | {points**2 / ours:.1f} | "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
        )


def cpu(work: Callable[[Image], Any], image: Image) -> float:
    """Return the seconds of CPU that a call takes."""
    began = time.process_time()
    work(image)
    return time.process_time() - began


def main(
    points: Annotated[int, typer.Option(help="Points per side of the grid.")] = 16,
    pairs: Annotated[int, typer.Option(help="Number of pairs.")] = 3,
    results: Annotated[Path, typer.Option(help="The table.")] = RESULTS,
    only: Annotated[
        list[str] | None, typer.Option(help="Families to measure; the table keeps other lines.")
    ] = None,
) -> None:
    """Measure all families, and write the table."""
    warnings.simplefilter("ignore")  # of packages of the time of timm 0.9
    torch.set_num_threads(1)
    about, console = machine(torch.device("cpu")), Console()
    image = np.ascontiguousarray(
        make_phantom("chest_xray", 0, bank="test", size=_SIDE).image[:_SIDE, :_SIDE]
    )
    lines = [
        "# Proposals of each family against its official generator",
        "",
        "The same random weights at the real size, one image of 1024 pixels, a grid of "
        f"{points} x {points} points, {counted(pairs, 'pair')} of runs in turns. One thread of "
        f"{about['cpu']}, at a load of {about['load_before']:.0f} on {about['cores']} cores; a job "
        "runs an actor per core. Ratio: seconds of CPU of the official generator over ours, "
        "median (least to most). "
        f"`python -m benchmarks.families --points {points} --pairs {pairs}`.",
        "",
        "| family | official, s | ours, s | ours, points per second | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    chosen = [family for family in FAMILIES if not only or family.name in only]
    earlier = results.read_text().splitlines() if only and results.exists() else []
    table = {line.split(" | ")[0]: line for line in earlier if line.startswith("| ")}
    for line in measured(image, chosen, points, pairs):
        console.print(line, highlight=False, soft_wrap=True)
        table[line.split(" | ")[0]] = line
    lines += [line for family in FAMILIES if (line := table.get(f"| {family.name}"))]
    results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    typer.run(main)
