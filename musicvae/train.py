"""A preset, a data set and a run folder, put together: what `musicvae train` does."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from musicvae.composer import Composer
from musicvae.model.checkpoint import RunConfig
from musicvae.model.training import TrainingResult, train
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset
from musicvae.presets import change, preset

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
) -> TrainingResult:
    """Trains a preset on a data set into a run folder, or goes on with it, printing as it goes.

    Raises ValueError, before anything is written, for a data set that does not fit the preset.
    """
    import torch

    chosen, limit = preset(name), seconds(max_time) if max_time else None
    dataset = Dataset(dataset_folder)
    music = dataset.settings
    kind = music.representation.removesuffix("-90")  # the original's 90 tokens are a melody too
    if (kind, music.bars) != (chosen.representation, chosen.bars):
        raise ValueError(
            f"{dataset_folder} holds {music.representation} windows of {music.bars} bars; {name} learns "
            f"{chosen.representation} of {chosen.bars} bars. Build one with: musicvae dataset build FOLDER "
            f"--representation {chosen.representation} --bars {chosen.bars} --out DIR"
        )
    given = [f"training.steps={steps}"] if steps is not None else []
    model, training = change(
        chosen.model(size, music.tokens.vocab_sizes),
        chosen.training(size),
        [*given, f"training.seed={seed}", *settings],
    )
    if threads:
        torch.set_num_threads(threads)
    tokens, validation = dataset.tokens("train"), dataset.tokens("validation")
    if not len(validation):
        print(f"{dataset_folder}: no validation windows (too few songs), so nothing is validated")
    print(f"{name} {size}: {len(tokens):,} windows, {training.steps:,} steps of {training.batch_size}", flush=True)
    config = RunConfig(name=name, representation=music.representation, drum_map=music.drum_map, model=model)
    listener = Listener(config, music.tokens, validation if len(validation) else tokens, out)
    result = train(
        model,
        training,
        tokens,
        validation,
        out,
        name=name,
        representation=music.representation,
        drum_map=music.drum_map,
        preset=name,
        size=size,
        augment=None if chosen.representation == "drums" else music.tokens.transpose,
        max_seconds=limit,
        device=device,
        on_log=print_line,
        on_listen=listener.write,
    )
    print(ending(result))
    return result


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


def seconds(text: str) -> float:
    """ "90s", "10m", "2h" or plain seconds -> seconds. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ValueError(f"--max-time {text!r}; write 90s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def print_line(line: dict[str, Any]) -> None:
    """One line of metrics.jsonl for the eye."""
    start = f"step {line['step']:>7,}" if line["kind"] == "train" else "  validation "
    text = (
        f"{start}  loss {line['loss']:8.3f}  reconstruction {line['reconstruction']:.4f} nats a step  "
        f"accuracy {line['accuracy']:.4f}  KL {line['kl_bits']:6.1f} bits"
    )
    if line["kind"] == "train":
        text += f"  beta {line['beta']:.3f}  {line['examples_per_second']:.0f} examples/s"
    print(text, flush=True)


def ending(result: TrainingResult) -> str:
    """What to tell at the end of a call."""
    if result.finished and result.resumed_from == result.step:
        return f"{result.folder}: finished already ({result.step:,} steps); nothing to do"
    if result.finished:
        done = f"finished, {result.step:,} steps in {result.seconds:.0f} s"
        return f"{result.folder}: {done}. Hear it: musicvae sample {result.folder} --out DIR"
    why = "interrupted" if result.interrupted else "paused"
    return f"{result.folder}: {why} at step {result.step:,}, saved. The same command goes on from here"
