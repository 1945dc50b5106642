"""Where the two halves meet: notes in, notes out, with a latent vector in between."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from musicvae.model.checkpoint import RunConfig, load_config, load_run
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms
from musicvae.music.midi import DEFAULT_TEMPO, STEPS_PER_BAR, Song, join
from musicvae.music.representation import Representation, Trio, representation

PRETRAINED = Path(__file__).parent / "pretrained"
BATCH = 128  # windows decoded or encoded at once


class Posterior(NamedTuple):
    """q(z|x) of each window of a song (eq. 6, 7): normal, with mean mu and deviation sigma, each (windows, Z)."""

    mu: np.ndarray
    sigma: np.ndarray


class Span(NamedTuple):
    """A stretch of a song that one window covers; `bars` is less than the window's if the rest is padding."""

    bar: int
    bars: int


class Encoding(NamedTuple):
    """A song as vectors: the posterior of each window, and what the windows were cut from."""

    posterior: Posterior
    spans: list[Span]
    tokens: np.ndarray  # (windows, T, streams) that were encoded
    chosen: str  # which tracks, to be shown to the user

    @property
    def mu(self) -> np.ndarray:
        """(windows, Z)"""
        return self.posterior.mu

    @property
    def sigma(self) -> np.ndarray:
        """(windows, Z)"""
        return self.posterior.sigma


class Reconstruction(NamedTuple):
    """A song after a round trip through z, and how much of it came back: share of steps equal in all streams."""

    song: Song
    accuracy: float
    encoding: Encoding


