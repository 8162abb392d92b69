"""Check texts and names against the project's language rules: ``make lint``.

Usage:
    python tools/check_language.py [PATH ...]

Each rule is a pattern with the word to use instead. Python files are checked in their docstrings,
comments, string literals and identifiers; Markdown, YAML and shell files and the cells of notebooks
line by line. A line that must keep a flagged word ends in ``# language: ok``.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_PATHS = (
    *("salip_ray", "jobs", "training", "benchmarks", "tests", "tools", "configs", "docs"),
    *("infra", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml"),
)
ALLOWED = "language: ok"

#: Pattern in texts (docstrings, comments, messages, docs) -> what to write instead.
TEXT_RULES: dict[str, str] = {
    # Replaced words: the glossary of CONTRIBUTING.md.
    r"\bgo(?:es|ing|ne)? on (?:with|from|where)\b": "resume",
    r"\bgo(?:es|ing) on\b(?! (?:a|the|disk)\b)": "resume, continue",
    r"\bgone on\b": "resumed",
    r"\bbegun\b": "started, created",
    r"\bknobs?\b": "setting, option",
    r"\btalkers?\b": "progress reporter",
    r"\bbeside\b": "next to, under",
    r"\bkept\b": "cached, saved, retained",
    r"\bof (?:its|their|our|your) own\b": "own (before the noun), separate",
    r"\b(?:house|rooms?) (?:of|that|which)\b": "package",
    r"\bpromises?\b": "guarantee, contract",
    r"\basked for again\b": "retried",
    r"\bpersistently\b": "with retries",
    r"\bnobody is at\b": "no driver is running",
    r"\bmends?\b|\bmended\b": "repair, fix",
    r"\bone after the other\b": "in sequence",
    r"\bleft-?overs?\b": "temporary file",
    r"\bforetells?\b": "predicts",
    r"\bcome to grief\b|\bgo(?:es)? wrong\b(?! with)": "fail",
    r"\blies? about\b": "remain",
    r"\bsomebody(?:'s)?\b": "a user's",
    r"\bhalf of (?:it|one) is\b": "incomplete",
    r"\b(?:as|for) long as it (?:takes|lasts)\b": "the time",
    # "where" is a place, "when" a time, "if" a condition.
    r"\b(?:None|True|False|empty|nothing|raised?|Error) where\b": "if",
    r"(?:^|[.,;(] )[Ww]here (?:it|there|they|that|no|one|this|none|neither|nothing) ": "if",
    r"\b(?:but|else|only|even|except) where\b": "if",
    r"\bwhere (?:there (?:is|are)|it (?:has|can|does)|that (?:is|has|can))\b": "if",
    r"\bwhether it is what\b": "Return True if",
    r"^\s*(?:r?\"{3})Whether\b": "Return True if",
    # Filler and inverted clauses.
    r"\bsays? what\b(?! happened)": "describes",
    r"\bas it (?:is|stands|was)\b": "unchanged",
    r"\bwhat (?:came|comes|became|becomes) of\b": "the result of",
    r"\bthat of (?:its|the|a)\b \w+ (?:is|are) that of\b": "repeat the noun",
    r"\bhow far (?:it|a job|the job) is\b": "the progress of",
    r"\bis told (?:so|apart)\b": "gets an error, differs",
    r"\bhands? (?:it |them |everything )?on\b": "passes on",
    r"\b(?:an?|one) (?:image|shard|row|node|file|line|class|task|pod|object) an? "
    r"(?:image|shard|row|node|file|line|class|task|pod|object)\b": "per",
    # Plurals: use salip_ray.wording.counted.
    r"(?<![\w.,])1 (?:images|shards|rows|files|volumes|slices|classes|pixels|problems)\b": (
        "the singular"
    ),
    r"\(s\)(?=[ .,:;\"']|$)": "salip_ray.wording.counted",
}
#: Identifiers, matched as whole words between underscores -> a better name.
NAME_RULES: dict[str, str] = {
    "begun": "started",
    "found": "name the thing",
    "keeper": "cache worker",
    "kept": "cached, saved",
    "knob": "setting",
    "knobs": "settings",
    "leftover": "temporary file",
    "mend": "repair",
    "news": "tally",
    "persistently": "with retries",
    "place": "path, location, index",
    "places": "paths, locations, indices",
    "promise": "guarantee",
    "room": "package",
    "said": "message",
    "say": "report",
    "seen": "name the thing",
    "talker": "progress",
    "told": "name the thing",
}
#: Words that are fine in the sentence that a test's name is.
_IN_TEST_NAMES = {"found", "place", "seen"}
_TEXT = [(re.compile(pattern), advice) for pattern, advice in TEXT_RULES.items()]


@dataclass(frozen=True)
class Finding:
    """One flagged word."""

    path: Path
    line: int
    word: str
    advice: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.word!r}: use {self.advice}"


def check_text(path: Path, text: str, first_line: int = 1) -> Iterator[Finding]:
    """Yield the flagged words of a text whose first line is ``first_line``."""
    for number, line in enumerate(text.splitlines(), first_line):
        if ALLOWED in line:
            continue
        for pattern, advice in _TEXT:
            for match in pattern.finditer(line):
                yield Finding(path, number, match.group().strip(), advice)


def check_python(path: Path) -> Iterator[Finding]:
    """Yield the flagged words of a Python file's comments, strings and identifiers."""
    source = path.read_text(encoding="utf-8")
    allowed = {n for n, line in enumerate(source.splitlines(), 1) if ALLOWED in line}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXT_TOKENS:
            for finding in check_text(path, token.string, token.start[0]):
                if finding.line not in allowed:
                    yield finding
    for name, line in _defined_names(ast.parse(source)):
        if line in allowed:
            continue
        sentence = _IN_TEST_NAMES if name.startswith("test_") else set()
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name):
            if (advice := NAME_RULES.get(word.lower())) and word not in sentence:
                yield Finding(path, line, name, advice)


_TEXT_TOKENS = {tokenize.COMMENT, tokenize.STRING} | {
    value for name in ("FSTRING_MIDDLE",) if (value := getattr(tokenize, name, None)) is not None
}


def _defined_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every name that a module defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def check_file(path: Path) -> Iterator[Finding]:
    """Yield the flagged words of one file; this one, which lists them, has none."""
    if path == Path(__file__).resolve():
        return
    if path.suffix == ".py":
        yield from check_python(path)
    elif path.suffix == ".md":
        # The glossary itself names the words that it replaces.
        text = re.sub(
            r"^\| use \| not \|\n(?:\|.*\n)*", _blank_lines, path.read_text("utf-8"), flags=re.M
        )
        yield from check_text(path, text)
    elif path.suffix == ".ipynb":
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            yield from check_text(path, "".join(cell["source"]))
    elif path.suffix in {".yaml", ".yml", ".sh", ".sbatch", ".toml", ".html"} or (
        path.name in {"Makefile", "Dockerfile"}
    ):
        yield from check_text(path, path.read_text(encoding="utf-8"))


def _blank_lines(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files of paths, folders expanded."""
    for path in paths:
        yield from sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def main(arguments: list[str]) -> int:
    """Print every finding; return 1 if there is one."""
    paths = [Path(text).resolve() for text in arguments] or [ROOT / name for name in DEFAULT_PATHS]
    findings = [finding for path in files_of(paths) for finding in check_file(path)]
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} words to replace; see the glossary in CONTRIBUTING.md")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
