"""The runs that a consensus is made of: open them, compare them, and read their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from salip_ray.config import Config, ImageConfig, PrivacyConfig, RunConfig, TaskConfig
from salip_ray.consensus.manifests import RowNumbers, replaced, row_numbers, united
from salip_ray.errors import ConfigError, InputError, OutputError
from salip_ray.output.layout import DECISIONS, SEAL, SHARDS, shard_file
from salip_ray.output.manifest import Manifest
from salip_ray.output.masks import is_sound
from salip_ray.output.reader import LabelOutput, RowCache
from salip_ray.output.seal import read_seal, root_digest
from salip_ray.schema import MANIFEST_SCHEMA
from salip_ray.wording import counted

_CACHED_ROW_GROUPS = 2
_COLUMNS = (
    *("image_id", "height", "width", "status", "outcomes", "error", "spacing"),
    *(f"masks.list.element.{name}" for name in ("method", "label", "rle", "clip_score")),
    "masks.list.element.presence",
)
#: Settings with which the same file and index are other pixels.
_PIXELS = ("axis", "volume_index")


@dataclass(frozen=True)
class SourceRun:
    """A finished output of ``label``.

    Attributes:
        output: the output.
        digest: its root digest, which covers every byte of its labels.
    """

    output: LabelOutput
    digest: str
    _cache: RowCache = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, output: LabelOutput) -> SourceRun:
        """Return an opened output as a run.

        Raises:
            OutputError: it is not finished, or was made without the mode ``cascade``.
        """
        seal = output.read(SEAL)
        try:
            sealed = read_seal(seal)
        except ValueError:
            sealed = None
        if seal is None or sealed is None:
            raise OutputError(
                f"run {output.uri} is not finished: run its label command again to resume it"
            )
        if "cascade" not in output.methods:
            raise OutputError(f"run {output.uri} has no labels of the mode cascade")
        return cls(output, root_digest(seal))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes."""
        return tuple(spec.label for spec in self.output.classes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def row(self, shard: int, index: int, image_id: str) -> dict[str, Any]:
        """Return the row of an image.

        Raises:
            OutputError: it cannot be read, is of another image, or has a damaged mask.
        """
        name = shard_file(SHARDS, shard).removeprefix(f"{SHARDS}/")
        row = self.output.row(name, index, _COLUMNS, self._cache)
        while len(self._cache) > _CACHED_ROW_GROUPS:
            del self._cache[next(iter(self._cache))]
        problem = ""
        if row["image_id"] != image_id:
            problem = "is not the one of its manifest"
        elif any(
            cell["rle"]["size"] != [row["height"], row["width"]] or not is_sound(cell["rle"])
            for cell in row["masks"] or ()
            if cell["method"] == "cascade"
        ):
            problem = "has a mask that is none of its image"
        if problem:
            raise OutputError(
                f"run {self.output.uri} is damaged: row {index} of {name} {problem}. "
                "salip-ray verify names what is wrong"
            )
        return row


@dataclass(frozen=True)
class Sources:
    """The runs of a consensus, and the images that any of them has.

    Attributes:
        runs: in the order in which they are numbered, from 1.
        manifest: their images, in shards of the first run's size.
        numbers: where each image is in each run, in the order of the manifest.
        common: number of images that at least two runs have.
        config: the configuration that the consensus records.
        changed: whether the file of each image changed between the runs, in the order of the
            manifest.
    """

    runs: tuple[SourceRun, ...]
    manifest: Manifest
    numbers: tuple[RowNumbers, ...]
    common: int
    config: Config
    changed: npt.NDArray[np.bool_]

    @classmethod
    def open(
        cls,
        locations: Sequence[str],
        storage_options: Mapping[str, Any] | None = None,
        manifests: Sequence[str] = (),
    ) -> Sources:
        """Open runs, and match their images by id.

        Args:
            locations: of the runs.
            storage_options: fsspec options of the runs and manifests.
            manifests: of the runs whose manifest is not in the output, in their order.

        Raises:
            ConfigError: there are fewer than two, one is given twice, they cut volumes in different
                ways, or no two have a class in common.
            InputError: no two have an image in common.
            OutputError: one is not a finished output.
        """
        if len(locations) < 2:
            raise ConfigError("a consensus needs two runs or more, and then its output")
        runs = tuple(map(SourceRun.of, _opened(locations, storage_options, manifests)))
        _refuse_repeated(runs)
        _refuse_other_pixels(runs)
        tables = [run.output.manifest(MANIFEST_SCHEMA.names) for run in runs]
        config = _config(runs)
        manifest, common = united(tables, config.run.rows_per_shard)
        if not common:
            raise InputError(
                f"the runs have no image in common: {runs[0].output.uri} and the others labelled "
                "files of other locations. Label the same input with each recipe"
            )
        ids = manifest.table["image_id"]
        changed = replaced(tables, ids)
        numbers = tuple(row_numbers(table, ids) for table in tables)
        return cls(runs, manifest, numbers, common, config, changed)

    def describe(self) -> dict[str, Any]:
        """Return what the consensus is made of, for its fingerprint."""
        runs = {
            str(number): {"uri": run.output.uri, "digest": run.digest}
            for number, run in enumerate(self.runs, start=1)
        }
        return {"rule": "majority", "runs": runs}

    def notes(self) -> list[str]:
        """Return lines on what the runs do not share."""
        notes = []
        if single := self.manifest.n_images - self.common:
            verb = "is in one run only and becomes an error row"
            verbs = "are in one run only and become error rows"
            notes.append(f"{counted(single, 'image')} {verb if single == 1 else verbs}")
        if other := int(self.changed.sum()):
            verb = "changed between the runs and becomes an error row"
            verbs = "changed between the runs and become error rows"
            notes.append(f"{counted(other, 'file')} {verb if other == 1 else verbs}")
        for label in (spec.label for spec in self.config.task.classes):
            having = [n for n, run in enumerate(self.runs, start=1) if label in run.labels]
            if len(having) == 1:
                notes.append(f"class {label!r} is in run {having[0]} only, so it stays empty")
        for run in self.runs:
            inside = {item["digest"] for item in _made_of(run)}
            notes += [
                f"run {run.output.uri} is a consensus of {other.output.uri}, which so has two votes"
                for other in self.runs
                if other.digest in inside
            ]
        notes += [
            f"run {run.output.uri} has decisions of reviewers; the consensus uses its labels as "
            "they were made"
            for run in self.runs
            if run.output.store.exists(DECISIONS)
        ]
        return notes


def _made_of(run: SourceRun) -> Sequence[Mapping[str, Any]]:
    """Return uri and digest of each run that a run was made of; none if it is no consensus."""
    made_by = run.output.run["fingerprint"].get("consensus") or {}
    return tuple((made_by.get("runs") or {}).values())


def _opened(
    locations: Sequence[str], options: Mapping[str, Any] | None, manifests: Sequence[str]
) -> list[LabelOutput]:
    """Open outputs, each with its manifest if that is stored elsewhere."""
    outputs = [LabelOutput.open(location, options) for location in locations]
    without = [n for n, output in enumerate(outputs) if output.run.get("manifest_elsewhere")]
    if len(without) != len(manifests):
        verb = "keeps its manifest" if len(without) == 1 else "keep their manifests"
        raise ConfigError(
            f"{counted(len(without), 'run')} {verb} elsewhere, but {len(manifests)} "
            "--run-manifest given: give one for each of those runs, in their order"
        )
    for number, manifest in zip(without, manifests, strict=True):
        outputs[number] = LabelOutput.open(locations[number], options, manifest)
    return outputs


def _refuse_repeated(runs: Sequence[SourceRun]) -> None:
    known: dict[str, str] = {}
    for run in runs:
        if run.digest in known:
            raise ConfigError(
                f"{run.output.uri} and {known[run.digest]} are the same run: a copy adds no opinion"
            )
        known[run.digest] = run.output.uri


def _refuse_other_pixels(runs: Sequence[SourceRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for name in _PIXELS:
            before, now = (getattr(r.output.image_config, name) for r in (first, run))
            if before != now:
                raise ConfigError(
                    f"image.{name} is {before} in {first.output.uri}, but {now} in "
                    f"{run.output.uri}: their slices are other images"
                )


def _config(runs: Sequence[SourceRun]) -> Config:
    """Return the configuration that a consensus records: the first run's, with all classes."""
    first = runs[0].output
    prompts: dict[str, tuple[str, ...]] = {}
    for run in runs:
        for spec in run.output.classes:
            prompts.setdefault(spec.label, spec.sentences)
    if not any(sum(label in run.labels for run in runs) > 1 for label in prompts):
        names = "; ".join(", ".join(run.labels) for run in runs)
        raise ConfigError(f"no two runs have a class in common: they label {names}")
    return Config(
        task=TaskConfig(
            name=str(first.recipe["task"]["name"]),
            prompts=prompts,
            tuned_on=tuple(sorted(frozenset().union(*(run.output.tuned_on for run in runs)))),
        ),
        image=ImageConfig.model_validate(first.recipe["image"]),
        privacy=_strictest([run.output.privacy for run in runs]),
        run=RunConfig(
            modes=("cascade",), rows_per_shard=int(first.recipe["run"]["rows_per_shard"])
        ),
    )


def _strictest(privacies: Sequence[PrivacyConfig]) -> PrivacyConfig:
    """Return the configuration that hides every name that one of them hides."""
    hiding = [privacy.hash_uris for privacy in privacies]
    keep_uids = all(privacy.keep_uids for privacy in privacies)
    hide = True in hiding or ("auto" if "auto" in hiding else False)
    return PrivacyConfig.model_validate({"hash_uris": hide, "keep_uids": keep_uids})
