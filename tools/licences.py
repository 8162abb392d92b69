"""List the licence of every package in requirements.lock, or write them as a CycloneDX SBOM.

Usage:
    python tools/licences.py                 # a table, by licence: make licences
    python tools/licences.py --write         # sbom.cdx.json: make sbom

A package of the lock that belongs to another platform is not installed, so its licence is in
:data:`DECLARED`, as are the licences of packages whose metadata name none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
SBOM = ROOT / "sbom.cdx.json"

#: Licences that the metadata of a package do not name exactly; read in its licence file.
DECLARED = {
    "appnope": "BSD-2-Clause",
    "colorama": "BSD-3-Clause",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",  # depends on NVIDIA's packages; no files
    "httpx2-jsfetch": "BSD-3-Clause",
    "ipython-pygments-lexers": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "mpmath": "BSD-3-Clause",
    "nest-asyncio2": "BSD-2-Clause",
    "prompt-toolkit": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "python-dateutil": "Apache-2.0 AND BSD-3-Clause",
    "s3fs": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "segment-anything": "Apache-2.0",
    "sympy": "BSD-3-Clause",
    "torchvision": "BSD-3-Clause",
    "tzdata": "Apache-2.0",
}
#: What packages write in place of an SPDX expression, in lower case, and the expression.
SPELLINGS = {
    "mit license": "MIT",
    "mit licence": "MIT",
    "apache software license": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "freebsd": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "gpl-3.0": "GPL-3.0-only",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
}
_SPDX = re.compile(
    r"\w+-\d[\w.]*(-\w+)*|MIT(-CMU)?|ISC|Zlib|0BSD|CNRI-Python|LLVM-exception|LicenseRef-[\w-]+"
)
#: CycloneDX's words: needed by the package, by an extra, or only to develop it.
SCOPES = ("required", "optional", "excluded")


@dataclass(frozen=True)
class Package:
    """A package of the lock."""

    name: str
    version: str
    parents: tuple[str, ...]
    licence: str = ""
    scope: str = "excluded"


def locked(text: str) -> Iterator[Package]:
    """Yield the packages of a lock, with the packages that need each of them."""
    for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if match := re.match(r"([\w.-]+)==([^\s;\\]+)", part):
            via = re.findall(r"^    #(?: via)? +([\w.-]+(?: \([^)]*\))?)$", part, re.MULTILINE)
            yield Package(match[1], match[2], tuple(via))


def licence_of(name: str) -> str:
    """Return the licence of a package as an SPDX expression.

    Raises:
        LookupError: its metadata name none, or it is not installed.
    """
    if name in DECLARED:
        return DECLARED[name]
    try:
        fields = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        raise LookupError(
            f"{name} is not installed: add it to DECLARED in {Path(__file__).name}"
        ) from None
    classifiers = fields.get_all("Classifier") or []
    classes = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License")]
    own = [text for key in ("License-Expression", "License") for text in fields.get_all(key) or ()]
    texts = [*own, " and ".join(classes)]
    # The text of a whole licence begins with its name.
    lines = [re.split(r" {2,}|\n", t.strip())[0] for t in texts if t and t.strip() != "UNKNOWN"]
    known = [SPELLINGS.get(line.lower(), line) for line in lines if line]
    if exact := [line for line in known if is_expression(line)]:
        return exact[0]
    says = f"says {known[0]!r}" if known else "names no licence"
    raise LookupError(f"{name} {says}: add its licence to DECLARED in {Path(__file__).name}")


def is_expression(text: str) -> bool:
    """Return True if a text is an SPDX expression, of the licences that occur here."""
    return all(_SPDX.fullmatch(word) for word in re.split(r" (?:AND|OR|WITH) ", text))


def with_scopes(packages: list[Package], project: dict[str, Any]) -> list[Package]:
    """Return packages with the scope in which this project needs them."""
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    scopes: dict[str, str] = {}
    for scope, lines in zip(SCOPES, (project["dependencies"], extras), strict=False):
        wanted = {re.split(r"[\[<>=!~ ;]", line)[0].replace("_", "-").lower() for line in lines}
        while wanted:
            scopes |= {name: scope for name in wanted if name not in scopes}
            wanted = {p.name for p in packages if set(p.parents) & wanted} - scopes.keys()
    return [replace(p, scope=scopes.get(p.name, "excluded")) for p in packages]


def packages() -> list[Package]:
    """Return all packages of the lock, in its order, each with licence and scope.

    Raises:
        LookupError: the licence of one is not known.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = list(locked(LOCK.read_text()))  # language: ok
    return with_scopes([replace(p, licence=licence_of(p.name)) for p in found], project)


def component(package: Package) -> dict[str, Any]:
    """Return a package as CycloneDX has it."""
    single = " " not in package.licence and not package.licence.startswith("LicenseRef")
    licence: dict[str, Any] = {"expression": package.licence}
    if single:
        licence = {"license": {"id": package.licence}}
    address = f"pkg:pypi/{package.name}@{package.version}"
    return {
        "type": "library",
        "bom-ref": address,
        "name": package.name,
        "version": package.version,
        "scope": package.scope,
        "licenses": [licence],
        "purl": address,
    }


def sbom() -> str:
    """Return the SBOM of the lock; without a time and serial number, so equal locks agree."""
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "salip-ray",
                "name": "salip-ray",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [component(package) for package in packages()],
    }
    return json.dumps(content, indent=1) + "\n"


def table() -> str:
    """Return a line for each package, ordered by licence."""
    rows = sorted(packages(), key=lambda p: (p.licence, p.name, p.version))
    lines = [f"{p.licence[:50]:50}  {p.scope:8}  {p.name} {p.version}" for p in rows]
    return "\n".join(lines)


def main() -> None:
    """Print, write or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write sbom.cdx.json")
    options = parser.parse_args()
    try:
        if options.write:
            SBOM.write_text(sbom())
        else:
            print(table())
    except LookupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
