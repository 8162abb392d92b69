"""Read the output of ``label``, from local disk or any store that fsspec knows.

A shard counts only if it is committed. Its Parquet file is written last, so a shard without one
does not exist yet, whatever other files it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import ClassSpec, ImageConfig, Mode, PrivacyConfig, TaskConfig
from salip_ray.errors import NoJobError, OutputError
from salip_ray.output.calibration import Calibrations
from salip_ray.output.commit import committed_shards
from salip_ray.output.layout import MANIFEST, RUN, SHARDS
from salip_ray.output.run_record import read_run
from salip_ray.output.store import Store
from salip_ray.schema import ImageRef
from salip_ray.sources.locations import image_id
from salip_ray.sources.privacy import is_pseudonym, pseudonym
from salip_ray.wording import counted

_METHODS_OF_MODE: dict[Mode, tuple[str, ...]] = {
    "cascade": ("cascade",),
    "unprompted": ("unprompted_confident", "unprompted_largest"),
    "gt_sam": ("gt_sam",),
}
#: Row groups that were read, by shard and index of their first row.
RowCache = MutableMapping[tuple[str, int], list[dict[str, Any]]]


@dataclass(frozen=True)
class LabelOutput:
    """The output of ``label``, complete or not.

    Attributes:
        store: where it is.
        run: the content of its ``run.json``.
        calibrations: fits of its confidences, which rows are read with; None if it has none.
    """

    store: Store
    run: Mapping[str, Any]
    calibrations: Calibrations | None = None
    _uris: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        output: str,
        storage_options: Mapping[str, Any] | None = None,
        manifest: str | None = None,
    ) -> LabelOutput:
        """Open an output.

        Args:
            output: its location.
            storage_options: fsspec options of the output and of ``manifest``.
            manifest: the file of its manifest, if that is not in the output.

        Raises:
            NoJobError: it has no ``run.json``.
            OutputError: ``run.json`` cannot be read, or not by this version; ``calibration.json``
                is damaged; or ``manifest`` is given and the output holds its own, or the file has
                another number of images.
        """
        elsewhere = {} if manifest is None else {MANIFEST: manifest}
        store = Store(output, storage_options, elsewhere=elsewhere)
        run = read_run(store)
        if run is None:
            raise NoJobError(f"{store} holds no {RUN}, so it is not the output of salip-ray label")
        if manifest is not None and Store(output, storage_options).exists(MANIFEST):
            raise OutputError(f"{store} holds its manifest itself: leave --manifest out")
        labels = cls(store, run, Calibrations.of(store))
        if manifest is not None and store.exists(MANIFEST):
            recorded, images = run["fingerprint"]["manifest"]["images"], labels.n_images()
            if images != recorded:
                raise OutputError(
                    f"{store.path_of(MANIFEST)} is the manifest of another run: it has "
                    f"{counted(images, 'image')}, {RUN} of {store} says {recorded:,}. "
                    "Give its own, or resume the label command if it was stopped"
                )
        return labels

    @property
    def uri(self) -> str:
        """The public URI of the output."""
        return str(self.store)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The configuration that decided the labels."""
        recipe: Mapping[str, Any] = self.run["fingerprint"]["recipe"]
        return recipe

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The classes of the task, in the order of their ids."""
        return TaskConfig.model_validate(self.recipe["task"]).classes

    @property
    def image_config(self) -> ImageConfig:
        """How files were decoded to pixels."""
        return ImageConfig.model_validate(self.recipe["image"])

    @property
    def privacy(self) -> PrivacyConfig:
        """Which names the output hides."""
        return PrivacyConfig.model_validate(self.recipe.get("privacy", {}))

    @property
    def is_consensus(self) -> bool:
        """True if it was made from the labels of other runs."""
        return "consensus" in self.run["fingerprint"]

    @property
    def tuned_on(self) -> frozenset[str]:
        """The ids of the images that the recipe was tuned on."""
        return frozenset(self.recipe["task"].get("tuned_on") or ())

    @property
    def calibrated_on(self) -> frozenset[str]:
        """The ids of the images that its confidences were fitted on."""
        return frozenset() if self.calibrations is None else self.calibrations.images

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that made the masks, in the order of the modes of the job."""
        return tuple(m for mode in self.recipe["run"]["modes"] for m in _METHODS_OF_MODE[mode])

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the committed shards in order: ``part-00000.parquet``, ...

        Raises:
            StoreError: they cannot be listed.
        """
        return tuple(committed_shards(self.store).values())

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of all committed shards in order, with a small batch in memory at a time.

        Args:
            columns: of :data:`salip_ray.schema.LABEL_SCHEMA`; by default all.

        Raises:
            StoreError: a shard cannot be read.
        """
        for name in self.shards:
            yield from self.shard_rows(name, columns)

    def shard_rows(
        self, name: str, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of one committed shard in order.

        Args:
            name: of the shard, from :attr:`shards`.
            columns: columns, or leaves of nested ones; by default all.

        Raises:
            StoreError: the shard cannot be read.
        """
        with self._open_shard(name) as shard:
            for batch in shard.iter_batches(batch_size=64, columns=self._needed(columns)):
                yield from self._calibrated(pa.Table.from_batches([batch])).to_pylist()

    def row(
        self,
        name: str,
        index: int,
        columns: Sequence[str] | None = None,
        cache: RowCache | None = None,
    ) -> dict[str, Any]:
        """Return one row of a shard; only its row group is read.

        Args:
            name: of the shard, from :attr:`shards`.
            index: of the row in the shard.
            columns: as for :meth:`shard_rows`.
            cache: row groups that were read; a new one is added, so that neighbours need no read.

        Raises:
            OutputError: the shard has no such row, or cannot be read.
        """
        for (cached_name, first), cached in cache.items() if cache else ():
            if cached_name == name and first <= index < first + len(cached):
                return cached[index - first]
        with self._open_shard(name) as shard:
            first = 0
            for group in range(shard.num_row_groups):
                count = shard.metadata.row_group(group).num_rows
                if index < first + count:
                    table = shard.read_row_group(group, columns=self._needed(columns))
                    rows: list[dict[str, Any]] = self._calibrated(table).to_pylist()
                    if cache is not None:
                        cache[name, first] = rows
                    return rows[index - first]
                first += count
        raise OutputError(f"{self.store.path_of(f'{SHARDS}/{name}')} has no row {index}")

    def table(self, shard: str, *, without: Sequence[str] = ()) -> pa.Table:
        """Return one committed shard as a table, in the order of its rows.

        Args:
            shard: its name, from :attr:`shards`.
            without: nested columns to leave out, such as ``masks.rle``; they are not fetched.

        Raises:
            StoreError: the shard cannot be read.
        """
        with self._open_shard(shard, pre_buffer=True) as file:
            leaves = [file.schema.column(index).path for index in range(len(file.schema))]
            wanted = [leaf for leaf in leaves if not _is_in(leaf, without)]
            return self._calibrated(file.read(wanted))

    def read(self, name: str) -> bytes | None:
        """Return the bytes of another file of the output, or None if it does not exist.

        Raises:
            StoreError: it cannot be read.
        """
        return self.store.read(name)

    def manifest(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the manifest: :data:`salip_ray.schema.MANIFEST_SCHEMA`, or some of its columns.

        Raises:
            OutputError: it is missing, or cannot be read.
        """
        with self._open_manifest() as stream:
            return pq.read_table(stream, columns=columns)

    def n_images(self) -> int:
        """Return the number of images of the manifest, committed or not.

        Raises:
            OutputError: the manifest is missing, or cannot be read.
        """
        with self._open_manifest() as stream, pq.ParquetFile(stream) as manifest:
            return int(manifest.metadata.num_rows)

    def source_uri(self, uri: str) -> str:
        """Return the URI of an image, given the ``uri`` of its row, which may be a pseudonym.

        Raises:
            OutputError: the uri is a pseudonym, and the manifest is missing or of another job.
        """
        if not is_pseudonym(uri):
            return uri
        if not self._uris:
            table = self.manifest(["image_id", "uri"])
            ids, uris = table["image_id"].to_pylist(), table["uri"].to_pylist()
            self._uris.update({pseudonym(i): known for i, known in zip(ids, uris, strict=True)})
        if uri not in self._uris:
            raise OutputError(
                f"{self.store.path_of(MANIFEST)} is the manifest of another run: it lacks {uri} "
                f"of {self.uri}"
            )
        return self._uris[uri]

    def image_ref(self, row: Mapping[str, Any]) -> ImageRef:
        """Return where the pixels of a row come from.

        Args:
            row: ``image_id``, ``uri`` and ``slice`` of a row.

        Raises:
            OutputError: the job hid names, and the manifest is missing.
        """
        uri = self.source_uri(row["uri"])
        # A slice of a series is a file by itself and has the id of that file.
        in_file = row["slice"] is not None and row["image_id"] == image_id(uri, row["slice"])
        return ImageRef(uri, row["slice"] if in_file else None)

    def _needed(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        return columns if self.calibrations is None else self.calibrations.columns(columns)

    def _calibrated(self, rows: pa.Table) -> pa.Table:
        return rows if self.calibrations is None else self.calibrations.apply(rows)

    @contextmanager
    def _open_shard(self, name: str, *, pre_buffer: bool = False) -> Iterator[pq.ParquetFile]:
        path = f"{SHARDS}/{name}"
        try:
            with (
                self.store.open(path) as stream,
                pq.ParquetFile(stream, pre_buffer=pre_buffer) as shard,
            ):
                yield shard
        except FileNotFoundError:
            raise OutputError(f"{self.store.path_of(path)} does not exist") from None

    @contextmanager
    def _open_manifest(self) -> Iterator[Any]:
        try:
            with self.store.open(MANIFEST) as stream:
                yield stream
        except FileNotFoundError:
            path = self.store.path_of(MANIFEST)
            if self.store.is_elsewhere(MANIFEST):
                raise NoJobError(f"manifest {path} does not exist") from None
            raise NoJobError(
                f"{self.uri} holds no {MANIFEST}: run label again, or give the manifest with "
                "--manifest if it is stored elsewhere"
            ) from None


def _is_in(leaf: str, columns: Sequence[str]) -> bool:
    """Return True if a leaf column is one of the columns, or in one of them."""
    name = leaf.replace(".list.element", "")
    return any(name == column or name.startswith(f"{column}.") for column in columns)
