"""Small plots as SVG: how a job grows, and where its time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 360, 240, 48
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377")


@dataclass(frozen=True)
class Bar:
    """A span of work: what was done where, from when to when in seconds."""

    lane: str
    name: str
    start: float
    end: float


def growth_plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Wall, memory and object store against images, a panel each, from zero."""
    panels = (
        ("wall, s", [run["wall_seconds"] for run in runs]),
        ("workers' memory, MB", [run["worker_bytes"] / 1e6 for run in runs]),
        ("object store, MB", [run["store_bytes"] / 1e6 for run in runs]),
    )
    images = [run["images"] for run in runs]
    body = [
        _panel(title, images, values, index * _WIDTH, _COLOURS[index])
        for index, (title, values) in enumerate(panels)
    ]
    _write(path, _WIDTH * len(panels), _HEIGHT, body)


def stage_plot(stages: Mapping[str, float], path: Path) -> None:
    """Seconds of all workers in each stage, as bars."""
    most = max(stages.values(), default=1.0) or 1.0
    body = []
    for row, (name, spent) in enumerate(stages.items()):
        y, length = 24 + 34 * row, 240 * spent / most
        body.append(f'<text x="8" y="{y + 15}">{name}</text>')
        body.append(
            f'<rect x="80" y="{y}" width="{length:.1f}" height="20" fill="{_COLOURS[row % 4]}"/>'
        )
        body.append(f'<text x="{86 + length:.1f}" y="{y + 15}">{spent:.1f} s</text>')
    _write(path, 400, 40 + 34 * len(stages), body)


def lane_plot(bars: Sequence[Bar], path: Path) -> None:
    """Spans of work on lanes, coloured by name, with a key."""
    names = list(dict.fromkeys(bar.name for bar in sorted(bars, key=lambda bar: bar.start)))
    lanes = list(dict.fromkeys(b.lane for b in sorted(bars, key=lambda b: names.index(b.name))))
    wide, last = 900, max(bar.end for bar in bars)
    body = []
    for bar in bars:
        x, width = 10 + wide * bar.start / last, max(0.5, wide * (bar.end - bar.start) / last)
        colour = _COLOURS[names.index(bar.name) % len(_COLOURS)]
        y = 34 + 22 * lanes.index(bar.lane)
        body.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>')
    for index, name in enumerate(names):
        colour = _COLOURS[index % len(_COLOURS)]
        body.append(f'<text x="{10 + 160 * index}" y="22" fill="{colour}">{name}</text>')
    foot = 50 + 22 * len(lanes)
    body.append(f'<text x="10" y="{foot}">0 s</text>')
    body.append(f'<text x="{10 + wide}" y="{foot}" text-anchor="end">{last:.1f} s</text>')
    _write(path, wide + 20, foot + 12, body)


def _panel(title: str, x: Sequence[float], y: Sequence[float], left: float, colour: str) -> str:
    top = max(y, default=1.0) or 1.0
    width, height = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def to_pixels(image: float, value: float) -> tuple[float, float]:
        across = left + _MARGIN + width * image / max(x)
        return across, _HEIGHT - _MARGIN - height * value / top

    points = [to_pixels(a, b) for a, b in zip(x, y, strict=True)]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    marks = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points)
    labels = "".join(
        f'<text x="{a:.1f}" y="{b - 8:.1f}" text-anchor="middle">{value:.0f}</text>'
        for (a, b), value in zip(points, y, strict=True)
    )
    ticks = "".join(
        f'<text x="{to_pixels(n, 0)[0]:.1f}" y="{_HEIGHT - 32}" text-anchor="middle">{n}</text>'
        for n in x
    )
    axis = (
        f'<path d="M{left + _MARGIN},{_MARGIN}V{_HEIGHT - _MARGIN}h{width}" fill="none" '
        'stroke="#999999"/>'
    )
    heading = f'<text x="{left + _WIDTH / 2}" y="20" text-anchor="middle">{title}</text>'
    below = f'<text x="{left + _WIDTH / 2}" y="{_HEIGHT - 10}" text-anchor="middle">images</text>'
    path = f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return heading + axis + path + marks + labels + ticks + below


def _write(path: Path, width: int, height: int, body: Sequence[str]) -> None:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    path.write_text(head + "".join(body) + "</svg>\n")
