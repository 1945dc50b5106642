"""Cells and tables of RESULTS.md, in Markdown."""

from typing import Any

WAYS = {
    "sampled": "sampled, z drawn",
    "sampled_mu": "sampled, z = mu",
    "greedy_mu": "most likely, z = mu",
    "teacher_forced": "teacher-forced, z drawn",
    "nothing": "always nothing",
}


def streams(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The streams of a report, and their mean where there are several."""
    return [*report["streams"], *([report["mean"]] if report["mean"] else [])]


def title(name: str, stream: dict[str, Any], report: dict[str, Any]) -> str:
    return name if len(report["streams"]) == 1 else f"{name}, {stream['name']}"


def estimate(value: dict[str, Any]) -> str:
    interval = "" if value["low"] is None else f" ({value['low']:.3f}-{value['high']:.3f})"
    return f"{value['value']:.3f}{interval}"


def two(distance: dict[str, Any]) -> tuple[str, str]:
    return f"{distance['overlap']:.2f}", f"{distance['wasserstein']:.2f}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def table(rows: list[list[str]]) -> str:
    """Rows of cells, the first of them headings, in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])
