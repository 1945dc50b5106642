"""A trained run -> a model in the box: measured on the test split, weights in fp16, with a card.

    python paper/release.py runs/drums-16 data/drums-16 paper/sources/drums.md paper/sources/levels.md --name drums-16

The figures are those of the fp16 weights that are shipped, not of the run's. Where the same weights are in the box
already, and only their prior is new, the reconstruction is not measured again.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tables import trained_before

from musicvae.box import PRETRAINED
from musicvae.composer import load
from musicvae.evaluation.command import TEMPERATURES, evaluate_model
from musicvae.model.config import WEIGHTS
from musicvae.music.dataset import Dataset

SAMPLES, FIGURES = 256, "evaluation.json"


def release(
    run: Path,
    dataset: Path,
    sources: str,
    target: Path,
    windows: int | None = None,
    drawn: dict[str, float | None] | None = None,
) -> None:
    composer, before = load(run), weights(target)
    config = replace(composer.config, name=target.name)
    config = replace(config, **{key: value for key, value in (drawn or {}).items() if value is not None})
    replace(composer, config=config).save_pretrained(target, half=True)
    known = measured(target, dataset, windows) if before == weights(target) else None
    figures = evaluate_model(load(target), dataset, windows=windows, samples=SAMPLES, known=known)
    stream = figures["reconstruction"]["mean"] or figures["reconstruction"]["streams"][0]
    test = {
        "sampled_accuracy": round(stream["sampled"]["accuracy"]["value"], 4),
        "teacher_forced_accuracy": round(stream["teacher_forced"]["accuracy"]["value"], 4),
        "kl_bits": round(figures["reconstruction"]["kl_bits"], 1),
    }
    tested = replace(config, trained=config.trained | {"test": test})
    replace(composer, config=tested).save_pretrained(target, half=True)
    report = json.loads((dataset / "report.json").read_text())
    (target / "README.md").write_text(card(config, figures, report, sources), encoding="utf-8")
    (target / FIGURES).write_text(json.dumps(figures, indent=1) + "\n")


def weights(folder: Path) -> bytes | None:
    return (folder / WEIGHTS).read_bytes() if (folder / WEIGHTS).is_file() else None


def measured(folder: Path, dataset: Path, windows: int | None) -> dict[str, Any] | None:
    """The reconstruction that lies beside the weights, if it is of as many windows as are asked for."""
    path, there = folder / FIGURES, Dataset(dataset).report["splits"]["test"]["windows"]
    found = json.loads(path.read_text())["reconstruction"] if path.is_file() else None
    return found if found and found["windows"] == min(there, windows or there) else None


def card(config: Any, figures: dict[str, Any], report: dict[str, Any], sources: str) -> str:
    """The model card: what it is, what it learned from, how it was trained, and what it can do."""
    splits, trained, settings = report["splits"], config.trained, config.training
    numbers = {
        name: f"{s['windows']:,} windows of {s['songs']:,} songs ({s['groups']:,} groups)" for name, s in splits.items()
    }
    bars, start = config.model.steps // 16, trained.get("from")
    begun = f" --from {beginning(start.get('source'))}" if start else ""
    command = f"musicvae train {config.preset} DATASET --out RUN{begun} --steps {settings['steps']}"
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
        f"`{command}`: {trained['steps']:,} of {settings['steps']:,} updates of {settings['batch_size']} windows",
        f"in {trained['seconds'] / 60:,.0f} minutes on the {trained['device']} (one thread, torch {trained['torch']});",
        f"free bits {settings['free_bits']:g}, beta up to {settings['beta']:g}, learning rate "
        f"{settings['learning_rate']:g}, token dropout {settings['token_dropout']:g} at first{own_tokens(settings)}.",
        *lessons(start),
        *after(trained, config.model.latent_size),
        *sampled(config.spread, config.rounds),
        "",
        "## Reconstruction of the test windows",
        "",
        *_reconstruction(figures["reconstruction"]),
        "",
        f"## {SAMPLES} samples from the prior beside the test windows",
        "",
        *_statistics(figures["statistics"]),
        "",
        f"Measured with `musicvae evaluate {config.name} DATASET --windows {figures['reconstruction']['windows']} "
        f"--samples {SAMPLES}`; all figures are in `evaluation.json`. `paper/RESULTS.md` has those of all windows.",
    ]
    return "\n".join(lines) + "\n"


def own_tokens(settings: dict[str, Any]) -> str:
    share = settings.get("scheduled_sampling")
    return f",\nscheduled sampling of {share:g} of the tokens in the end" if share else ""


def beginning(source: Any) -> str:
    """What stands in the place of the run that a training began with: `paper/README.md` says how it is made."""
    if not source or isinstance(source, str):
        return "WARM" if source else "MODEL"
    return "LEVELS" if "began_with" in source else "TAUGHT" if source.get("lessons") else "MODEL"


def lessons(start: dict[str, Any] | None) -> list[str]:
    """What came before the training: lessons of a teacher, another training, or the weights of other models."""
    source = (start or {}).get("source")
    if not source:
        return ["", f"It began with {trained_before(start)}."] if start else []
    if isinstance(source, str):
        return ["", f"It began with {source}."]
    done = [
        f"{done['lesson']}, {done['steps']:,} updates of {done['batch_size']} in {done['seconds'] / 60:,.0f} minutes"
        for done in source["lessons"]
    ]
    if "began_with" in source:
        before = f"Before it, its levels one by one (`paper/levels.py`), beginning with {source['began_with']}: "
    else:
        before = f"Before it, lessons of {source['taught_by']}: "
    return ["", before + "; ".join(done) + "."]


def after(trained: dict[str, Any], size: int) -> list[str]:
    """What was done to the latent space after the training: whitened, and given a prior of its own."""
    lines = []
    if "whitened" in trained:
        windows = f"{trained['whitened']:,} training windows"
        lines += [f"After it, `paper/whiten.py` turned and scaled z until the posteriors of {windows} filled N(0, I)."]
    if "cut_from" in trained:
        lines += [f"Of {trained['cut_from']} numbers it kept the {size} that carry most."]
    if "prior" in trained:
        steps, bits, of_bars = (trained["prior"].get(key) for key in ("steps", "bits", "of_bars"))
        what = "what the encoder sums up the bars of music in" if of_bars else "encoded music"
        before = "if all its numbers were normal, each by itself" if of_bars else "under N(0, I)"
        lines += [
            f"Samples go through `prior.safetensors` (`paper/prior.py{' --bars' * bool(of_bars)}`, {steps:,} updates):"
        ]
        lines += [
            f"{what} is {bits:,g} bits a window likelier under it than {before}, measured on",
            "validation windows.",
        ]
    return ["", *lines] if lines else []


def sampled(spread: float, rounds: int) -> list[str]:
    """How vectors are drawn from the prior, and what is done to them then."""
    lines = [f"They are drawn from noise of deviation {spread:g} in place of 1."] if spread != 1 else []
    times = {1: "once", 2: "twice"}.get(rounds, f"{rounds} times")
    words = f"Before a vector that is drawn is played, it is decoded at temperature 0.5 and encoded again, {times}"
    lines += [words, "(pseudo-Gibbs sampling)."] if rounds else []
    return ["", *lines] if lines else []


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
        name = f"{stream['name']}: " if len(report["streams"]) > 1 else ""
        for way, text in ways.items():
            cells = [_estimate(stream[way][figure]) for figure in ("accuracy", "onset_f1")]
            rows.append(f"| {name}{text} | {cells[0]} | {cells[1]} |")
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
    for parts in zip(*(statistics[column]["streams"] for column in columns)):
        stream = f"{parts[0]['name']}: " if len(statistics["windows"]["streams"]) > 1 else ""
        values = {text: [part[key] for part in parts] for key, text in names.items() if parts[0][key] is not None}
        for drum in parts[0]["hits_a_bar"] or {}:
            values[f"{drum}, hits a bar"] = [part["hits_a_bar"][drum] for part in parts]
        rows += [f"| {stream}{text} | " + " | ".join(f"{v:.3f}" for v in row) + " |" for text, row in values.items()]
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("sources", type=Path, nargs="+", help="what it learned from, as Markdown: parts of the card")
    parser.add_argument("--windows", type=int, help="at most so many test windows, drawn by the seed")
    parser.add_argument("--spread", type=float, help="of the noise that samples are drawn from; by default the run's")
    parser.add_argument("--rounds", type=int, help="of pseudo-Gibbs sampling after the prior; by default the run's")
    parser.add_argument("--name", required=True, help="of the model in the box")
    given = parser.parse_args()
    text = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in given.sources)
    release(
        given.run,
        given.dataset,
        text,
        PRETRAINED / given.name,
        given.windows,
        {"spread": given.spread, "rounds": given.rounds},
    )
