"""Line plots as SVG, drawn by hand: a plotting library would be a dependency for two pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 44, 52
_COLOURS = ("#26736b", "#d1495b", "#3c6fb6", "#b0762a", "#7a4ea3", "#5b6470")


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        return [10.0**p for p in range(math.floor(low), math.ceil(high) + 1)]
    step = 10 ** math.floor(math.log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 6)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def line_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> str:
    """Return an SVG of named lines of (x, y) points."""
    points = [point for line in lines.values() for point in line]

    def scale(value: float, log: bool) -> float:
        return math.log10(value) if log else value

    xs = [scale(x, log_x) for x, _ in points]
    ys = [scale(y, log_y) for _, y in points]
    x0, x1 = min(xs), max(xs)
    y0, y1 = (math.floor(min(ys)), math.ceil(max(ys))) if log_y else (0.0, max(ys) * 1.05)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def px(x: float) -> float:
        return _LEFT + wide * (scale(x, log_x) - x0) / (x1 - x0)

    def py(y: float) -> float:
        return _TOP + high * (1 - (scale(y, log_y) - y0) / (y1 - y0))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#1c2026">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for y in _ticks(y0, y1, log_y):
        if y0 <= scale(y, log_y) <= y1:
            parts.append(f'<path d="M{_LEFT} {py(y):.1f}h{wide}" stroke="#e0e3e7"/>')
            parts.append(
                f'<text x="{_LEFT - 8}" y="{py(y) + 4:.1f}" text-anchor="end">{y:,g}</text>'
            )
    for x in sorted({x for x, _ in points}):
        parts.append(f'<path d="M{px(x):.1f} {_TOP + high}v4" stroke="#707882"/>')
        parts.append(
            f'<text x="{px(x):.1f}" y="{_TOP + high + 18}" text-anchor="middle">{x:,g}</text>'
        )
    parts.append(
        f'<text x="{_LEFT + wide / 2:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )
    parts.append(f'<text x="12" y="{_TOP - 8}">{escape(y_label)}</text>')
    for index, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = "M" + "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in line)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in line
        ]
        at = _TOP + 14 + 20 * index
        parts.append(
            f'<path d="M{_WIDTH - _RIGHT + 14} {at - 4}h18" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<text x="{_WIDTH - _RIGHT + 38}" y="{at}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
