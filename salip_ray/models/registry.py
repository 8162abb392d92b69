"""The families of models: which proposer, retriever and refiner a configuration names.

A family is built in (``sam``, ``clip``), comes from an installed package, or is named by its code,
``package.module:factory``. An installed package has an entry point in the group
``salip_ray.models``: the name of the family, and a module whose ``propose``, ``retrieve`` and
``refine`` are the factories that it offers. A factory is a class or function that takes a
:class:`~salip_ray.cascade.interfaces.ModelContext`. Whatever runs the cascade builds its models by
this registry, which is light: a factory is imported when it is needed.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salip_ray.errors import ConfigError
from salip_ray.wording import one_line

if TYPE_CHECKING:
    from salip_ray.config import Config, WeightsFile

ROLES = ("propose", "retrieve", "refine")
ENTRY_POINTS = "salip_ray.models"
#: As refiner: the masks of the candidates are the result. As proposer: all candidates are given.
NONE = "none"
PROMPTS = "prompts"  #: as proposer: the boxes are given, with their classes, and no model is needed

#: Families of this package: their code, by role and name. An empty text is a model that the
#: sections ``sam`` and ``clip`` describe.
_BUILT_IN: dict[str, dict[str, str]] = {
    "propose": {
        PROMPTS: "",
        NONE: "",
        "sam": "",
        "sam-hq": "salip_ray.cascade.sam_hq:SamHqProposer",
        "sam2": "salip_ray.cascade.sam2:Sam2Proposer",
        "sam3": "salip_ray.cascade.sam3:Sam3Proposer",
        "student": "salip_ray.student.proposer:StudentProposer",
    },
    "retrieve": {"clip": "", "hf-clip": "salip_ray.cascade.loading:hugging_face_retriever"},
    "refine": {
        "sam": "",
        "sam-hq": "salip_ray.cascade.sam_hq:SamHqRefiner",
        "sam2": "salip_ray.cascade.sam2:Sam2Refiner",
        NONE: "",
    },
}


@dataclass(frozen=True)
class Family:
    """A family that a configuration names.

    Attributes:
        role: ``propose``, ``retrieve`` or ``refine``.
        name: as in the configuration.
        target: ``package.module:factory``; empty for SAM and CLIP.
        built_in: it is part of this package.
    """

    role: str
    name: str
    target: str
    built_in: bool = False

    @property
    def shown(self) -> str:
        """The family in messages."""
        return f"{self.role}.model {self.name}"

    def factory(self) -> Any:
        """Import the factory.

        Raises:
            ConfigError: the module cannot be imported, or has no such factory.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            value: Any = importlib.import_module(module_name)
        except Exception as error:
            advice = "install its package, or put its folder on PYTHONPATH"
            missing = isinstance(error, ModuleNotFoundError) and error.name in {
                module_name,
                module_name.partition(".")[0],
            }
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ConfigError(
                f"{self.shown}: {module_name} cannot be imported ({reason})"
                f"{f': {advice}' if missing else ''}"
            ) from error
        for part in attribute.split("."):
            value = getattr(value, part, None)
        if not callable(value):
            raise ConfigError(f"{self.shown}: {module_name} has no class or function {attribute}")
        return value

    @property
    def labels_candidates(self) -> bool:
        """True if a proposer labels its candidates, so that no retriever is needed."""
        if self.built_in and self.name == PROMPTS:
            return True
        return bool(self.target and getattr(self.factory(), "labels_candidates", False))

    @property
    def embedding(self) -> str | None:
        """The kind of embedding that a proposer makes, or that a refiner takes from a proposer."""
        if not self.target:
            return "sam" if self.name == "sam" else None
        kind = getattr(self.factory(), "embedding", None)
        return kind if isinstance(kind, str) else None

    def identity(self) -> dict[str, str]:
        """Return what identifies the code: family, package, and version or SHA-256 of the module.

        The hash stands in for the version of a module that no installed package owns.
        """
        module_name = self.target.partition(":")[0]
        package = _distribution_of(module_name)
        about = {"model": self.name, "code": self.target}
        if package is not None:
            return {**about, "package": package, "version": metadata.version(package)}
        return {**about, "sha256": _digest_of_source(module_name)}


