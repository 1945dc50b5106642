"""RESULTS.md from what `table1.py` has kept: our figures beside the paper's."""

import json
from pathlib import Path
from typing import Any

from cells import WAYS, estimate, number, percent, streams, table, title, two
from experiments import FIGURES, fine_tuned, rate_and_distortion

from musicvae.files import replacing

PAPER = {  # table 1: teacher-forced flat and hierarchical, sampled flat and hierarchical
    "2-bar drums": (0.979, None, 0.917, None),
    "2-bar melody": (0.986, None, 0.951, None),
    "16-bar melody": (0.883, 0.919, 0.620, 0.812),
    "16-bar drums": (0.884, 0.928, 0.549, 0.879),
    "trio (melody)": (0.796, 0.848, 0.579, 0.753),
    "trio (bass)": (0.829, 0.880, 0.565, 0.773),
    "trio (drums)": (0.903, 0.912, 0.641, 0.863),
}
ROWS = {  # of the table: the flat model, the hierarchical one, and which of their streams
    "2-bar drums": ("drums-2", None, 0),
    "2-bar melody": ("melody-2", None, 0),
    "16-bar melody": ("melody-16-flat", "melody-16", 0),
    "16-bar drums": ("drums-16-flat", "drums-16", 0),
    "trio (melody)": ("trio-16-flat", "trio-16", 0),
    "trio (bass)": ("trio-16-flat", "trio-16", 1),
    "trio (drums)": ("trio-16-flat", "trio-16", 2),
}
AS_LONG = "as-long-as-flat"  # folder of hierarchical models before they were trained for longer than their twins
SHARES = (0.125, 0.25, 0.5, 1.0)  # of a training's time, at which its curve is shown
HEAD = """# Results

Written by `python paper/table1.py data`, with `--runs runs` where models are not in the box and `--curves runs` for the
curves of those that are; every figure behind it is in `results/`. The paper is Roberts et al. 2018, whose models saw
some hundred times as much music and were tested on other songs: its figures are a mark, not a race. The test windows
are of songs that no training window of the model's own comes from: composed and played music only, for trios too. What
it began with may know some: the teacher of melody-2 may (its card says more), and `data.md` tells of how many test
windows the 2-bar models, where bar decoders come from, know the songs (melody-16 2 %, drums of trio-16 70 %).

Accuracy is a share of steps. Sampled: temperature 1, the model hears only its own tokens; teacher-forced: the most
likely token after the true ones; both with z drawn from the posterior. In brackets: 95 % intervals by bootstrap over
groups of songs.
"""
KINDS_OF_ERRORS = {
    "melody": (
        "another octave",
        "shortened or lengthened by up to a beat",
        "added, in the key",
        "missed",
        "another pitch",
        "other",
    ),
    "drums": ("hits missed", "hits added", "both"),
}


