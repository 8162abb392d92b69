"""Reading what a run wrote, from local disk or any store that fsspec knows.

What is committed is what counts: a shard's Parquet file is written last, so a shard without one is
not there yet, whatever else of it may lie about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from salip_ray.config import ClassSpec, ImageConfig, TaskConfig
from salip_ray.errors import NoJobError, OutputError, SalipError
from salip_ray.schema import SCHEMA_VERSION, ImageRef
from salip_ray.sources.locations import filesystem, image_id, join, normalise, public_uri
from salip_ray.sources.privacy import is_pseudonym, pseudonym
from salip_ray.sources.stores import said

_SHARD = re.compile(r"part-\d{5,}\.parquet")
_METHODS_OF_MODE = {
    "cascade": ("cascade",),
    "unprompted": ("unprompted_confident", "unprompted_largest"),
    "gt_sam": ("gt_sam",),
}


@dataclass(frozen=True)
class LabelOutput:
    """An output folder, opened for reading.

    ``uri`` names it in messages; ``run`` is its ``run.json``.
    """

    uri: str
    run: Mapping[str, Any]
    _fs: Any = field(repr=False)
    _root: str = field(repr=False)
    _manifest: str | None = None
    _options: Mapping[str, Any] | None = field(default=None, repr=False)
    _uris: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        output: str,
        storage_options: Mapping[str, Any] | None = None,
        manifest: str | None = None,
    ) -> LabelOutput:
        """Open the output of ``salip-ray label``, complete or not.

        Args:
            output: its location.
            storage_options: fsspec's, of the output and of ``manifest``.
            manifest: where its manifest is kept, if not in the output.

        Raises:
            OutputError: there is no ``run.json``, or not one that this version can read; or the
                store does not let it be read.
        """
        with explaining(output):
            return cls.open_patiently(output, storage_options, manifest)

    @classmethod
    def open_patiently(
        cls,
        output: str,
        storage_options: Mapping[str, Any] | None = None,
        manifest: str | None = None,
    ) -> LabelOutput:
        """As :meth:`open`, but what the store's client raises stays what it is.

        Whoever asks again and again can tell by it what may pass.
        """
        uri = public_uri(output)
        fs, root = filesystem(normalise(output), storage_options)
        path = join(root, "run.json")
        try:
            run = json.loads(fs.cat_file(path))
        except FileNotFoundError:
            raise NoJobError(
                f"{uri} holds no run.json, so it is not the output of salip-ray label"
            ) from None
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise OutputError(f"{join(uri, 'run.json')} is not valid JSON") from None
        version = run.get("schema_version") if isinstance(run, dict) else None
        if version != SCHEMA_VERSION:
            raise OutputError(
                f"{join(uri, 'run.json')} has the schema_version {version!r}, "
                f"but this version of salip-ray reads {SCHEMA_VERSION}"
            )
        return cls(uri, run, fs, root, manifest, storage_options)

    @property
    def classes(self) -> tuple[ClassSpec, ...]:
        """The classes of the task, in label-map order."""
        return TaskConfig.model_validate(self.run["fingerprint"]["recipe"]["task"]).classes

    @property
    def image_config(self) -> ImageConfig:
        """How the run made pixels of its files."""
        return ImageConfig.model_validate(self.run["fingerprint"]["recipe"]["image"])

    @property
    def tuned_on(self) -> frozenset[str]:
        """The ids of the images that chose the recipe."""
        return frozenset(self.run["fingerprint"]["recipe"]["task"].get("tuned_on") or ())

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the run was asked for, in the order of its modes."""
        modes = self.run["fingerprint"]["recipe"]["run"]["modes"]
        return tuple(method for mode in modes for method in _METHODS_OF_MODE[mode])

    @property
    def shards(self) -> tuple[str, ...]:
        """Names of the committed shards, in order: ``part-00000.parquet``, ..."""
        try:
            paths = self._fs.ls(join(self._root, "shards"), detail=False)
        except FileNotFoundError:
            return ()
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return tuple(sorted((n for n in names if _SHARD.fullmatch(n)), key=_shard_number))

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows of the committed shards, in order, one small batch in memory at a time.

        A row is a dict with the columns of :data:`salip_ray.schema.LABEL_SCHEMA`, or some.
        """
        for name in self.shards:
            yield from self.shard_rows(name, columns)

    def shard_rows(
        self, name: str, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows of one committed shard, in order; ``columns`` may name leaves of nested ones."""
        path = join(self._root, "shards", name)
        with self._fs.open(path, "rb") as stream, pq.ParquetFile(stream) as shard:
            for batch in shard.iter_batches(batch_size=64, columns=columns):
                yield from batch.to_pylist()

    def row(
        self,
        name: str,
        index: int,
        columns: Sequence[str] | None = None,
        kept: MutableMapping[tuple[str, int], list[dict[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """The row at ``index`` of a shard; only its row group is read.

        Row groups go into ``kept`` and are taken from there, so that neighbours are read once.
        """
        for (shard_name, start), held in kept.items() if kept else ():
            if shard_name == name and start <= index < start + len(held):
                return held[index - start]
        path = join(self._root, "shards", name)
        with self._fs.open(path, "rb") as stream, pq.ParquetFile(stream) as shard:
            first = 0
            for group in range(shard.num_row_groups):
                count = shard.metadata.row_group(group).num_rows
                if index < first + count:
                    table = shard.read_row_group(group, columns=columns)
                    rows: list[dict[str, Any]] = table.to_pylist()
                    if kept is not None:
                        kept[name, first] = rows
                    return rows[index - first]
                first += count
        raise OutputError(f"{join(self.uri, 'shards', name)} has no row {index}")

    def table(self, shard: str, *, without: Sequence[str] = ()) -> pa.Table:
        """One committed shard as a table, in the order of its rows.

        Args:
            shard: its name, as :attr:`shards` gives it.
            without: leaf columns to leave out, as Parquet spells them but for the words that
                mark a list: ``masks.rle.counts``. Their bytes are not fetched.
        """
        path = join(self._root, "shards", shard)
        with self._fs.open(path, "rb") as stream, pq.ParquetFile(stream, pre_buffer=True) as file:
            leaves = [file.schema.column(index).path for index in range(len(file.schema))]
            return file.read([leaf for leaf in leaves if _spelt(leaf) not in without])

    def read(self, name: str) -> bytes | None:
        """The bytes of another file of the output (``summary.json``), or None where it is not."""
        try:
            return bytes(self._fs.cat_file(join(self._root, name)))
        except FileNotFoundError:
            return None

    def manifest(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The manifest: :data:`salip_ray.schema.MANIFEST_SCHEMA`, or some of its columns.

        Raises:
            OutputError: it is missing.
        """
        with self._open_manifest() as stream:
            return pq.read_table(stream, columns=columns)

    def n_images(self) -> int:
        """Number of images of the manifest, committed or not.

        Raises:
            OutputError: the manifest is missing.
        """
        with self._open_manifest() as stream, pq.ParquetFile(stream) as manifest:
            return int(manifest.metadata.num_rows)

    def source_uri(self, uri: str) -> str:
        """The URI behind the ``uri`` of a row, which is a pseudonym where the run hid names.

        Raises:
            OutputError: the manifest, which alone knows, is missing or of another run.
        """
        if not is_pseudonym(uri):
            return uri
        if not self._uris:
            table = self.manifest()
            ids, uris = table["image_id"].to_pylist(), table["uri"].to_pylist()
            self._uris.update({pseudonym(known): uri for known, uri in zip(ids, uris, strict=True)})
        if uri not in self._uris:
            where = self._manifest or join(self.uri, "manifest.parquet")
            raise OutputError(
                f"{public_uri(where)} is the manifest of another run: it lacks {uri} of {self.uri}"
            )
        return self._uris[uri]

    def picture(self, row: Mapping[str, Any]) -> ImageRef:
        """Where the pixels of a row (``image_id``, ``uri`` and ``slice`` of it) come from.

        Raises:
            OutputError: the run hid names, and the manifest is missing.
        """
        uri = self.source_uri(row["uri"])
        # A slice of a series is a file of its own, and has the id of that.
        in_file = row["slice"] is not None and row["image_id"] == image_id(uri, row["slice"])
        return ImageRef(uri, row["slice"] if in_file else None)

    @contextmanager
    def _open_manifest(self) -> Iterator[Any]:
        fs, path = self._fs, join(self._root, "manifest.parquet")
        if self._manifest is not None:
            fs, path = filesystem(self._manifest, self._options)
        try:
            with fs.open(path, "rb") as stream:
                yield stream
        except FileNotFoundError:
            if self._manifest is not None:
                raise NoJobError(f"manifest {public_uri(self._manifest)} does not exist") from None
            raise NoJobError(
                f"{self.uri} holds no manifest.parquet: run label again, or give the manifest if "
                "it is kept elsewhere"
            ) from None


@contextmanager
def explaining(output: str) -> Iterator[None]:
    """Say which output cannot be read, whatever the store's client raises."""
    try:
        yield
    except SalipError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the store's client raises)
        raise OutputError(f"{public_uri(output)} cannot be read: {said(error, output)}") from None


def _spelt(leaf: str) -> str:
    return leaf.replace(".list.element", "")


def _shard_number(name: str) -> int:
    return int(name.removeprefix("part-").removesuffix(".parquet"))
