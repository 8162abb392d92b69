"""Which modules import which: read from the source, or observed in a fresh interpreter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import statement: `module` imports `imported`, in a function if `late`."""

    module: str
    imported: str
    late: bool


def module_names(package: Path) -> dict[str, Path]:
    """Return the files of all modules in `package` (a folder), by dotted name."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(package: Path) -> list[Import]:
    """Return the imports of all modules in `package`, without those for type checkers only.

    ``from a import b`` imports ``a.b`` if that is a module of the package, else ``a``.
    """
    modules = module_names(package)
    imports = []
    for module, path in modules.items():
        inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node, late in _statements(tree, late=False):
            imports += [Import(module, name, late) for name in _targets(node, inside, modules)]
    return imports


def _statements(node: ast.AST, *, late: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield import statements below `node`, and whether they are in a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, late
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _statements(ast.Module([other], []), late=late)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _statements(child, late=late or is_function)


def _targets(
    node: ast.Import | ast.ImportFrom, inside: str, modules: Iterable[str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = inside.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
    for alias in node.names:
        name = f"{base}.{alias.name}"
        yield name if name in modules else base


def cycles(imports: Iterable[Import]) -> list[list[str]]:
    """Return groups of modules that import each other while they are being imported."""
    graph: dict[str, set[str]] = {}
    for each in imports:
        if not each.late:
            graph.setdefault(each.module, set()).add(each.imported)
    reach = {module: _reachable(graph, module) for module in graph}
    groups = {
        frozenset(other for other in reach[module] if module in reach.get(other, ()))
        for module in graph
        if module in reach[module]
    }
    return sorted(sorted(group) for group in groups)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return all modules that importing `start` imports; `start` is one of them in a cycle."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph.get(module, ())
    return reached


def loaded_by(modules: Iterable[str], root: Path) -> set[str]:
    """Import `modules` in a fresh interpreter and return the top-level packages it then holds.

    Args:
        modules: dotted names.
        root: folder that the modules are imported from.
    """
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {list(modules)!r}: importlib.import_module(name)",
            "print(*{name.partition('.')[0] for name in sys.modules})",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())