def kept_models(folder: Path) -> dict[str, Any]:
    """What `table1.py` keeps in a folder, by name; other figures lie there too."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: figures for name, figures in found.items() if "reconstruction" in figures}


def write_results(results: Path, out: Path) -> None:
    """Writes RESULTS.md from the JSON files of a folder."""
    models = kept_models(results)
    order = list(dict.fromkeys(name for row in ROWS.values() for name in row[:2] if name))
    models = {name: models[name] for name in (*order, *models) if name in models}
    parts = [HEAD, "## Table 1", *table1(models)]
    if models:
        parts += [
            *("## The models", *the_models(models)),
            *("## What stands beside the accuracies", *beside(models)),
            *("## Hierarchical beside flat", *twins(models, kept_models(results / AS_LONG))),
            *("## What is wrong with a wrong step (section 5.3)", *errors(models)),
            *("## Samples beside the test windows", *distances(models)),
            *("## Bars that come back", *repetition(models)),
            *("## Copies of the training windows", *copies(models)),
            *("## Validation accuracy over the time of training", *curves(models)),
        ]
    if (results / "rate-distortion.svg").exists():
        link = f"{results.name}/rate-distortion.svg"
        picture = f"![KL against accuracy for some beta and free bits of melody-2]({link})"
        parts += ["## What a bit buys", *rate_and_distortion(results / "rate-distortion.json"), picture]
    if (results / "fine-tuning.json").exists():
        parts += ["## What 20 tunes do", *fine_tuned(json.loads((results / "fine-tuning.json").read_text()))]
    for script, (heading, section) in FIGURES.items():
        pictures = sorted(results.glob(f"{script}-*.png"))
        if pictures:
            kept = {
                path.stem.removeprefix(f"{script}-"): json.loads(path.with_suffix(".json").read_text())
                for path in pictures
            }
            links = [f"![{heading} of {name}]({results.name}/{path.name})" for name, path in zip(kept, pictures)]
            command = f"`python paper/{script}.py data/MODEL MODEL --out paper/results/{script}-MODEL.png`"
            parts += [
                f"## {heading}",
                f"By {command}; all figures are in the JSON beside each picture.",
                *section(kept),
                *links,
            ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")


# --- one section each --------------------------------------------------------------------------------------------


def table1(models: dict[str, Any]) -> list[str]:
    columns = [
        f"{way}, {kind}: paper / ours" for way in ("teacher-forced", "sampled") for kind in ("flat", "hierarchical")
    ]
    rows = [["", *columns]]
    for row, (flat, hierarchical, stream) in ROWS.items():
        cells = []
        for n, (way, name) in enumerate((w, m) for w in ("teacher_forced", "sampled") for m in (flat, hierarchical)):
            if name is None:
                cells.append("")
                continue
            ours = models[name]["reconstruction"]["streams"][stream][way]["accuracy"] if name in models else None
            cells.append(f"{PAPER[row][n]:.3f} / " + (f"**{estimate(ours)}**" if ours else "not trained"))
        rows.append([row, *cells])
    names = dict.fromkeys(name for row in ROWS.values() for name in row[:2] if name)
    missing = [name for name in names if name not in models]
    why = (
        f"Not trained: {', '.join(missing)}. No GPU was at hand, and the hours of a CPU went to the models in the box; "
        "`paper/train.py` trains all of them."
    )
    return [table(rows), *([why] if missing else [])]


def the_models(models: dict[str, Any]) -> list[str]:
    rows = [["model", "size", "parameters", "updates", "windows seen", "time", "on", "free bits", "beta", "taken from"]]
    for name, model in models.items():
        trained, training = model["trained"], model["training"]
        steps, of, batch = trained.get("steps"), training.get("steps"), training.get("batch_size")
        updates = "-" if steps is None else f"{steps:,}" + ("" if steps == of or of is None else f" of {of:,}")
        seen = f"{steps * batch:,}" if steps and batch else "-"
        time = f"{trained['seconds'] / 60:.0f} min" if "seconds" in trained else "-"
        time += before(trained.get("from")) + (", then whitened" if "whitened" in trained else "")
        of_bars = trained.get("prior", {}).get("of_bars")
        time += f", with a prior of its {'bars' if of_bars else 'own'}" if "prior" in trained else ""
        time += f" (noise of {model['spread']:g})" if model.get("spread", 1) != 1 else ""
        rounds = model.get("rounds")
        time += f", {rounds} round{'s' * (rounds > 1)} of pseudo-Gibbs sampling for samples" if rounds else ""
        kind = "flat" if model["flat"] else "hierarchical"
        settings = [str(training.get(key, "-")) for key in ("free_bits", "beta")]
        rows.append(
            [
                *(f"{name} ({kind})", model["size"], f"{model['parameters']:,}", updates, seen, time),
                *(trained.get("device", "-"), *settings, model["source"]),
            ]
        )
    return [table(rows)]


def trained_before(start: dict[str, Any]) -> str:
    """The model that a training went on from, by name, with what had been spent on it, and on what it began with."""
    spent = f" after {start['steps']:,} updates in {start['seconds'] / 60:.0f} minutes" if "seconds" in start else ""
    return f"{start['name']}{spent}{before(start.get('from'))}"


def before(start: dict[str, Any] | None) -> str:
    """What came before the training itself: the lessons of a teacher, another training, or weights of other models."""
    source = (start or {}).get("source")
    if start and not source:
        return f", begun with {trained_before(start)}"
    if isinstance(source, dict) and source.get("lessons"):
        begun = f", begun with {source['began_with']}" if "began_with" in source else ""
        return f" after {sum(lesson['seconds'] for lesson in source['lessons']) / 60:.0f} min of lessons{begun}"
    return f", begun with {source}" if isinstance(source, str) else ""


def beside(models: dict[str, Any]) -> list[str]:
    rows = [["model, stream", *(f"{words}" for words in WAYS.values()), "onset F1, sampled", "gap", "gap, no dice"]]
    facts = [
        ["model", "test windows", "groups", "KL, bits", "active units", "cross entropy, nats a step", "trained on"]
    ]
    for name, model in models.items():
        report = model["reconstruction"]
        for stream in streams(report):
            accuracies = [stream[way]["accuracy"] for way in WAYS]
            forced = stream["teacher_forced"]["accuracy"]["value"]
            gaps = [f"{100 * (forced - stream[way]['accuracy']['value']):.1f}" for way in ("sampled", "greedy_mu")]
            cells = [*map(estimate, accuracies), estimate(stream["sampled"]["onset_f1"]), *gaps]
            rows.append([title(name, stream, report), *cells])
        entropy = ", ".join(f"{stream['cross_entropy']:.3f}" for stream in report["streams"])
        units = f"{report['active_units']} of {report['latent_size']}"
        counts = [f"{report['windows']:,}", str(report["groups"]), f"{report['kl_bits']:.1f}", units, entropy]
        learnt = [f"{corpus} {f['train']:,}" for corpus, f in model["data"]["folders"].items() if f["train"]]
        facts.append([name, *counts, ", ".join(learnt)])
    note = (
        "Gap: points of accuracy between teacher-forced and sampled; without dice: and the most likely tokens from mu, "
        "where the model hears only itself too, but draws nothing. What is left then is what its own mistakes cost, "
        "the rest is what it was not sure of. Onset F1: exact step and pitch (drums: class); that of always nothing is "
        "0. Active units: variance of mu over the test windows above 0.01. KL: before free bits."
    )
    return [note, table(rows), table(facts)]


def twins(models: dict[str, Any], as_long: dict[str, Any]) -> list[str]:
    """Rows of hierarchical models and their flat twins; `as_long` holds earlier ones that had the twin's time only."""
    rows = [["model, stream", "minutes, flat", "minutes, hierarchical", "flat, sampled", "hierarchical, sampled"]]
    rows[0] += ["difference", "intervals"]
    for name in ("melody-16", "drums-16", "trio-16"):
        twin = models.get(f"{name}-flat")
        for model in (found[name] for found in (as_long, models) if name in found and twin):
            pair = [streams(m["reconstruction"]) for m in (twin, model)]
            minutes = [f"{seconds_spent(m.get('trained', {})) / 60:.0f}" for m in (twin, model)]
            for flat, hierarchical in zip(*pair):
                low, high = (s["sampled"]["accuracy"] for s in (flat, hierarchical))
                apart = high["low"] is not None and high["low"] > low["high"]
                below = high["low"] is not None and high["high"] < low["low"]
                words = "apart" if apart else "apart, the flat one is better" if below else "overlap"
                difference = f"{100 * (high['value'] - low['value']):+.1f} points"
                heading = title(name, hierarchical, model["reconstruction"])
                rows.append([heading, *minutes, estimate(low), estimate(high), difference, words])
    if len(rows) == 1:
        return ["No pair of a hierarchical model and its flat twin is trained yet."]
    note = (
        "Minutes of one core, with the lessons before the training itself, without those of the 2-bar models that bar "
        "decoders come from. A hierarchical model that had much longer than its twin stands there twice: first as it "
        "was when both had had as long, then as it is in the box."
    )
    return [note, table(rows)]


