"""What a step of a training sees and draws: it follows from (seed, step) alone."""

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from musicvae.model.config import ModelConfig
from musicvae.model.objective import TrainingConfig

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Stream(IntEnum):
    """The streams of random numbers of a training, each seeded by (seed, stream, step or epoch)."""

    ORDER = 0
    AUGMENT = 1
    NOISE = 2
    VALIDATION_NOISE = 3
    DROPOUT = 4
    VALIDATION_WINDOWS = 4  # without a step: the same numbers as DROPOUT at step 0, as NumPy drops trailing zeros
    OWN_TOKENS = 5
    PRIOR = 6
    PRIOR_VALIDATION = 7
    BARS = 8
    FORMS = 9
    HIDDEN_STREAMS = 10


class Feed:
    """The training windows in the order of the steps: a new permutation each epoch, batches straddle its end."""

    def __init__(
        self, tokens: np.ndarray, config: TrainingConfig, augment: Augment | None, form: Augment | None = None
    ):
        self.tokens, self.config, self.augment, self.form = tokens, config, augment, form
        self.permutations: dict[int, np.ndarray] = {}

    def batch(self, step: int, whole: bool = True) -> Tensor:
        """tokens (B, T, streams) int64 of the update after `step` updates; `whole` windows also take a form."""
        size, n = self.config.batch_size, len(self.tokens)
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), n)
        rows = np.concatenate([self.permutation(e)[places[epochs == e]] for e in np.unique(epochs)])
        batch = np.asarray(self.tokens[rows])
        if self.augment is not None:
            batch = self.augment(batch, np.random.default_rng([self.config.seed, Stream.AUGMENT, step]))
        if whole and self.form is not None:
            batch = self.form(batch, np.random.default_rng([self.config.seed, Stream.FORMS, step]))
        return to_tensor(batch)

    def permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self.permutations:
            kept = {e: p for e, p in self.permutations.items() if e == epoch - 1}
            order = np.random.default_rng([self.config.seed, Stream.ORDER, epoch]).permutation(len(self.tokens))
            self.permutations = {**kept, epoch: order}
        return self.permutations[epoch]


def draw_noise(shape: tuple[int, ...], *seed: int) -> Tensor:
    """Standard normal numbers on the CPU that follow from the seed alone."""
    return torch.randn(shape, generator=generator(seed))


def draw_uniform(shape: tuple[int, ...], *seed: int) -> Tensor:
    """Numbers in [0, 1) on the CPU that follow from the seed alone."""
    return torch.rand(shape, generator=generator(seed))


def generator(seed: tuple[int, ...]) -> torch.Generator:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def to_tensor(tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64))


def check_windows(split: str, tokens: np.ndarray, model: ModelConfig, at_least: int = 0) -> None:
    """ValueError unless tokens are enough windows (N, T, streams) of this model's steps, streams and vocabularies."""
    wanted = (model.steps, len(model.vocab_sizes))
    if tokens.ndim != 3 or tokens.shape[1:] != wanted or not np.issubdtype(tokens.dtype, np.integer):
        found = f"{tokens.dtype} of shape {tokens.shape}"
        raise ValueError(f"the {split} windows are {found}; the model needs integers (N, {wanted[0]}, {wanted[1]})")
    if len(tokens) < at_least:
        raise ValueError(
            f"{len(tokens)} {split} windows are fewer than one batch of {at_least}; "
            f"add music, or set training.batch_size to {len(tokens)} or less"
        )
    for start in range(0, len(tokens), 65536):  # a memory map may be larger than memory
        part = tokens[start : start + 65536]
        for i, size in enumerate(model.vocab_sizes):
            low, high = int(part[..., i].min()), int(part[..., i].max())
            if low < 0 or high >= size:
                raise ValueError(
                    f"stream {i} of the {split} windows has tokens {low} to {high}; the model has 0 to {size - 1}. "
                    "Is the data set of another representation?"
                )
