"""What a review page costs in a browser: ``python -m benchmarks.review_page --images 2000``.

Chest phantoms stand for X-rays: `--distinct` of them, enlarged to `--side` pixels with noise, are
labelled with their own lungs and repeated. The page is that of ``salip-ray review``, and headless
Chromium opens it from disk. Prints a table: the time until the first image is drawn, and the CPU
time and the memory of the renderer process, at first and after `--steps` images. Linux only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from salip_ray import load_config
from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.models.bundled.phantoms import make_phantom
from salip_ray.review import page, pictures
from salip_ray.review.selection import choose
from tests.browser import FLAGS
from tests.handmade import write_labels

_MB = 1_000_000


def write_output(folder: Path, images: int, distinct: int, side: int) -> Path:
    """Write X-rays and an output that labels their lungs; return the output."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    masks = []
    for index in range(distinct):
        phantom = make_phantom("chest_xray", index, bank="tune", size=512)
        picture = cv2.resize(phantom.image[..., 0], (side, side)).astype(np.float32)
        noisy = (picture + rng.normal(0, 3, (side, side))).clip(0, 255).astype(np.uint8)
        lungs = phantom.mask("lungs").astype(np.uint8)
        masks.append(cv2.resize(lungs, (side, side), interpolation=cv2.INTER_NEAREST) > 0)
        first = folder / "images" / f"{index:05d}.jpg"
        cv2.imwrite(str(first), noisy)
        for number in range(index + distinct, images, distinct):
            (folder / "images" / f"{number:05d}.jpg").hardlink_to(first)
    write_labels(
        folder / "images",
        folder / "labels",
        load_config("lungs"),
        lambda row: {"lungs": masks[int(Path(str(row["uri"])).stem) % distinct]},
        rows_per_shard=500,
    )
    return folder / "labels"


def write_page(output: Path, file: Path) -> None:
    """Write the review page; a picture that many images share is encoded once."""
    encoded: dict[tuple[bytes, int], str] = {}

    def encode_once(image: Any, limit: int) -> str:
        key = hashlib.sha256(image.tobytes()).digest(), limit
        if key not in encoded:
            encoded[key] = pictures.encode(image, limit)
        return encoded[key]

    labels = PseudoLabels(str(output), negatives=True)
    entries = choose(labels, len(labels))
    page.encode = encode_once  # type: ignore[attr-defined]
    file.write_bytes(page.make_page(labels, entries, "lungs").data)


def resident(pid: int) -> int:
    """Return the bytes of a process that are in memory."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if "VmRSS" in line))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_page(file: Path, chromium: str, steps: int) -> dict[str, float]:
    """Open the page, and go through images; return seconds and bytes by name."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
        renderers = [one["id"] for one in processes["processInfo"] if one["type"] == "renderer"]

        def work() -> float:
            return sum(cpu_seconds(pid) for pid in renderers)

        def memory() -> int:
            return max(resident(pid) for pid in renderers)

        figures: dict[str, float] = {}
        start = time.perf_counter()
        tab.goto(file.as_uri())
        _at(tab, 1)
        figures["open, s"] = time.perf_counter() - start
        figures["open, s of CPU"] = work()
        figures["renderer after opening, MB"] = memory() / _MB
        before, start = work(), time.perf_counter()
        for number in range(2, steps + 2):
            tab.keyboard.press("ArrowRight")
            _at(tab, number)
        figures["next image, s"] = (time.perf_counter() - start) / steps
        figures["next image, s of CPU"] = (work() - before) / steps
        figures[f"renderer after {steps} images, MB"] = memory() / _MB
        before = work()
        tab.keyboard.press("a")
        _at(tab, steps + 2)
        figures["accept, s of CPU"] = work() - before
        figures["elements of the page"] = tab.evaluate("document.querySelectorAll('*').length")
        browser.close()
        return figures


def _at(tab: Any, number: int) -> None:
    """Wait until the image of a number is drawn."""
    from playwright.sync_api import expect

    expect(tab.locator("#place")).to_have_text(re.compile(f"^{number:,} of "), timeout=600_000)


def main(
    images: Annotated[int, typer.Option(min=1)] = 2000,
    side: Annotated[int, typer.Option(min=64, help="Rows and columns of an image.")] = 1024,
    distinct: Annotated[int, typer.Option(min=1, help="Phantoms that the images repeat.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Images to go through.")] = 60,
    output: Annotated[Path, typer.Option(help="Where all is written.")] = Path(
        "bench-output/review-page"
    ),
    chromium: Annotated[str, typer.Option(help="The browser.")] = shutil.which("chromium") or "",
) -> None:
    """Write a page and measure it in the browser."""
    file = output / "review.html"
    if not file.exists():
        shutil.rmtree(output, ignore_errors=True)
        labels = write_output(output, images, distinct, side)
        write_page(labels, file)
    table = Table("figure", "value")
    table.add_row("page, MB", f"{file.stat().st_size / _MB:.0f}")
    for name, value in open_page(file, chromium, min(steps, images - 2)).items():
        table.add_row(name, f"{value:.3g}" if value < 100 else f"{value:.0f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
