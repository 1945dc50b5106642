"""A trained run -> a model in the box: measured on the test split, weights in fp16, with a card.

    python paper/release.py RUN DATASET paper/sources/melody-2.md musicvae/pretrained/melody-2

The figures are those of the fp16 weights that are shipped, not of the run's.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from musicvae.composer import load
from musicvae.evaluation.command import TEMPERATURES, evaluate_model
from musicvae.model.checkpoint import load_run, save_run

SAMPLES = 256


def release(run: Path, dataset: Path, sources: str, target: Path) -> None:
    model, config = load_run(run)
    save_run(target, model, config, half=True)
    figures = evaluate_model(load(target), dataset, samples=SAMPLES)
    stream = figures["reconstruction"]["mean"] or figures["reconstruction"]["streams"][0]
    test = {
        "sampled_accuracy": round(stream["sampled"]["accuracy"]["value"], 4),
        "teacher_forced_accuracy": round(stream["teacher_forced"]["accuracy"]["value"], 4),
        "kl_bits": round(figures["reconstruction"]["kl_bits"], 1),
    }
    save_run(target, model, replace(config, trained=config.trained | {"test": test}), half=True)
    report = json.loads((dataset / "report.json").read_text())
    (target / "README.md").write_text(card(config, figures, report, sources), encoding="utf-8")
    (target / "evaluation.json").write_text(json.dumps(figures, indent=1) + "\n")


def card(config: Any, figures: dict[str, Any], report: dict[str, Any], sources: str) -> str:
    """The model card: what it is, what it learned from, how it was trained, and what it can do."""
    splits, trained, settings = report["splits"], config.trained, config.training
    numbers = {
        name: f"{s['windows']:,} windows of {s['songs']:,} songs ({s['groups']:,} groups)" for name, s in splits.items()
    }
    steps, bars = trained["steps"], config.model.steps // 16
    command = f"musicvae train {config.preset} DATASET --out RUN --size {config.size} --steps {settings['steps']}"
    lines = [
        f"# {config.name}",
        "",
        f"A {config.size} MusicVAE of {bars} bars of {config.representation}, weights in fp16. Licence: Apache-2.0.",
        "",
        "## Data",
        "",
        sources,
        "",
        *(f"* {name}: {text}" for name, text in numbers.items()),
        "",
        "## Training",
        "",
        f"`{command}`: {steps:,} of {settings['steps']:,} updates of {settings['batch_size']} windows",
        f"in {trained['seconds']:,.0f} s on the {trained['device']} (one thread, torch {trained['torch']});",
        f"free bits {settings['free_bits']:g}, beta up to {settings['beta']:g}.",
        "",
        "## Reconstruction of the test windows",
        "",
        *_reconstruction(figures["reconstruction"]),
        "",
        f"## {SAMPLES} samples from the prior beside the test windows",
        "",
        *_statistics(figures["statistics"]),
        "",
        "Measured with `musicvae evaluate "
        + config.name
        + f" DATASET --samples {SAMPLES}`; all figures are in `evaluation.json`.",
    ]
    return "\n".join(lines) + "\n"


def _reconstruction(report: dict[str, Any]) -> list[str]:
    ways = {
        "sampled": "sampled (temperature 1), z drawn",
        "sampled_mu": "sampled, z = mu",
        "greedy_mu": "most likely, z = mu",
        "teacher_forced": "teacher-forced, z drawn",
        "nothing": "always nothing (baseline)",
    }
    rows = ["| | accuracy (95 % interval) | onset F1 (95 % interval) |", "|---|---|---|"]
    for stream in report["streams"]:
        for way, text in ways.items():
            cells = [_estimate(stream[way][figure]) for figure in ("accuracy", "onset_f1")]
            rows.append(f"| {text} | {cells[0]} | {cells[1]} |")
    units = f"{report['active_units']} of {report['latent_size']} units of z in use"
    rows += [
        "",
        f"{report['windows']:,} windows of {report['groups']} groups; KL {report['kl_bits']:.1f} bits; {units}.",
    ]
    return rows


def _estimate(value: dict[str, Any]) -> str:
    interval = "" if value["low"] is None else f" ({value['low']:.3f}-{value['high']:.3f})"
    return f"{value['value']:.3f}{interval}"


def _statistics(statistics: dict[str, Any]) -> list[str]:
    columns = {"windows": "test windows", **{f"temperature {t:g}": f"temperature {t:g}" for t in TEMPERATURES}}
    rows = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    names = {
        "onsets_a_bar": "onsets a bar",
        "silence": "share of silent steps",
        "one_note": "share of windows with one note (class) or none",
        "pitch_range": "pitch range, semitones",
        "pitch_class_entropy": "pitch-class entropy, bits",
        "distinct": "share of different windows",
        "copies": "share that are a training window",
        "copies_transposed": "the same, in any key",
    }
    streams = [statistics[column]["streams"][0] for column in columns]
    for key, text in names.items():
        if streams[0][key] is not None:
            rows.append(f"| {text} | " + " | ".join(f"{s[key]:.3f}" for s in streams) + " |")
    for drum in streams[0]["hits_a_bar"] or {}:
        rows.append(f"| {drum}, hits a bar | " + " | ".join(f"{s['hits_a_bar'][drum]:.3f}" for s in streams) + " |")
    return rows


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    release(
        Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_text(encoding="utf-8").strip(), Path(sys.argv[4])
    )
