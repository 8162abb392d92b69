"""Chromium for tests that open pages, and what they measure in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = os.environ.get("SALIP_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: WCAG's contrast of the words of an element on what is painted behind them.
CONTRAST = """element => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element, paint;
  do {
    paint = numbers(getComputedStyle(behind).backgroundColor);
    behind = behind.parentElement;
  } while (paint.length === 4 && paint[3] === 0 && behind);
  const [a, b] = [light(numbers(getComputedStyle(element).color)), light(paint)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


@contextmanager
def started_browser() -> Iterator[Any]:
    """Start Chromium, or skip the test if there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium, or set SALIP_CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
