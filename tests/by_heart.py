"""A hierarchical model can hold real music: it learns 8 windows by heart, and writes them again through z alone.

python tests/by_heart.py melody --bars 16 --steps 1500
python tests/by_heart.py trio --bars 16 --steps 1500
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.objective import TrainingConfig
from musicvae.model.training import train
from musicvae.music.midi import MidiError, Song
from musicvae.music.representation import representation
from musicvae.music.windows import find_windows

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"
SIZES: dict[str, Any] = {
    "latent_size": 32,
    "encoder_units": 64,
    "encoder_layers": 1,
    "conductor_units": 96,
    "condition_size": 64,
}


class ByHeart(NamedTuple):
    windows: np.ndarray  # (8, T, streams) to be learnt
    accuracy: float  # share of steps, all streams, that the model writes again: most likely tokens, from mu
    consistent: bool  # whether what it writes is what it would write after its own tokens


def eight_windows(kind: str, bars: int) -> np.ndarray:
    """The first window (T, streams) of each of 8 pieces of game music."""
    windows: list[np.ndarray] = []
    for path in sorted((CORPORA / "freedoom").glob("*.mid")):
        try:
            found = find_windows([Song.read(path)], representation(kind), bars).tokens
        except MidiError:
            continue
        if len(found) and not any(np.array_equal(found[0], known) for known in windows):
            windows.append(found[0])
        if len(windows) == 8:
            return np.stack(windows).astype(np.int64)
    raise ValueError(f"{CORPORA} has no 8 pieces with a {kind} of {bars} bars")


def learn(kind: str, bars: int, steps: int, rate: float, units: int, out: Path, log_every: int = 0) -> ByHeart:
    """Trains a small model on 8 windows until it should know them."""
    data = eight_windows(kind, bars)
    model_config = ModelConfig(representation(kind).vocab_sizes, 16 * bars, bars, decoder_units=units, **SIZES)
    config = TrainingConfig(
        steps=steps, batch_size=8, learning_rate=rate, beta=1e-3, free_bits=64.0 * bars, checkpoint_every=0,
        validate_every=0, log_every=log_every,
    )  # fmt: skip
    model = train(RunConfig(model=model_config), config, data, None, out, on_log=print if log_every else None).model
    tokens = torch.from_numpy(data)
    with torch.no_grad():
        mu = model.encode(tokens).mean
        written = model.decode(mu, temperature=0)
        forced = model.predict_steps(written, mu)
    consistent = all(bool((logits.argmax(-1) == written[..., i]).all()) for i, logits in enumerate(forced))
    return ByHeart(data, float((written == tokens).all(-1).float().mean()), consistent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("melody", "drums", "trio"))
    parser.add_argument("--bars", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--units", type=int, default=96, help="of the bar decoders")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = learn(given.kind, given.bars, given.steps, given.rate, given.units, Path(folder) / "run", log_every=50)
    print(f"accuracy {result.accuracy:.4f}, free running {'equal' if result.consistent else 'NOT equal'} to its own")
