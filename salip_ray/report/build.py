"""Make the report of an output, or of several, as the text of an HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from salip_ray.errors import InputError, OutputError
from salip_ray.evaluation.outputs import evaluate_output
from salip_ray.output.layout import EVALUATION, RUN
from salip_ray.output.reader import LabelOutput
from salip_ray.output.store import Store
from salip_ray.report.page import make_section, render
from salip_ray.report.scores import Scores
from salip_ray.sources.locations import join, normalise, public_uri
from salip_ray.sources.references import References


def find_runs(
    output: str,
    storage_options: Mapping[str, Any] | None = None,
    manifest: str | None = None,
) -> tuple[list[LabelOutput], bytes | None]:
    """Return the run at a location, or the runs in its folders, as the demo writes them.

    Args:
        output: the location.
        storage_options: fsspec options.
        manifest: location of the manifest of a single run, if it is not in its output.

    Returns:
        The runs in the order of their creation, and the content of ``evaluation.json`` if a folder
        of runs has one.

    Raises:
        OutputError: the location holds neither a run nor folders with runs.
    """
    store = Store(output, storage_options)
    entries = store.names()
    if RUN in entries or not entries:
        return [LabelOutput.open(output, storage_options, manifest)], None
    names = [name for name in entries if store.exists(f"{name}/{RUN}")]
    if not names:
        raise OutputError(
            f"{store} holds no {RUN}, and neither does a folder in it: "
            "give the output of salip-ray label"
        )
    runs = [LabelOutput.open(join(normalise(output), name), storage_options) for name in names]
    runs.sort(key=lambda labels: (str(labels.run.get("created")), labels.uri))
    return runs, store.read(EVALUATION)


def make_report(
    output: str,
    *,
    output_options: Mapping[str, Any] | None = None,
    input_options: Mapping[str, Any] | None = None,
    reference: str | None = None,
    reference_options: Mapping[str, Any] | None = None,
    manifest: str | None = None,
    seed: int = 0,
    per_group: int = 12,
) -> str:
    """Return a report of the committed rows at a location, as the text of an HTML file.

    Args:
        output: an output of ``salip-ray label``, complete or not, or a folder of outputs.
        output_options: fsspec options of the output.
        input_options: fsspec options of the labelled images.
        reference: reference masks to score every label against. By default the report shows the
            ``evaluation.json`` in the output, and draws the references of the run.
        reference_options: fsspec options of the references.
        manifest: location of the manifest, if it is not in the output.
        seed: seed of the random samples.
        per_group: images in each group of the gallery.

    Raises:
        OutputError: there is no such output.
        InputError: the reference is missing, unreadable, or has another size than its image.
    """
    runs, shared = find_runs(output, output_options, manifest)
    common = Scores.parse(shared, join(public_uri(output), EVALUATION)) if shared else None
    sections = []
    for labels in runs:
        scores, references = common, _references(labels, reference, reference_options)
        if reference is not None and references is not None:
            scores = Scores.of(evaluate_output(labels, references))
        sections.append(
            make_section(
                labels,
                input_options=input_options,
                references=references,
                scores=scores,
                seed=seed,
                per_group=per_group,
            )
        )
    heading = sections[0].title if len(sections) == 1 else public_uri(output).rpartition("/")[2]
    return render(sections, heading)


def _references(
    labels: LabelOutput, given: str | None, options: Mapping[str, Any] | None
) -> References | None:
    """Return the given references, else those of the run if they still exist."""
    images = labels.manifest(["uri"])["uri"].unique().to_pylist()
    if given is not None:
        return References.open(given, options).among(images)
    location: Sequence[str] | str | None = labels.run["fingerprint"].get("references")
    if not isinstance(location, str):
        return None
    try:
        return References.open(location, options).among(images)
    except (InputError, OSError):
        return None  # moved or out of reach: the report is useful without them
