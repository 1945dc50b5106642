"""A preset, a data set and a run folder, put together: what `musicvae train` does."""

import contextlib
import ctypes
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicvae.composer import Composer, load
from musicvae.limits import checked_threads, seconds
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.objective import TrainingConfig
from musicvae.model.run_folder import STATE, begun_steps
from musicvae.model.trainer import new_model
from musicvae.model.training import TrainingResult, train
from musicvae.model.trial import planned_steps
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset
from musicvae.music.forms import formed
from musicvae.presets import Preset, change, preset
from musicvae.progress import Progress, duration
from musicvae.shell import command

# What was learnt is to be bent, not lost: small steps, and the KL weighs from the start as much as it did in the end.
FINE_TUNING: dict[str, Any] = {"steps": 2000, "learning_rate": 3e-4, "beta_schedule": "constant", "token_dropout": 0.0}
FINE_TUNING |= {"bars_share": 0.0}
KEPT = ("beta", "free_bits")  # of the training that made the model
LISTEN_WINDOWS = 3  # of each kind written every `listen_every` steps


def train_preset(
    name: str,
    dataset_folder: Path,
    out: Path,
    size: str = "small",
    steps: int | None = None,
    max_time: str | None = None,
    seed: int = 0,
    device: str = "auto",
    settings: list[str] = [],  # noqa: B006 (never changed)
    threads: int = 0,
    start: str | Path | None = None,
    bars_from: str | Path | None = None,
) -> TrainingResult:
    """Trains a preset on a data set into a run folder, or goes on with it, printing as it goes.

    `max_time` pauses this call; without `steps` a new training takes as many as fit into it. `start` is a shipped
    model or a run folder to begin from (fine-tuning): it brings its own widths, and the schedules are gentle.
    `bars_from` is one whose encoder and decoders of bars the new model begins with. Raises ValueError, before anything
    is written, for a data set or a model that does not fit.
    """
    limit, given = seconds(max_time) if max_time else None, [] if steps is None else [f"training.steps={steps}"]
    made = prepare(name, dataset_folder, size, [*given, f"training.seed={seed}", *settings], start)
    use_threads(threads)
    keep_memory()
    if steps is None and limit is not None and not any(s.startswith("training.steps=") for s in settings):
        made = replace(made, training=replace(made.training, steps=fitting_steps(made, out, limit, device)))
    initial, origin = (made.initial.model, provenance(made.initial)) if made.initial else (None, {})
    if bars_from is not None:
        source = load(bars_from)
        initial, origin = with_bars_of(new_model(made.model, made.training.seed, None), source), provenance(source)
    result = train_on(made, out, initial, origin, limit, device)
    print(ending(result))
    return result


def fitting_steps(made: "Prepared", out: Path, limit: float, device: str) -> int:
    """The steps of the run that is there, or for a new one as many as fit into this many seconds."""
    begun = begun_steps(out)
    if begun is not None:
        return begun
    tokens = made.dataset.tokens("train")
    steps = planned_steps(made.model, made.training, tokens, limit, device)
    print(f"{made.preset.name} {made.size}: {steps:,} steps fit into {limit:.0f} s", flush=True)
    return steps


def with_bars_of(model: MusicVAE, source: Composer) -> MusicVAE:
    """The model with the encoder and decoders of another: a summary of its bars is mu of a flat source.

    Raises ValueError where their shapes differ.
    """
    given, wanted = source.model.state_dict(), model.state_dict()
    summary = "to_summary" if "to_summary.weight" in given else "to_mu"
    known = "to_summary" if "to_summary.weight" in wanted else "to_mu"
    names = {name: name for name in wanted if name.startswith(("encoder.", "decoders."))}
    names |= {f"{known}.{part}": f"{summary}.{part}" for part in ("weight", "bias")}
    wrong = [n for n, other in names.items() if other not in given or given[other].shape != wanted[n].shape]
    if wrong:
        found = tuple(given[names[wrong[0]]].shape) if names[wrong[0]] in given else "missing"
        raise ValueError(
            f"the bars of {source.name} do not fit: {wrong[0]} has shape {tuple(wanted[wrong[0]].shape)}, there it is "
            f"{found}. Give a model of the same streams and widths, or change them with --set"
        )
    model.load_state_dict(wanted | {name: given[other] for name, other in names.items()})
    return model


