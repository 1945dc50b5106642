"""Sections of RESULTS.md about single experiments: what a bit buys, fine-tuning, interpolation, attribute vectors."""

import json
from pathlib import Path
from typing import Any

from cells import WAYS, estimate, table


def interpolations(kept: dict[str, Any]) -> list[str]:
    text = (
        "The paper finds that a mix of the two costs most half way, that what a latent space has between them costs "
        "about what the originals cost, and that the distance from A grows all the way. Cost: under the 5-gram "
        "model, that of the originals is 1; below it music is more usual than they are, as where a model leaves out "
        "what it does not understand. Distance: share of steps that are not A's; at A it is what the reconstruction "
        "lost. Largest jump: distance between neighbours of the 11 points, the largest of each way, mean of all."
    )
    rows = [
        [
            "data",
            "curve",
            "pairs",
            "cost at A, half way, B",
            "most above the ends",
            "distance at A, half way, B",
            "largest jump",
        ]
    ]
    for name, found in kept.items():
        for curve in found["curves"]:
            points = [0, len(curve["points"]) // 2, -1]
            costs, distances = (
                ", ".join(f"{curve[key][at]['value']:.3f}" for at in points) for key in ("cost", "to_a")
            )
            jump = f"{curve['largest_jump']['value']:.3f}"
            rows.append([name, curve["name"], f"{found['pairs']:,}", costs, f"{curve['hump']:+.3f}", distances, jump])
    return [text, table(rows)]


def densities(kept: dict[str, Any]) -> list[str]:
    paper = next(iter(kept.values()))["paper"]
    text = (
        f"The paper adds {paper['change_percent']:g} % of notes, {paper['in_tonal_centre_percent']:g} % of them in the "
        "original tonal centre. Key: by the profiles of Krumhansl and Kessler. Around the tonic: in the major or "
        "the minor scale of its tonic, ten of twelve pitch classes. Beside the new notes stand those of the windows "
        "themselves, and those of other windows, which is chance."
    )
    rows = [["model", "windows", "amount", "notes, change in %", "new notes in the key", "around the tonic"]]
    for found in kept.values():
        for model in found["models"]:
            report = model["report"]
            for words, notes in (("their own notes", report["own"]), ("notes of others", report["others"])):
                shares = [estimate(notes[key]) for key in ("in_key", "in_tonal_centre")]
                rows.append([model["model"], f"{report['windows']:,}", words, "", *shares])
            for moved in report["amounts"][1:]:
                shares = [estimate(moved["new"][key]) for key in ("in_key", "in_tonal_centre")]
                change = f"{moved['change_percent']['value']:+.0f}"
                rows.append([model["model"], f"{report['windows']:,}", f"{moved['amount']:g}", change, *shares])
    return [text, table(rows)]


def fine_tuned(found: dict[str, Any]) -> list[str]:
    corpus = next(iter(found["measured"]))
    text = (
        f"`musicvae train --from {found['model']}` on {found['windows']:,} windows of {found['tunes']} tunes of "
        f"{corpus} that had not trained it, {found['steps']:,} updates in {found['seconds'] / 60:.1f} minutes of one "
        f"core; by `python paper/fine_tuning.py {corpus} data/melody-90 {found['model']}`. Measured on that corpus's "
        "other tunes that did not train, and on test windows of all other corpora."
    )
    ways = ("sampled", "greedy_mu", "teacher_forced")
    rows = [["music", "windows", "model", *(WAYS[way] for way in ways), "onset F1, sampled", "KL, bits"]]
    for music, measured in found["measured"].items():
        for when, figures in measured.items():
            cells = [estimate(figures[way]["accuracy"]) for way in ways]
            cells += [estimate(figures["sampled"]["onset_f1"]), f"{figures['kl_bits']:.1f}"]
            rows.append([music, f"{figures['windows']:,}", when, *cells])
    return [text, table(rows)]


def rate_and_distortion(kept: Path) -> list[str]:
    found = json.loads(kept.read_text())
    began = f"{found['from']} as it was then" if found["from"] else "nothing"
    text = (
        f"Each row is a training of {found['preset']} for {found['budget'] / 60:g} minutes of one core, beginning with "
        f"{began}; by `python paper/rate_distortion.py`. The core was not always free, so that the updates differ."
    )
    rows = [["beta", "free bits", "updates", "KL, bits", "sampled accuracy (95 % interval)", "teacher-forced"]]
    for point in sorted(found["points"].values(), key=lambda point: point["kl_bits"]):
        numbers = [f"{point['beta']:g}", f"{point['free_bits']:g}", f"{point['steps']:,}", f"{point['kl_bits']:.1f}"]
        rows.append([*numbers, estimate(point["sampled"]), f"{point['teacher_forced']['value']:.3f}"])
    return [text, table(rows)]


FIGURES = {
    "figure3": ("Interpolation (section 5.4, figure 3)", interpolations),
    "figure4": ("More notes by an attribute vector (section 5.5, figure 4)", densities),
}
