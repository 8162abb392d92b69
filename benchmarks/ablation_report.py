"""The ablation's figures as markdown."""

from __future__ import annotations

from typing import Any

METHODS = ("unprompted", "paper's recipe", "our recipe", "oracle choice", "GT-SAM")


def markdown(results: dict[str, Any]) -> str:
    """Return the tables of the model card."""
    lines = [
        "# Ablation",
        "",
        "Written by `make ablation`; do not edit. Dice, mean over images with its 95 % bootstrap",
        "interval. The weights: "
        + ", ".join(f"{k} `{v[:12]}`" for k, v in results["weights"].items())
        + ".",
    ]
    for name, table in results["methods"].items():
        lines += ["", f"## {name}", "", f"| | {' | '.join(METHODS)} | share of GT-SAM |"]
        lines.append("| --- |" + " --- |" * (len(METHODS) + 1))
        for task, row in table.items():
            n = row["our recipe"]["n"]
            cells = [_cell(row.get(method), n) for method in METHODS]
            lines.append(
                f"| {task} ({n}) | {' | '.join(cells)} | {100 * row['share of GT-SAM']:.1f} % |"
            )
    if options := results.get("options"):
        tasks = list(options)
        names = dict.fromkeys(name for table in options.values() for name in table)
        n = options[tasks[0]]["our recipe"]["n"]
        lines += ["", f"## Options (tune bank, {n} phantoms a kind)", ""]
        lines += ["Change of Dice by each option alone, in points.", ""]
        lines += [f"| | {' | '.join(tasks)} |", "| --- |" + " --- |" * len(tasks)]
        for name in names:
            cells = [_change(options[task].get(name), name) for task in tasks]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, table in results.get("presence", {}).items():
        lines += ["", f"## Presence on mixed inputs: {name}", ""]
        lines += ["| | precision | recall | F1 | images with | without |", "| --- |" + " --- |" * 5]
        lines += [
            f"| {task} | {row['precision']:.3f} | {row['recall']:.3f} | {row['F1']:.3f} | "
            f"{row['present']} | {row['absent']} |"
            for task, row in table.items()
        ]
    lines += ["", "## Cost (CPU seconds per image, one thread, whatever else ran)", ""]
    lines += ["| | propose | retrieve |", "| --- | --- | --- |"]
    for name, table in results["methods"].items():
        for task, row in table.items():
            spent = row["seconds"]
            lines.append(f"| {name}, {task} | {spent['propose']:.2f} | {spent['retrieve']:.2f} |")
    if naming := results.get("clip"):
        lines += ["", "## CLIP", ""]
        lines.append(
            f"Crops of {naming['classes']} classes (mean recall among {naming['known']}): "
            f"{naming['trained']:.3f} by sentences of the training wordings, "
            f"{naming['held']:.3f} by single unseen sentences, "
            f"{naming['held_mean']:.3f} by the mean of six."
        )
    return "\n".join(lines) + "\n"


def _cell(summary: dict[str, Any] | None, n: int | None = None) -> str:
    """Mean and interval; the number of images if it is not the row's ``n``."""
    if summary is None:
        return ""
    low, high = summary["interval"]
    images = "" if n in (None, summary["n"]) else f", {summary['n']} images"
    return f"{summary['mean']:.3f} ({low:.3f}-{high:.3f}{images})"


def _change(summary: dict[str, Any] | None, name: str) -> str:
    if summary is None:
        return "in it"
    if name == "our recipe":
        return _cell(summary)
    low, high = summary["change_interval"]
    return f"{100 * summary['change']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
