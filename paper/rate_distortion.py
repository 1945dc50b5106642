"""What a bit buys: KL against sampled accuracy, for models that differ in beta and free bits alone (section 4.1).

    python paper/rate_distortion.py data/melody-2 runs --max-time 15m --points 0.2:48 0.2:96 1:0
    python paper/rate_distortion.py data/melody-90 runs --preset melody-90 --from melody-2 --max-time 5m

Each point is BETA:FREE_BITS, a training of its own in RUNS for the same time, from nothing or from one model; the same
command goes on where it was stopped. Those that are finished are measured on the test windows and drawn, with the
figures as JSON beside.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train import train_for

from musicvae.composer import load
from musicvae.evaluation.command import evaluate_model
from musicvae.evaluation.results import save_results
from musicvae.music.picture import checked_matplotlib
from musicvae.presets import PRESETS, SIZES
from musicvae.train import seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = ("0.2:0", "0.2:48", "0.2:96", "0.2:192", "0.05:48", "1:48", "1:0")
PICTURE = Path(__file__).parent / "results" / "rate-distortion.svg"


def settings(point: str) -> list[str]:
    """BETA:FREE_BITS as settings of a training. Raises ValueError for anything else."""
    try:
        beta, free_bits = (float(part) for part in point.split(":"))
    except ValueError:
        raise ValueError(f"{point!r} is no point; write BETA:FREE_BITS, such as 0.2:48") from None
    return [f"training.beta={beta:g}", f"training.free_bits={free_bits:g}"]


def measure(point: str, run: Path, dataset: Path, windows: int) -> dict[str, Any]:
    """The figures of a finished run."""
    composer = load(run)
    report = evaluate_model(composer, dataset, windows=windows, show=False)["reconstruction"]
    stream = report["mean"] or report["streams"][0]
    accuracies = {way: stream[way]["accuracy"] for way in ("sampled", "greedy_mu", "teacher_forced", "nothing")}
    beta, free_bits = (float(part) for part in point.split(":"))
    return {
        "beta": beta,
        "free_bits": free_bits,
        "kl_bits": report["kl_bits"],
        "windows": report["windows"],
        "groups": report["groups"],
        "steps": composer.config.trained["steps"],
        "seconds": composer.config.trained["seconds"],
        **accuracies,
    }


def draw(points: dict[str, dict[str, Any]]) -> "Figure":
    """Accuracy over KL: sampled with its interval, teacher-forced, and always nothing."""
    checked_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    found = sorted(points.values(), key=lambda point: point["kl_bits"])
    kl, sampled = [p["kl_bits"] for p in found], [p["sampled"] for p in found]
    arms = [
        [s["value"] - (s["low"] or s["value"]) for s in sampled],
        [(s["high"] or s["value"]) - s["value"] for s in sampled],
    ]
    axes.errorbar(kl, [s["value"] for s in sampled], arms, fmt="o", color="#0072B2", capsize=3, label="sampled")
    forced = [p["teacher_forced"]["value"] for p in found]
    axes.plot(kl, forced, "o", mfc="none", color="#D55E00", label="teacher-forced")
    axes.axhline(found[0]["nothing"]["value"], color="#777777", linestyle=":", label="always nothing")
    for point, y in zip(found, sampled):
        note = f" β {point['beta']:g}, {point['free_bits']:g} free bits"
        place = {"xytext": (2, -3), "textcoords": "offset points", "va": "top", "rotation": -30}
        axes.annotate(note, (point["kl_bits"], y["value"]), fontsize=8, rotation_mode="anchor", **place)
    axes.margins(x=0.2)  # room for the last note
    axes.set(xlabel="KL, bits a window", ylabel="accuracy, share of steps")
    axes.legend(frameon=False, loc="best")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--points", nargs="+", default=list(POINTS), metavar="BETA:FREE_BITS")
    parser.add_argument("--max-time", default="15m", help="of each training, over all calls")
    parser.add_argument("--preset", choices=PRESETS, default="melody-2")
    parser.add_argument("--from", dest="start", metavar="MODEL", help="each goes on from this one")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--windows", type=int, default=2000, help="test windows, drawn by a seed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PICTURE, help="picture to write")
    given = parser.parse_args(arguments)
    chosen, measured = {point: settings(point) for point in given.points}, {}
    beside = given.out.with_suffix(".json")
    budget = seconds(given.max_time)
    kind = {"preset": given.preset, "size": None if given.start else given.size, "from": given.start, "budget": budget}
    kept = json.loads(beside.read_text()) if beside.exists() else {}
    before = kept["points"] if {key: kept.get(key) for key in kind} == kind else {}  # others are no comparison
    for point, values in chosen.items():
        run = given.runs / f"{given.preset}-beta-{point.replace(':', '-free-')}"
        how = (budget, given.size, values, given.device, given.threads)
        result = train_for(given.preset, given.dataset, run, *how, start=given.start)
        if not result.finished:
            return
        known = before.get(point, {})
        same = (known.get("steps"), known.get("seconds")) == (result.step, round(result.seconds, 1))
        measured[point] = known if same else measure(point, run, given.dataset, given.windows)
        everything = {**kind, "points": {**before, **measured}}
        save_results(given.out, draw(everything["points"]), everything)
        figures = measured[point]
        print(f"{point}: KL {figures['kl_bits']:.1f} bits, sampled accuracy {figures['sampled']['value']:.3f}")
    print(f"{given.out}: written")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"rate_distortion.py: {error}")
