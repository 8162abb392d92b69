"""``salip-ray demo``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as counting
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salip_ray.cli.files import require_folder
from salip_ray.cli.options import Quiet, repeatable
from salip_ray.errors import ConfigError
from salip_ray.wording import counted

if TYPE_CHECKING:
    from salip_ray.schema import Image

#: Kind of phantom -> the task that labels it, and what the images are in words.
TASKS = {
    "chest_xray": ("chest", "chest X-ray phantoms"),
    "brain_mri": ("head", "head MR phantoms"),
    "fetal_ultrasound": ("fetal_head", "fetal ultrasound phantoms"),
}

#: Class of a task -> structures of phantoms, if they have another name.
_STRUCTURES = {"head": "head outline"}


def demo(
    images: Annotated[int, typer.Option(min=1, help="Images per kind.")] = 20,
    output: Annotated[
        Path, typer.Option(help="Folder for images, labels, scores and report.")
    ] = Path("demo-output"),
    kind: Annotated[
        list[str] | None,
        repeatable(metavar="KIND", help=f"Only this kind: {', '.join(TASKS)}."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Draw phantoms, label them with the bundled models, and score and draw the labels.

    Phantoms are procedural test images with known anatomy: the first that show all classes of their
    task. The models were neither trained nor tuned on the phantoms drawn here. If the demo is
    stopped, run the same command again to resume.

    Example: salip-ray demo --images 5 --kind chest_xray
    """
    kinds = list(dict.fromkeys(kind or TASKS))
    if unknown := [name for name in kinds if name not in TASKS]:
        raise ConfigError(f"--kind {unknown[0]!r} must be one of {', '.join(TASKS)}")
    require_folder("--output", output)
    from salip_ray.cli.studies import Study, run_studies
    from salip_ray.config import MODES, load_config

    for name in kinds:
        _check_number(output, TASKS[name][0], images)
    studies = []
    for name in kinds:
        task, subtitle = TASKS[name]
        phantoms = output / "phantoms" / task
        config = load_config(task, overrides=[f"run.modes=[{', '.join(MODES)}]"])
        organs = [spec.label for spec in config.task.classes]
        draw_phantoms(name, images, phantoms, classes=organs, complete=True)
        studies.append(
            Study(
                config=config,
                images=phantoms / "images",
                references=phantoms / "masks",
                output=output / task,
                subtitle=subtitle,
            )
        )
    run_studies(studies, output, heading="SAM proposes, CLIP retrieves, SAM refines", quiet=quiet)
    from salip_ray.cli.report import write_report
    from salip_ray.output.layout import EVALUATION, REPORT
    from salip_ray.report.build import make_report

    write_report(str(output), output / REPORT, make_report(str(output)).encode())
    outputs = [f"{output / study.output.name}/" for study in studies]
    typer.echo(
        f"labels: {', '.join(outputs)}\nscores: {output / EVALUATION}\n"
        f"picture: {output / 'overview.png'}\nreport: {output / REPORT}"
    )


def _check_number(output: Path, task: str, images: int) -> None:
    """Refuse a demo of another number of images before a phantom is drawn into it."""
    from salip_ray.output.layout import RUN

    earlier = len(list((output / "phantoms" / task / "images").glob("*.png")))
    if (output / task / RUN).is_file() and earlier not in (0, images):
        raise ConfigError(
            f"{output} holds a demo of {counted(earlier, 'image')} per kind: give --images "
            f"{earlier}, or another --output"
        )


def draw_phantoms(
    kind: str,
    count: int,
    folder: Path,
    *,
    classes: Sequence[str] = (),
    bank: str = "test",
    first: int = 0,
    complete: bool = False,
) -> None:
    """Write ``count`` phantoms of a bank, starting at ``first``, to ``images/`` and ``masks/``.

    All files are PNGs. A mask is a palette image of class ids: 1 for the first of ``classes``, and
    so on; by default the kind's organ is the only class. Where two overlap, the later one counts.
    With ``complete``, phantoms that lack a class are skipped. Files that already have the right
    content are not touched.

    Raises:
        ConfigError: the folder holds more phantoms, from an earlier demo.
    """
    import numpy as np

    from salip_ray.datasets.exports import palette
    from salip_ray.models.bundled.phantoms import TARGETS, make_phantom

    labels = list(classes) or [TARGETS[kind]]
    phantoms = (make_phantom(kind, index, bank=bank) for index in counting(first))
    structures = [_STRUCTURES.get(label, label) for label in labels]
    shown = (p for p in phantoms if not complete or all(p.mask(name).any() for name in structures))
    drawn = {f"{kind}-{phantom.index:04d}.png": phantom for phantom in islice(shown, count)}
    if more := {path.name for path in (folder / "images").glob("*.png")} - drawn.keys():
        raise ConfigError(
            f"{folder} holds {counted(len(more), 'image')} more than --images {count}: "
            "give the same number as before, or another --output"
        )
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, phantom in drawn.items():
        mask = np.zeros(phantom.image.shape[:2], np.uint8)
        for class_id, structure in enumerate(structures, start=1):
            mask[phantom.mask(structure)] = class_id
        # The image is written last, so that no image lacks its mask.
        _write(folder / "masks" / name, palette.encode(mask))
        _write(folder / "images" / name, _rgb_png(phantom.image))


def _rgb_png(image: Image) -> bytes:
    import io

    from PIL import Image as Pil

    buffer = io.BytesIO()
    Pil.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        path.write_bytes(data)