def seconds_spent(trained: dict[str, Any]) -> float:
    """Of a training, of the lessons before it, and of the trainings that it went on from."""
    start = trained.get("from") or {}
    source = start.get("source")
    lessons = source.get("lessons", []) if isinstance(source, dict) else []
    before = sum(lesson["seconds"] for lesson in lessons) if lessons else seconds_spent(start) if start else 0.0
    return float(trained.get("seconds", 0.0) + before)


def errors(models: dict[str, Any]) -> list[str]:
    found = {kind: [["model, stream", "tokens", "wrong steps", *names]] for kind, names in KINDS_OF_ERRORS.items()}
    for name, model in models.items():
        for way, reports in model["errors"].items():
            for stream in reports:
                kind = "drums" if stream["name"] == "drums" else "melody"
                label = name if len(reports) == 1 else f"{name}, {stream['name']}"
                shares = [percent(share["value"]) for share in stream["kinds"].values()]
                wrong = percent(stream["wrong"] / stream["steps"])
                found[kind].append([label, WAYS[way], wrong, *shares])
    note = "Shares of the wrong steps; each is of the first kind that fits (`musicvae/evaluation/errors.py`)."
    return [note, *(table(rows) for rows in found.values() if len(rows) > 1)]


def distances(models: dict[str, Any]) -> list[str]:
    parts = []
    for name, model in models.items():
        sets = [s for s in model["quality"] if s != "test windows"]
        columns = [f"{s}: {what}" for s in sets for what in ("overlap", "distance")]
        rows = [["figure", *columns]]
        for i, stream in enumerate(model["quality"]["test windows"]["streams"]):
            for figure in stream["distances"]:
                found = [model["quality"][s]["streams"][i]["distances"][figure] for s in sets]
                cells = [cell for d in found for cell in (("-", "-") if d is None else two(d))]
                unit = next((d["unit"] for d in found if d), "")
                label = (
                    figure if len(model["quality"]["test windows"]["streams"]) == 1 else f"{stream['name']}: {figure}"
                )
                rows.append([f"{label}, {unit}" if unit else label, *cells])
        samples = model["quality"]["temperature 1"]["windows"]
        parts += [f"### {name}: {samples:,} samples", table(rows)]
    note = (
        "Overlap: of the two histograms, 1 if they are the same. Distance: Wasserstein, in the figure's unit. The "
        "training windows, of composed and played music only, show how far real music is from the test windows. "
        "Samples go through the model's own prior where it has one (see the models above), or else come from N(0, I). "
        "No round: as they would be without the rounds of pseudo-Gibbs sampling that the model has after that."
    )
    return [note, *parts]