@dataclass(frozen=True)
class Prepared:
    """What a training is made of: all that a preset, a size, settings and a model to begin from say together."""

    preset: Preset
    dataset: Dataset
    size: str
    model: ModelConfig
    training: TrainingConfig
    initial: Composer | None


def prepare(name: str, dataset_folder: Path, size: str, settings: list[str], start: str | Path | None) -> Prepared:
    """Raises ValueError for a data set, a setting or a start that does not fit; nothing is written."""
    chosen = preset(name)
    dataset = fitting(Dataset(dataset_folder), chosen)
    if start is None:
        model, training = chosen.model(size, dataset.settings.tokens.vocab_sizes), chosen.training(size)
        return Prepared(chosen, dataset, size, *change(model, training, settings), None)
    initial = load(start)
    dataset = dataset.seen_as(initial.config.representation)
    initial = beginning(initial, dataset, start)
    sizes = change(initial.model.config, fine_tuning(chosen, initial.config), settings)
    return Prepared(chosen, dataset, initial.config.size, *sizes, initial)


def fine_tuning(chosen: Preset, start: RunConfig) -> TrainingConfig:
    """How a trained model is trained further, unless told otherwise."""
    kept = {name: start.training[name] for name in KEPT if name in start.training}
    try:
        return replace(chosen.training("small"), **FINE_TUNING, **kept)
    except TypeError:
        raise ValueError(f"config.json of {start.name!r} says {kept} of its training; needed are numbers") from None


def beginning(start: Composer, dataset: Dataset, name: str | Path) -> Composer:
    """The model itself, if its music is that of the data set. Raises ValueError otherwise."""
    music, config = dataset.settings, start.config
    found = (config.representation, start.bars, config.drum_map or "current")
    if found != (music.representation, music.bars, music.drum_map or "current"):
        wanted = f"{found[0]} of {found[1]} bars (drum map {found[2]})"
        raise ValueError(
            f"{name} plays {wanted}; {dataset.folder} holds {music.representation} of {music.bars} bars (drum map "
            f"{music.drum_map or 'current'}). Build a data set of the former with: "
            + command(*_build(found[0], found[1], found[2]))
        )
    return start


def fitting(dataset: Dataset, chosen: Preset) -> Dataset:
    """The data set itself, if its windows are what the preset learns. Raises ValueError otherwise."""
    music, wanted = dataset.settings, chosen.representation
    fits = wanted in (music.representation, music.representation.removesuffix("-90"))  # those are melodies too
    if not fits or music.bars != chosen.bars:
        raise ValueError(
            f"{dataset.folder} holds {music.representation} windows of {music.bars} bars; {chosen.name} learns "
            f"{wanted} of {chosen.bars} bars. Build one with: {command(*_build(wanted, chosen.bars))}"
        )
    return dataset


def _build(representation: str, bars: int, drum_map: str = "current") -> list[str]:
    """The words that build a data set of this kind."""
    words = ["dataset", "build", "FOLDER", "--representation", representation, "--bars", str(bars)]
    return [*words, *(["--drum-map", drum_map] if drum_map != "current" else []), "--out", "DIR"]


def provenance(start: Composer) -> dict[str, Any]:
    """What the config of a fine-tuned run keeps of the model it began with: name, origins, what was spent on it."""
    trained = start.config.trained
    return {"name": start.name} | {k: trained[k] for k in ("source", "from", "steps", "seconds") if k in trained}


def use_threads(number: int) -> None:
    """So many CPU threads; 0 leaves the choice to torch. ValueError for fewer."""
    if checked_threads(number):
        torch.set_num_threads(number)