def family(config: Config, role: str) -> Family:
    """Return the family that a configuration names for a role.

    Raises:
        ConfigError: there is no such family.
    """
    return find(role, getattr(config, role).model)


@functools.cache
def find(role: str, name: str) -> Family:
    """Return a family by role and name.

    Raises:
        ConfigError: there is no such family.
    """
    if name in _BUILT_IN[role]:
        return Family(role, name, _BUILT_IN[role][name], built_in=True)
    if ":" in name:
        return Family(role, name, name)
    installed = {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}
    if name in installed:
        module, colon, attribute = installed[name].partition(":")
        return Family(role, name, f"{module}:{attribute}{'.' if colon else ''}{role}")
    known = [*_BUILT_IN[role], *installed]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}."
    raise ConfigError(
        f"{role}.model {name!r} is not known; {hint} Name your own model as package.module:factory"
    )


@functools.cache
def _distribution_of(module_name: str) -> str | None:
    """Return the installed package that a module belongs to, or None."""
    owners = metadata.packages_distributions().get(module_name.partition(".")[0])
    return owners[0] if owners else None


def _digest_of_source(module_name: str) -> str:
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return "unknown"
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def is_prompted(config: Config) -> bool:
    """Return True if the boxes of images are given, so that nothing is proposed."""
    return config.propose.model == PROMPTS


def needs_proposer(config: Config) -> bool:
    """Return True if candidates are proposed, whether others are given next to them or not."""
    return config.propose.model not in {PROMPTS, NONE}


def needs_retriever(config: Config) -> bool:
    """Return True if a mode retrieves candidates and the proposer does not label them."""
    return "cascade" in config.run.modes and not family(config, "propose").labels_candidates


def needs_refiner(config: Config) -> bool:
    """Return True if a mode refines masks and the configuration names a refiner."""
    refines = bool({"cascade", "gt_sam"} & set(config.run.modes))
    return refines and config.refine.model != NONE


def needed(config: Config) -> dict[str, Family]:
    """Return the families that a job loads, by role in the order of the stages."""
    roles = {
        "propose": needs_proposer(config),
        "retrieve": needs_retriever(config),
        "refine": needs_refiner(config),
    }
    return {role: family(config, role) for role, wanted in roles.items() if wanted}


def shares_embedding(config: Config) -> bool:
    """Return True if the refiner takes the proposer's embedding, and encodes no image itself."""
    models = needed(config)
    if not {"propose", "refine"} <= models.keys() or config.refine.sam is not None:
        return False
    kind = models["propose"].embedding
    if kind is None or kind != models["refine"].embedding:
        return False
    theirs, own = config.propose.weights, weights_of(config, "refine")
    return all(theirs[name].uri == own[name].uri for name in theirs.keys() & own.keys())


def weights_of(config: Config, role: str) -> dict[str, WeightsFile]:
    """Return the weights of a role; a refiner without any has those of a proposer of its family."""
    own: dict[str, WeightsFile] = getattr(config, role).weights
    if role == "refine" and not own and config.refine.model == config.propose.model:
        return config.propose.weights
    return own


def describe(config: Config) -> dict[str, dict[str, str]]:
    """Return what identifies the code of each model that is not part of this package, by role.

    Raises:
        ConfigError: a model is not known.
    """
    return {role: model.identity() for role, model in needed(config).items() if not model.built_in}


def code_of(config: Config) -> list[Path]:
    """Return the folder or file of each package that a model of the job comes from.

    Of an installed package, the folder with its metadata follows: it has the version and the
    entry points.

    Raises:
        ConfigError: a package is not on this machine.
    """
    paths = []
    for model in needed(config).values():
        if model.built_in:
            continue
        top = model.target.partition(":")[0].partition(".")[0]
        spec = importlib.util.find_spec(top)
        if spec is None:
            raise ConfigError(f"{model.shown}: the package {top} is not on this machine")
        folders = list(spec.submodule_search_locations or ())
        paths.append(Path(folders[0] if folders else str(spec.origin)))
        if (package := _distribution_of(top)) is not None:
            files = metadata.files(package) or ()
            about = (file for file in files if file.name == "METADATA")
            paths += [Path(str(file.locate())).parent for file in about]
    return list(dict.fromkeys(paths))
