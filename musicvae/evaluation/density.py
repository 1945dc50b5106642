"""More notes by arithmetic (section 5.5): sparse windows with the note-density vector added, and whether what is new
fits to what was there.

N windows   A amounts of the vector   T steps a window
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from musicvae.composer import Composer
from musicvae.evaluation.estimates import estimate_ratios
from musicvae.evaluation.reconstruction import Estimate
from musicvae.music.key import IN_KEY, NO_KEY, find_keys, pitch_class_steps
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import FIRST_PITCH, Drums

SPARSE = 64 / 16  # notes a bar: the paper's sparse windows have fewer than 64 in 16 bars
PAPER = {"change_percent": 398.7, "in_tonal_centre_percent": 99.7}


@dataclass(frozen=True)
class Fit:
    """Shares of notes, each with the key of its window's original."""

    in_key: Estimate  # in the scale of the key
    in_tonal_centre: Estimate  # in the major or the minor scale of its tonic: ten of the twelve pitch classes


@dataclass(frozen=True)
class Densified:
    """Windows with so much of the vector added; 0 is the plain reconstruction."""

    amount: float
    notes_a_bar: Estimate
    change_percent: Estimate  # of all notes, from the originals
    new_notes: int  # at a step and pitch where the original has none
    new: Fit
    new_classes: int  # of the new notes, those whose pitch class the original lacks
    of_new_classes: Fit
    same_key: Estimate  # share of windows that keep their key
    same_tonic: Estimate


@dataclass(frozen=True)
class DensityReport:
    """`dataclasses.asdict` makes it ready for JSON."""

    windows: int
    groups: int
    notes_a_bar: Estimate  # of the originals
    own: Fit  # the originals' own notes: what could be reached
    others: Fit  # the notes of other originals, drawn by chance: what would be so anyway
    amounts: tuple[Densified, ...]


def sparse_windows(melodies: np.ndarray) -> np.ndarray:
    """melodies (N, T) -> (N,) whether there are notes in them that tell a key, but fewer than SPARSE a bar."""
    density = (melodies >= FIRST_PITCH).sum(axis=1) / melodies.shape[1] * STEPS_PER_BAR
    return (density < SPARSE) & (find_keys(pitch_class_steps(melodies)) != NO_KEY)


def melody_of(composer: Composer, tokens: np.ndarray) -> np.ndarray:
    """tokens (N, T, streams) -> their melodies (N, T), of a trio the upper one. Raises ValueError for drums."""
    if isinstance(composer.representation, Drums):
        raise ValueError(f"{composer.name} plays drums, which have no key; this takes a model of melodies or trios")
    return np.asarray(tokens[..., 0], np.int64)


def measure_density(
    composer: Composer,
    tokens: np.ndarray,
    vector: np.ndarray,
    groups: np.ndarray,
    *,
    amounts: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
    temperature: float = 0.5,
    seed: int = 0,
) -> DensityReport:
    """Adds so much of the vector (Z,) to mu of each window (N, T, streams) of a group (N,) of songs, and compares.

    Raises ValueError for no windows, for drums, and for windows without a key (see `sparse_windows`).
    """
    melodies, mu = melody_of(composer, tokens), composer.encode_tokens(tokens).mu
    originals = Originals(melodies, np.asarray(groups), seed)
    direction = np.asarray(vector, np.float32)
    played = [composer.decode_tokens(mu + np.float32(amount) * direction, temperature, seed) for amount in amounts]
    return DensityReport(
        windows=len(melodies),
        groups=len(np.unique(groups)),
        notes_a_bar=originals.notes_a_bar(melodies),
        own=originals.fit(melodies >= FIRST_PITCH, melodies),
        others=originals.fit_of_others(),
        amounts=tuple(
            originals.compare(melody_of(composer, written), float(amount)) for written, amount in zip(played, amounts)
        ),
    )


@dataclass(frozen=True)
class Originals:
    """Melodies before anything was added to them, and all that is held against them.

    Raises ValueError for no melodies, and for those without a key.
    """

    melodies: np.ndarray  # (N, T) tokens
    groups: np.ndarray  # (N,) of songs
    seed: int = 0
    keys: np.ndarray = field(init=False)  # (N,) as if the first pitch were a C: their names do not matter here

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", find_keys(pitch_class_steps(self.melodies)))
        without = int((self.keys == NO_KEY).sum())
        if without or not len(self.keys):
            raise ValueError(
                f"{without} of {len(self.keys)} windows have no key; each needs one, and there must be one"
            )

    def compare(self, melodies: np.ndarray, amount: float) -> Densified:
        """What became of the originals: melodies (N, T) with so much of the vector added."""
        begins, before = melodies >= FIRST_PITCH, self.melodies >= FIRST_PITCH
        new = begins & (melodies != self.melodies)
        heard = np.zeros((len(self.keys), 12), bool)  # pitch classes of each original
        window, step = np.nonzero(before)
        heard[window, self._pitch_class(self.melodies)[window, step]] = True
        unheard = new & ~np.take_along_axis(heard, self._pitch_class(melodies), axis=1)
        keys = find_keys(pitch_class_steps(melodies))
        is_known = keys != NO_KEY
        return Densified(
            amount=amount,
            notes_a_bar=self.notes_a_bar(melodies),
            change_percent=self._share(100 * (begins.sum(1) - before.sum(1)), before.sum(1)),
            new_notes=int(new.sum()),
            new=self.fit(new, melodies),
            new_classes=int(unheard.sum()),
            of_new_classes=self.fit(unheard, melodies),
            same_key=self._share(is_known & (keys == self.keys), is_known),
            same_tonic=self._share(is_known & (keys % 12 == self.keys % 12), is_known),
        )

    def notes_a_bar(self, melodies: np.ndarray) -> Estimate:
        bars = np.full(len(melodies), melodies.shape[1] / STEPS_PER_BAR)
        return self._share((melodies >= FIRST_PITCH).sum(axis=1), bars)

    def fit(self, chosen: np.ndarray, melodies: np.ndarray, keys: np.ndarray | None = None) -> Fit:
        """How the chosen notes (N, T) of the melodies fit to the keys (N,), by default those of the originals."""
        keys = self.keys if keys is None else keys
        tonic = keys % 12
        classes = self._pitch_class(melodies)
        scales = IN_KEY[keys], IN_KEY[tonic] | IN_KEY[tonic + 12]  # (N, 12) each
        fits = [(np.take_along_axis(scale, classes, axis=1) & chosen).sum(axis=1) for scale in scales]
        return Fit(*(self._share(fit, chosen.sum(axis=1)) for fit in fits))

    def fit_of_others(self) -> Fit:
        """How the originals' notes fit to the key of another original, drawn anew among all."""
        keys = np.random.default_rng(self.seed).permutation(self.keys)
        return self.fit(self.melodies >= FIRST_PITCH, self.melodies, keys)

    def _pitch_class(self, melodies: np.ndarray) -> np.ndarray:
        """(N, T); of steps in which no note begins a number without a meaning."""
        return (melodies - FIRST_PITCH) % 12

    def _share(self, above: np.ndarray, below: np.ndarray) -> Estimate:
        return estimate_ratios(above[:, None], below[:, None], self.groups, self.seed)[0]