def repetition(models: dict[str, Any]) -> list[str]:
    sets = ("test windows", "temperature 0.5", "temperature 0.5, no round", "temperature 1")
    rows = [["model, stream", "windows", *(f"lag {lag}" for lag in (1, 2, 4, 8)), "another window", "equal at lag 1"]]
    for name, model in models.items():
        for i, stream in enumerate(model["quality"]["test windows"]["streams"]):
            several = len(model["quality"]["test windows"]["streams"]) > 1
            for s in (s for s in sets if s in model["quality"]):
                lags = model["quality"][s]["streams"][i]["repetition"]
                cells = [number(lags[lag]["similarity"]) if lag in lags else "" for lag in ("1", "2", "4", "8")]
                label = f"{name}, {stream['name']}" if several else name
                rows.append([label, s, *cells, number(lags["1"]["unrelated"]), number(lags["1"]["equal"])])
    note = (
        "How much of a bar stands in the bar one, two, four, eight bars before: share of their onsets that both have "
        "(F1, exact step and pitch or class). Another window: the same with a bar of another window, by chance."
    )
    return [note, table(rows)]


def copies(models: dict[str, Any]) -> list[str]:
    heads = ["copies", "copies in any key", "longest copied run, beats: mean", "longest of all", "of"]
    rows = [["model", "windows", *heads]]
    for name, model in models.items():
        for s in ("test windows", "temperature 0.5", "temperature 1"):
            found = model["quality"][s]
            whole, runs = found["statistics"], found["runs"]
            transposed = "-" if whole["copies_transposed"] is None else percent(whole["copies_transposed"])
            shares = [percent(whole["copies"]), transposed]
            rows.append([name, s, *shares, f"{runs['mean']:.1f}", str(runs["longest"]), str(4 * model["bars"])])
    note = "A copy is a window that stands in the training set, all streams together; a run is one of whole beats."
    return [note, table(rows)]


def curves(models: dict[str, Any]) -> list[str]:
    rows = [
        [
            "model",
            *(f"after {100 * share:g} % of the time" for share in SHARES),
            "the last doubling gave",
        ]
    ]
    for name, model in models.items():
        lines = model["validation"]
        if len(lines) < 2:
            continue
        end = lines[-1]["seconds"]
        near = [min(lines, key=lambda line: abs(line["seconds"] - share * end)) for share in SHARES]
        cells = [
            f"{line['accuracy']:.3f} ({line['seconds'] / 60:.0f} min, {line['kl_bits']:.0f} bits)"
            if abs(line["seconds"] / end - share) < share / 2
            else "-"
            for share, line in zip(SHARES, near)
        ]
        gain = 100 * (near[-1]["accuracy"] - near[-2]["accuracy"])
        rows.append([name, *cells, f"{gain:+.1f} points"])
    note = (
        "Teacher-forced accuracy of the validation windows (steps right in all streams), of the last training of each "
        "model alone. The KL is that of the training: whitening then took some off, which the tables above show."
    )
    return [note, table(rows)] if len(rows) > 1 else ["No run folder with its metrics was at hand."]
