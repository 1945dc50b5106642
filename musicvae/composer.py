"""Where the two halves meet: notes in, notes out, with a latent vector in between."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

from musicvae.box import find_model
from musicvae.files import replacing
from musicvae.hub import REPORT, fetch, is_hub_name
from musicvae.limits import (
    checked_number,
    checked_rounds,
    checked_seed,
    checked_shift,
    checked_temperature,
    checked_variation,
)
from musicvae.model import latent
from musicvae.model.config import PRIOR, WEIGHTS, RunConfig, load_config
from musicvae.model.drawing import BarDraw, Draw, load_prior
from musicvae.model.noise import draw_prior, draw_uniforms
from musicvae.model.player import Player, Posterior
from musicvae.model.vectors import ATTRIBUTES, load_vectors
from musicvae.model.weights import save_weights
from musicvae.music.cutting import Span, cut, paste, silenced, silent_steps, trimmed
from musicvae.music.midi import DEFAULT_TEMPO, STEPS_PER_BAR, Song
from musicvae.music.representation import Representation, representation

if TYPE_CHECKING:
    from musicvae.model.torch_player import TorchPlayer
    from musicvae.model.vae import MusicVAE

CARD = "README.md"
BATCH = 128  # windows decoded or encoded at once
ROUND_TEMPERATURE = 0.5  # of pseudo-Gibbs sampling
FARTHEST = 1000.0  # a number of z may be so large; the prior hardly ever goes beyond 5


class Encoding(NamedTuple):
    """A song as vectors: the posterior of each window, and what the windows were cut from."""

    posterior: Posterior
    spans: list[Span]
    tokens: np.ndarray  # (windows, T, streams) that were encoded
    chosen: str  # which tracks, to be shown to the user

    def __repr__(self) -> str:
        return f"<Encoding: mu and sigma of shape {self.mu.shape}, one row a window; {self.chosen}>"

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


class Phrase(NamedTuple):
    """One window of a song as a place in the latent space."""

    mu: np.ndarray  # (Z,)
    tempo: float
    span: Span
    chosen: str  # which tracks, to be shown to the user


Place = Song | Phrase  # a song stands for the first of its windows that is full


@dataclass(frozen=True, repr=False)
class Composer:
    """A trained model together with the representation of its music.

    The model is a player of NumPy, or one of torch, of which a player is made at its first use: weights that change
    later need a new Composer.
    """

    source: Union[Player, "MusicVAE"]
    config: RunConfig
    representation: Representation
    folder: Path | None = None  # of the run, where its attribute vectors are

    def __repr__(self) -> str:
        music = f"{self.representation.name} of {self.bars} bars, z of {self.latent_size} numbers"
        device = "cpu" if isinstance(self.source, Player) else next(self.source.parameters()).device
        return f"<Composer {self.name or 'without a name'}: {music}, on {device}>"

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def steps(self) -> int:
        """Steps of a window."""
        return self.config.model.steps

    @property
    def bars(self) -> int:
        """Bars of a window."""
        return self.steps // STEPS_PER_BAR

    @property
    def latent_size(self) -> int:
        return self.config.model.latent_size

    @cached_property
    def player(self) -> Union[Player, "TorchPlayer"]:
        """What encodes and decodes: in NumPy, or in torch for a model on another device than the CPU."""
        if isinstance(self.source, Player):
            return self.source
        from musicvae.model.torch_player import player_of

        return player_of(self.source)

    @cached_property
    def model(self) -> "MusicVAE":
        """The model in torch, in fp32 and eval mode if it was loaded."""
        if not isinstance(self.source, Player):
            return self.source
        from musicvae.model.checkpoint import to_model

        return to_model(self.source.config, self.source.weights)

    def sample(
        self,
        n: int = 1,
        temperature: float = 0.5,
        seed: int = 0,
        tempo: float = DEFAULT_TEMPO,
        rounds: int | None = None,
    ) -> list[Song]:
        """n new songs of one window each, z from `draw`. The same seed gives the same songs, whatever n."""
        return self.decode(self.draw(n, seed, rounds), temperature, seed, tempo)

    @cached_property
    def prior(self) -> Draw | None:
        """What turns N(0, I) into the prior, if the model has it (`model/drawing.py`). ValueError for a broken one."""
        path, sizes = self.folder / PRIOR if self.folder else None, self.config.model
        summary = sizes.condition_size if sizes.encoder_bars > 1 else 0
        return load_prior(path, sizes.latent_size, summary) if path and os.path.lexists(path) else None

    def draw(self, n: int = 1, seed: int = 0, rounds: int | None = None) -> np.ndarray:
        """z (n, Z) from the model's prior: its own, or N(0, I). Row i is the same whatever n.

        In each round (by default as many as the model's settings say) z is decoded and what it says is encoded, and z
        drawn anew from that posterior: pseudo-Gibbs sampling, a Markov chain towards what the model takes for music
        (as Rezende, Mohamed and Wierstra, *Stochastic backpropagation*, 2014, fill in what is missing). One or two
        rounds mend what a simple prior gets wrong; many end in what is easiest to say, the same bar over and over.
        Raises ValueError for a prior that cannot be read, or leads out of where music can be.
        """
        z = self._drawn(n, seed)
        for number in range(checked_rounds(self.config.rounds if rounds is None else rounds)):
            fresh = int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0] >> 1)
            mu, sigma = self.encode_tokens(self.decode_tokens(z, ROUND_TEMPERATURE, fresh))
            z = mu + sigma * draw_prior(n, self.latent_size, fresh)
        return z

    def _drawn(self, n: int, seed: int) -> np.ndarray:
        """z (n, Z) from the prior, before any round."""
        sizes, spread = self.config.model, self.config.spread
        count = sizes.encoder_bars * sizes.condition_size if isinstance(self.prior, BarDraw) else 0
        noise = draw_prior(checked_number(n), count + self.latent_size, checked_seed(seed))
        if self.prior is None:
            return noise
        if not 0 <= spread < float("inf"):
            raise ValueError(f"the settings of {self.name} say a spread of {spread:g}; it must be 0 or more")
        if isinstance(self.prior, BarDraw):
            of_bars, noise = np.split(noise, [count], axis=1)
            of_bars = of_bars.astype(np.float64).reshape(n, sizes.encoder_bars, -1)
            q = self.player.posterior_of_bars(self.prior.inverse(spread * of_bars).astype(np.float32))
            z = q.mu + q.sigma * noise
        else:
            z = self.prior.inverse(spread * noise.astype(np.float64)).astype(np.float32)
        if not (np.abs(z) <= FARTHEST).all():
            raise ValueError(
                f"{self.folder}/{PRIOR} draws vectors beyond {FARTHEST:g}, so it is damaged. Copy it again, or delete "
                "it to draw from N(0, I)"
            )
        return z

    def encode(
        self, song: Song, *, instrument: int | None = None, bar: int = 0, whole: bool = True, pad: bool = False
    ) -> Encoding:
        """Song -> the posterior of its windows, one after another from `bar` on, or of the first full one with a note.

        `instrument` is an index into song.instruments, `bar` an index of a bar; both begin at 0, though messages and
        the command line count from 1. The last window of a stretch of 4/4 is padded with silence.
        Raises ValueError if the song has no such part, or is shorter than a window and `pad` is not set.
        """
        part = cut(song, self.representation, self.bars, instrument=instrument, bar=bar, whole=whole, pad=pad)
        return Encoding(self.encode_tokens(part.tokens), part.spans, part.tokens, part.chosen)

    def encode_tokens(self, tokens: np.ndarray) -> Posterior:
        """tokens (N, T, streams) -> q(z|x) of each window. Raises ValueError for a model without an encoder."""
        self.check_encodes()
        parts = [self.player.encode(np.asarray(tokens[n : n + BATCH])) for n in range(0, len(tokens), BATCH)]
        return Posterior(*(np.concatenate(column) for column in zip(*parts)))

    def check_encodes(self) -> None:
        """ValueError for a model that was imported as a decoder without the encoder."""
        if not self.config.encodes:
            raise ValueError(
                f"{self.name or 'this model'} cannot encode: the checkpoint it was imported from holds no encoder, "
                "or one of zeros. It samples and decodes; another model, or training this one, is needed to encode"
            )

    def decode(
        self, z: np.ndarray, temperature: float = 0.5, seed: int = 0, tempo: float = DEFAULT_TEMPO
    ) -> list[Song]:
        """z (N, Z) -> N songs of one window each. Temperature 0 takes the most likely token everywhere."""
        return [self.representation.to_song(tokens, tempo) for tokens in self.decode_tokens(z, temperature, seed)]

    def decode_tokens(
        self, z: np.ndarray, temperature: float = 0.5, seed: int = 0, *, alike: bool = False
    ) -> np.ndarray:
        """z (N, Z) -> tokens (N, T, streams). Raises ValueError for vectors of another length, or not finite.

        `alike` draws for all what else the first alone would hear, so that only z tells the results apart.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_size or not len(z):
            raise ValueError(f"z of shape {z.shape}; this model needs (N, {self.latent_size})")
        if not (np.abs(z) <= FARTHEST).all():
            raise ValueError(f"z has values that are not finite, or beyond {FARTHEST:g}; most music is within -5 to 5")
        checked_temperature(temperature)
        streams = len(self.config.model.vocab_sizes)
        uniforms = draw_uniforms(1 if alike else len(z), self.steps, streams, checked_seed(seed))
        uniforms = np.broadcast_to(uniforms, (len(z), *uniforms.shape[1:]))
        parts = [
            self.player.decode(z[at : at + BATCH], uniforms[at : at + BATCH], temperature)
            for at in range(0, len(z), BATCH)
        ]
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
        return self.shift(song, {}, temperature, seed, instrument=instrument, bar=bar, pad=pad)

    # --- the latent space as an instrument: sections 2.1.2, 5.4, 5.5 --------------------------------------------

    def shift(
        self,
        song: Song,
        amounts: Mapping[str, float],
        temperature: float = 0.0,
        seed: int = 0,
        *,
        vectors: Mapping[str, np.ndarray] | None = None,
        instrument: int | None = None,
        bar: int = 0,
        pad: bool = False,
    ) -> Reconstruction:
        """`reconstruct` with mu of every window moved by so much of each attribute vector, by default of the model's.

        An amount of 1 is the way from the mean of the windows that lack an attribute to those that have it. Silence
        of more than a bar stays silent; windows in which nothing happens do not count in the accuracy.
        """
        encoding = self.encode(song, instrument=instrument, bar=bar, pad=pad)
        z = encoding.mu + self.direction(amounts, vectors)
        tokens, tempo = self.decode_tokens(z, temperature, seed), song.tempo_at(bar * STEPS_PER_BAR)
        melodic = self.representation.melodic  # a model would fill long silence with what it knows
        tokens = silenced(tokens, silent_steps(encoding.tokens, melodic), melodic)
        sounding = np.any(encoding.tokens, axis=(1, 2), keepdims=True)[:, 0, 0]
        pairs = list(zip(trimmed(tokens, encoding.spans), trimmed(encoding.tokens, encoding.spans)))
        counted = [pair for pair, heard in zip(pairs, sounding) if heard] or pairs
        right = np.concatenate([(a == b).all(axis=1) for a, b in counted])
        return Reconstruction(paste(tokens, encoding.spans, self.representation, tempo), float(right.mean()), encoding)

    def direction(self, amounts: Mapping[str, float], vectors: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """The sum (Z,) of so much of each attribute vector. Raises ValueError for a name without one."""
        total = np.zeros(self.latent_size, np.float32)
        known = (self.attributes() if vectors is None else vectors) if amounts else {}
        for name, amount in amounts.items():
            if name not in known:
                raise ValueError(
                    f"no attribute {name!r}; known are {', '.join(known) or 'none'}. Learn others with: "
                    "musicvae attribute learn"
                )
            total += np.float32(checked_shift(name, amount)) * np.asarray(known[name], np.float32)
        return total

    def attributes(self) -> dict[str, np.ndarray]:
        """The attribute vectors (Z,) that lie in the model's folder, by name; none if there is no such file."""
        path = self.folder / ATTRIBUTES if self.folder else None
        return load_vectors(path, self.latent_size) if path and path.exists() else {}

    def phrase(self, song: Song, *, instrument: int | None = None, bar: int = 0, pad: bool = False) -> Phrase:
        """The first full window of a song from `bar` on, as a place in the latent space; see `encode` for the rest."""
        found = self.encode(song, instrument=instrument, bar=bar, whole=False, pad=pad)
        return Phrase(found.mu[0], song.tempo_at(found.spans[0].bar * STEPS_PER_BAR), found.spans[0], found.chosen)

    def interpolate(
        self, a: Place, b: Place, steps: int = 7, *, linear: bool = False, temperature: float = 0.0, seed: int = 0
    ) -> list[Song]:
        """Songs of one window on the way from a to b; the ends are reconstructions, and count among the steps."""
        places = self._places([a, b])
        checked_number(steps)
        z = latent.path(places[0].mu, places[1].mu, steps, linear)
        return self._play(z, np.linspace(places[0].tempo, places[1].tempo, steps), temperature, seed)

    def grid(
        self, corners: Sequence[Place], size: int = 5, *, linear: bool = False, temperature: float = 0.0, seed: int = 0
    ) -> list[list[Song]]:
        """Rows of songs between four corners, two above and two below; each edge is an interpolation."""
        places = self._places(corners)
        checked_number(size * size)
        z = latent.grid(np.stack([p.mu for p in places]), size, linear)
        tempo = latent.grid(np.array([[p.tempo] for p in places]), size, straight=True)
        songs = self._play(z.reshape(size * size, -1), tempo.ravel(), temperature, seed)
        return [songs[row * size : (row + 1) * size] for row in range(size)]

    def average(
        self, places: Sequence[Place], weights: Sequence[float] | None = None, temperature: float = 0.0, seed: int = 0
    ) -> Song:
        """One window between any number of them, nearer to those of greater weight; see `latent.mix`."""
        found, weights = self._places(places), [1.0] * len(places) if weights is None else weights
        z = latent.mix(np.stack([p.mu for p in found]), np.asarray(weights))
        tempo = np.average([p.tempo for p in found], weights=weights)
        return self._play(z[None], [tempo], temperature, seed)[0]

    def vary(
        self, place: Place, n: int = 8, amount: float = 0.5, temperature: float = 0.0, seed: int = 0
    ) -> list[Song]:
        """n songs on the way from a window to draws of the prior: an amount of 0 is its reconstruction, 1 the draw."""
        checked_variation(amount)
        phrase = self._places([place])[0]
        z = latent.slerp(phrase.mu, self.draw(n, seed), amount)
        return self._play(z, [phrase.tempo] * n, temperature, seed)

    def _places(self, places: Sequence[Place]) -> list[Phrase]:
        return [place if isinstance(place, Phrase) else self.phrase(place) for place in places]

    def _play(self, z: np.ndarray, tempos: Sequence[float] | np.ndarray, temperature: float, seed: int) -> list[Song]:
        """z (N, Z) -> N songs, each at its tempo, that nothing but z tells apart."""
        tokens = self.decode_tokens(z, temperature, seed, alike=True)
        return [self.representation.to_song(t, float(tempo)) for t, tempo in zip(tokens, tempos)]

    # --- models that live elsewhere ------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str = "cpu", revision: str | None = None) -> "Composer":
        """A model from a run folder, the box, or the hub (owner/name, at a revision if given), in this order.

        Raises ValueError for none, within a few seconds where there is no network.
        """
        if isinstance(name, str) and is_hub_name(name) and not Path(name).is_dir():
            return load(fetch(name, revision), device)
        return load(name, device)

    def save_pretrained(self, folder: str | Path, half: bool = False) -> Path:
        """Writes a folder that `from_pretrained` reads, to be kept or uploaded; half stores the weights in fp16.

        With it go the prior, the attribute vectors and the card of the model, if it has them; prior and vectors of
        another model that was there before go away. A README.md that is there stays as it is.
        """
        folder = Path(folder)
        files = [PRIOR, ATTRIBUTES, REPORT, *([] if (folder / CARD).exists() else [CARD])]
        there = [self.folder / file for file in files] if self.folder else []
        beside = {path.name: path.read_bytes() for path in there if path.is_file()}
        stale = [folder / file for file in files if file not in beside] if (folder / WEIGHTS).is_file() else []
        save_weights(folder, self._weights(), self.config, half)
        for path in stale:  # of the model that was there
            path.unlink(missing_ok=True)
        for file, content in beside.items():
            with replacing(folder / file) as temporary:
                temporary.write_bytes(content)
        return folder

    def _weights(self) -> Mapping[str, np.ndarray]:
        if isinstance(self.source, Player):
            return self.source.weights
        from musicvae.model.checkpoint import arrays

        return arrays(self.source)


def load(name: str | Path, device: str = "cpu") -> Composer:
    """A run folder, a model in the box, or owner/name on the hub -> Composer.

    Raises ValueError for none of that name (it lists what there is), and where model and music do not fit each other.
    """
    folder = find_model(name)
    config = load_config(folder)
    music = representation(config.representation, config.drum_map or "current")
    found, steps = config.model.vocab_sizes, config.model.steps
    if found != music.vocab_sizes or steps % STEPS_PER_BAR:
        raise ValueError(
            f"{folder}: the model has vocab_sizes {found} and {steps} steps; {config.representation} needs "
            f"{music.vocab_sizes} and whole bars of {STEPS_PER_BAR} steps. Mend config.json, or train again"
        )
    if device == "cpu" or (device == "auto" and find_spec("torch") is None):
        return Composer(Player.load(folder, config.model), config, music, folder)
    from musicvae.model.checkpoint import load_run

    return Composer(load_run(folder, device).model, config, music, folder)