@dataclass(frozen=True)
class Composer:
    """A trained model together with the representation of its music."""

    model: MusicVAE
    config: RunConfig
    representation: Representation

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def steps(self) -> int:
        """Steps of a window."""
        return self.model.config.steps

    @property
    def bars(self) -> int:
        """Bars of a window."""
        return self.steps // STEPS_PER_BAR

    @property
    def latent_size(self) -> int:
        return self.model.config.latent_size

    def sample(self, n: int = 1, temperature: float = 0.5, seed: int = 0, tempo: float = DEFAULT_TEMPO) -> list[Song]:
        """n new songs of one window each, z drawn from the prior. The same seed gives the same songs, whatever n."""
        if n < 1:
            raise ValueError(f"n is {n}; it must be at least 1")
        z = draw_prior(n, self.latent_size, _checked_seed(seed)).numpy()
        return self.decode(z, temperature, seed, tempo)

    def encode(
        self, song: Song, *, instrument: int | None = None, bar: int = 0, whole: bool = True, pad: bool = False
    ) -> Encoding:
        """Song -> the posterior of its windows, one after another from `bar` on, or of the first only.

        `instrument` is an index into song.instruments. The last window of a stretch of 4/4 is padded with silence.
        Raises ValueError if the song has no such part, or is shorter than a window and `pad` is not set.
        """
        tokens = self.representation.to_tokens(song, instrument)
        spans = list(self._spans(song, bar, pad))[: None if whole else 1]
        windows = np.zeros((len(spans), self.steps, tokens.shape[1]), np.int64)
        for window, span in zip(windows, spans):
            part = tokens[span.bar * STEPS_PER_BAR : (span.bar + span.bars) * STEPS_PER_BAR]
            window[: len(part)] = part
        return Encoding(self.encode_tokens(windows), spans, windows, self._describe(song, instrument))

    def encode_tokens(self, tokens: np.ndarray) -> Posterior:
        """tokens (N, T, streams) -> q(z|x) of each window."""
        parts = []
        with torch.inference_mode():
            for at in range(0, len(tokens), BATCH):
                q = self.model.encode(torch.from_numpy(np.asarray(tokens[at : at + BATCH], np.int64)).to(self._device))
                parts.append((q.mean.float().cpu().numpy(), q.stddev.float().cpu().numpy()))
        return Posterior(*(np.concatenate(column) for column in zip(*parts)))

    def decode(
        self, z: np.ndarray, temperature: float = 0.5, seed: int = 0, tempo: float = DEFAULT_TEMPO
    ) -> list[Song]:
        """z (N, Z) -> N songs of one window each. Temperature 0 takes the most likely token everywhere."""
        return [self.representation.to_song(tokens, tempo) for tokens in self.decode_tokens(z, temperature, seed)]

    def decode_tokens(self, z: np.ndarray, temperature: float = 0.5, seed: int = 0) -> np.ndarray:
        """z (N, Z) -> tokens (N, T, streams). Raises ValueError for vectors of another length, or not finite."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_size or not len(z):
            raise ValueError(f"z of shape {z.shape}; this model needs (N, {self.latent_size})")
        if not np.isfinite(z).all():
            raise ValueError("z holds values that are not finite")
        if not 0 <= temperature < float("inf"):
            raise ValueError(
                f"a temperature of {temperature:g}; it must be 0 or more (1 is the model's own, 0 the most likely)"
            )
        uniforms = draw_uniforms(len(z), self.steps, len(self.model.config.vocab_sizes), _checked_seed(seed))
        parts = []
        for at in range(0, len(z), BATCH):
            part = torch.from_numpy(z[at : at + BATCH]).to(self._device)
            parts.append(self.model.decode(part, uniforms[at : at + BATCH].to(self._device), temperature).cpu().numpy())
        return np.concatenate(parts)

    def reconstruct(
        self,
        song: Song,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        instrument: int | None = None,
        bar: int = 0,
        pad: bool = False,
    ) -> Reconstruction:
        """The song after a round trip through mu, at its own tempo: cut into windows, joined again, trimmed."""
        encoding = self.encode(song, instrument=instrument, bar=bar, pad=pad)
        tokens = self.decode_tokens(encoding.posterior.mu, temperature, seed)
        parts = [t[: s.bars * STEPS_PER_BAR] for t, s in zip(tokens, encoding.spans)]
        truth = [t[: s.bars * STEPS_PER_BAR] for t, s in zip(encoding.tokens, encoding.spans)]
        right = np.concatenate([(a == b).all(axis=1) for a, b in zip(parts, truth)])
        songs = [self.representation.to_song(part, song.tempo_at(bar * STEPS_PER_BAR)) for part in parts]
        return Reconstruction(join(songs), float(right.mean()), encoding)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _spans(self, song: Song, bar: int, pad: bool) -> Iterator[Span]:
        """Windows one after another from `bar`, anew in each stretch of 4/4."""
        if not 0 <= bar < max(song.bars, 1):
            raise ValueError(f"no bar {bar}; the song has bars 0 to {song.bars - 1}")
        spans = []
        for piece in song.pieces:
            first, end = max(piece.start // STEPS_PER_BAR, bar), piece.end // STEPS_PER_BAR
            spans += [Span(at, min(self.bars, end - at)) for at in range(first, end, self.bars)]
        longest = max(span.bars for span in spans)
        if longest < self.bars and not pad:
            raise ValueError(
                f"no {self.representation.name} of {self.bars} bars in 4/4 (longest found: {longest} bars"
                f"{f' from bar {bar}' if bar else ''}). Use --pad to fill up with silence"
                + (", or try a 2-bar model" if self.bars > 2 else "")
            )
        yield from spans

    def _describe(self, song: Song, instrument: int | None) -> str:
        def track(index: int | None) -> str:
            return "silent" if index is None else f'track {index + 1} "{song.instruments[index].name}"'

        if isinstance(self.representation, Trio):
            lead, low = self.representation.choose(song, instrument)
            return f"melody: {track(lead)}, bass: {track(low)}, drums: all"
        if self.representation.name == "drums":
            return "all drums" if instrument is None else track(instrument)
        return track(self.representation.choose(song, instrument))  # type: ignore[union-attr]


def load(name: str | Path, device: str = "cpu") -> Composer:
    """A model in the box by name, or a run folder -> Composer. Raises ValueError that lists what there is."""
    folder = find_model(name)
    run = load_run(folder, device)
    return Composer(run.model, run.config, representation(run.config.representation, run.config.drum_map or "current"))


def find_model(name: str | Path) -> Path:
    """The folder of a model: a run folder if there is one of that path, else a model in the box."""
    if Path(name).is_dir():
        return Path(name)
    if str(name) in models():
        return PRETRAINED / str(name)
    known = ", ".join(models()) or "none"
    raise ValueError(f"no model {str(name)!r}: it is no run folder, and in the box are: {known}")


def models() -> dict[str, RunConfig]:
    """The models in the box, by name."""
    folders = sorted(p for p in PRETRAINED.glob("*") if (p / "config.json").is_file()) if PRETRAINED.is_dir() else []
    return {folder.name: load_config(folder) for folder in folders}


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise ValueError(f"a seed of {seed}; it must be from 0 to 2^63 - 1")
    return seed