def keep_memory() -> None:
    """Asks glibc, where that is the C library, to keep freed memory: each step needs the same again.

    Otherwise every large tensor is fresh zeroed pages from the kernel, a tenth of the time of a step on a CPU.
    """
    mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def train_on(
    made: Prepared, out: Path, initial: MusicVAE | None, origin: dict[str, Any], limit: float | None, device: str
) -> TrainingResult:
    """Trains a model on a data set into a run folder, printing as it goes."""
    dataset, training, chosen = made.dataset, made.training, made.preset
    music = dataset.settings
    tokens, validation = dataset.tokens("train"), dataset.tokens("validation")
    if not len(validation):
        print(f"{dataset.folder}: no validation windows (too few songs), so nothing is validated")
    for line in plan(dataset, out, f"{chosen.name} {made.size}", made.model, training, limit):
        print(line, flush=True)
    progress = Progress(training.steps, limit)

    def on_log(line: dict[str, Any]) -> None:
        progress.clear()
        print_line(line)

    names: dict[str, Any] = {"name": chosen.name, "representation": music.representation, "drum_map": music.drum_map}
    names |= {"preset": chosen.name, "size": made.size} | (chosen.sampling if training.prior_share else {})
    run = RunConfig(model=made.model, **names, trained={"from": origin} if origin else {})
    listener = Listener(run, music.tokens, validation if len(validation) else tokens, out)
    return train(
        run,
        training,
        tokens,
        validation,
        out,
        augment=music.tokens.augment,
        form=partial(formed, music.bars, training.forms) if training.forms else None,
        initial=initial,
        max_seconds=limit,
        device=device,
        on_log=on_log,
        on_listen=listener.write,
        on_step=progress,
    )


def plan(
    dataset: Dataset, out: Path, name: str, model: ModelConfig, training: TrainingConfig, limit: float | None
) -> list[str]:
    """What a training will do, in lines: data, model, steps or time, folder, and how to go on with it."""
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        parameters = sum(p.numel() for p in MusicVAE(model).parameters())
    windows, validation = len(dataset.tokens("train")), len(dataset.tokens("validation"))
    passes = training.steps * training.batch_size / max(windows, 1)
    pause = f", paused after {duration(limit)}" if limit is not None else ""
    begun = (out / STATE).exists()
    return [
        f"{name}: {windows:,} windows to learn from, {validation:,} to validate, of {dataset.folder}",
        f"model: {model.steps // 16} bars, {parameters:,} parameters, {model.latent_size} numbers in z",
        f"{training.steps:,} steps of {training.batch_size} windows (each seen {passes:.3g} times){pause}",
        f"folder: {out}{' (goes on with what is there)' if begun else ''}; Ctrl-C saves, the same command resumes",
    ]


class Listener:
    """Writes a few samples, and a few windows beside what the model makes of them, so that one can hear training."""

    def __init__(self, config: RunConfig, representation: Any, windows: np.ndarray, out: Path):
        self.config, self.representation, self.out = config, representation, out
        self.windows = np.asarray(windows[:: max(1, len(windows) // LISTEN_WINDOWS)][:LISTEN_WINDOWS], np.int64)

    def write(self, model: MusicVAE, step: int) -> None:
        composer = Composer(model, self.config, self.representation)
        folder = self.out / "listen" / f"step-{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        songs = {f"sample-{i}": song for i, song in enumerate(composer.sample(LISTEN_WINDOWS, seed=0), 1)}
        back = composer.decode_tokens(composer.encode_tokens(self.windows).mu, temperature=0)
        for i, (before, after) in enumerate(zip(self.windows, back), 1):
            songs[f"original-{i}"] = self.representation.to_song(before)
            songs[f"reconstructed-{i}"] = self.representation.to_song(after)
        for name, song in songs.items():
            song.save(folder / f"{name}.mid")


def print_line(line: dict[str, Any]) -> None:
    """One line of metrics.jsonl, readable."""
    start = f"{line['stage']:8}step {line['step']:>7,}" if line["kind"] == "train" else "          validation"
    text = f"{start}  loss {line['loss']:8.3f}"
    if "accuracy" in line:
        text += f"  reconstruction {line['reconstruction']:.4f} nats a step  accuracy {line['accuracy']:.4f}"
        text += f"  KL {line['kl_bits']:6.1f} bits"
    else:
        text += f"  {line['bits']:.1f} bits better than without"
    text += f"  beta {line['beta']:.3f}" if "beta" in line else ""
    text += f"  {line['examples_per_second']:.0f} examples/s" if line["kind"] == "train" else ""
    print(text, flush=True)


def ending(result: TrainingResult) -> str:
    """What to tell at the end of a call."""
    if result.finished and result.resumed_from == result.step:
        return f"{result.folder}: finished already ({result.step:,} steps); nothing to do"
    if result.finished:
        done = f"finished, {result.step:,} steps in {result.seconds:.0f} s"
        return f"{result.folder}: {done}. Hear it: {command('sample', result.folder, '--out', 'DIR')}"
    why = "interrupted" if result.interrupted else "paused"
    return f"{result.folder}: {why} at step {result.step:,}, saved. The same command goes on from here"
