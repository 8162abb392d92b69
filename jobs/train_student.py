"""Train a small network on pseudo-labels with Ray Train, and score it next to its teacher.

    python jobs/train_student.py LABELS OUTPUT --test TEST_LABELS --references MASKS

LABELS is an output of ``salip-ray label``. TEST_LABELS is another one, of images that the student
never sees, with MASKS, a folder of them or an index.csv; the two options may be given again, in
pairs. On a cluster:

    ray job submit --working-dir . -- python jobs/train_student.py s3://out/labels s3://out/student

Run the same command again to resume after the last complete epoch. Exits with 1 if the
training failed and with 2 if an argument or an input is wrong.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from salip_ray.cli.options import Manifest, OutputOption, storage_option, storage_options
from salip_ray.errors import ConfigError, JobError, SalipError
from salip_ray.sources.locations import normalise
from salip_ray.student.options import Network, StudentOptions

if TYPE_CHECKING:
    from salip_ray.output.reader import LabelOutput
    from salip_ray.output.store import Store
    from salip_ray.sources.references import References

_USUAL = StudentOptions()


def main(
    labels: Annotated[str, typer.Argument(help="Output of salip-ray label; local or a URI.")],
    output: Annotated[str, typer.Argument(help="New or empty location, or one to resume.")],
    test: Annotated[
        list[str] | None,
        typer.Option(metavar="LABELS", help="Score on the images of this output, too."),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(metavar="MASKS", help="Their reference masks: a folder or index.csv."),
    ] = None,
    network: Annotated[
        Network, typer.Option(help="sam: the bundled SAM's encoder and a small decoder.")
    ] = _USUAL.network,
    size: Annotated[int, typer.Option(help="Long side of the net's pictures.")] = _USUAL.size,
    width: Annotated[int, typer.Option(help="Channels of its finest level.")] = _USUAL.width,
    epochs: int = _USUAL.epochs,
    batch_size: Annotated[int, typer.Option(help="Images a step and worker.")] = _USUAL.batch_size,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = _USUAL.rate,
    seed: int = _USUAL.seed,
    val: Annotated[float, typer.Option(help="Share that chooses the epoch.")] = _USUAL.val_share,
    group_by: Annotated[
        str, typer.Option(help="Kept together: image, folder, or an expression on the URI.")
    ] = _USUAL.group_by,
    min_confidence: float = _USUAL.min_confidence,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="Use only what people accepted or corrected.")
    ] = False,
    confidence_power: Annotated[
        float, typer.Option(help="Weight images by confidence ** this; 0: equally.")
    ] = _USUAL.confidence_power,
    ignore_disagreement: Annotated[
        bool, typer.Option(help="Ignore pixels in which proposal and mask differ.")
    ] = _USUAL.ignore_disagreement,
    workers: Annotated[int, typer.Option(help="One GPU each, if available.")] = _USUAL.workers,
    loaders: Annotated[int, typer.Option(help="Reading processes per worker.")] = _USUAL.loaders,
    surfaces: Annotated[bool, typer.Option(help="Score HD95 and NSD, too.")] = True,
    images_root: Annotated[
        str | None, typer.Option(help="Where the images of LABELS have moved.")
    ] = None,
    manifest: Manifest = None,
    labels_option: Annotated[list[str] | None, storage_option("LABELS")] = None,
    image_option: Annotated[list[str] | None, storage_option("the images")] = None,
    test_option: Annotated[list[str] | None, storage_option("every TEST_LABELS")] = None,
    reference_option: Annotated[list[str] | None, storage_option("all MASKS")] = None,
    output_option: OutputOption = None,
) -> None:
    """Train a student on LABELS and write it to OUTPUT."""
    tests, masks = test or [], references or []
    if len(tests) != len(masks):
        raise ConfigError(
            f"every --test needs its --references, found {len(tests)} and {len(masks)} of them"
        )
    options = StudentOptions(
        network=network,
        size=size,
        width=width,
        epochs=epochs,
        batch_size=batch_size,
        rate=rate,
        seed=seed,
        val_share=val,
        group_by=group_by,
        min_confidence=min_confidence,
        confidence_power=confidence_power,
        ignore_disagreement=ignore_disagreement,
        workers=workers,
        loaders=loaders,
    )
    from salip_ray.datasets.pseudo_labels import PseudoLabels
    from salip_ray.output.layout import STUDENT_WEIGHTS
    from salip_ray.output.reader import LabelOutput
    from salip_ray.sources.references import References
    from salip_ray.student.scoring import require_unseen
    from salip_ray.student.trainer import train_student

    console = Console()

    def report(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    image_options = storage_options("image", image_option)
    test_options = storage_options("test", test_option)
    reference_options = storage_options("reference", reference_option)
    # Opened and checked before the training, so that a mistake does not cost one.
    opened = [
        (LabelOutput.open(normalise(where), test_options), References.open(mask, reference_options))
        for where, mask in zip(tests, masks, strict=True)
    ]
    teacher = PseudoLabels(
        normalise(labels),
        min_confidence=min_confidence,
        reviewed=reviewed,
        ignore_disagreement=ignore_disagreement,
        images_root=images_root,
        storage_options=storage_options("labels", labels_option),
        image_options=image_options,
        manifest=manifest,
    )
    learnt = {entry.image_id for entry in teacher.entries}
    for test_labels, test_references in opened:
        require_unseen(test_labels, test_references, learnt)
    store = train_student(
        teacher,
        output,
        options,
        storage_options=storage_options("output", output_option),
        report=report,
    )
    weights = store.path_of(STUDENT_WEIGHTS)
    report(f"student: {weights}; label with it: propose.model=student (docs/train.md)")
    if opened:
        _score(store, opened, image_options, surfaces, console)


def _score(
    store: Store,
    tests: list[tuple[LabelOutput, References]],
    image_options: dict[str, Any],
    surfaces: bool,
    console: Console,
) -> None:
    from salip_ray.evaluation import as_json, nnunet_summary
    from salip_ray.output.layout import EVALUATION, EVALUATION_NNUNET, STUDENT_SCORES
    from salip_ray.output.lease import held
    from salip_ray.report.tables import comparison_table, summary_table
    from salip_ray.student.output import load_student, record_scores, trained_images
    from salip_ray.student.scoring import METHOD, comparison, score_student

    student, trained_on = load_student(store), trained_images(store)
    results: dict[str, Any] = {}
    for number, (labels, references) in enumerate(tests):
        name = labels.uri.rstrip("/").rpartition("/")[2]
        name = name if name not in results else f"{name}-{number}"
        evaluation = score_student(
            student,
            labels,
            references,
            trained_on=trained_on,
            image_options=image_options,
            surfaces=surfaces,
        )
        summary = nnunet_summary(evaluation, student.class_ids, method=METHOD)
        results[name] = comparison(evaluation)
        with held(store):
            store.write(f"{STUDENT_SCORES}/{name}/{EVALUATION}", as_json(evaluation).encode())
            store.write(f"{STUDENT_SCORES}/{name}/{EVALUATION_NNUNET}", summary.encode())
            record_scores(store, results)
        console.print(summary_table(evaluation))
    console.print(comparison_table(results))


if __name__ == "__main__":
    try:
        typer.run(main)
    except SalipError as error:
        print(f"train_student: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, JobError) else 2)
