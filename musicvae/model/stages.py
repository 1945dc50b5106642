"""Stages of a training, one after another: bars, then whole windows by equation 4. `prior_stage.py` is the last.

Bars: each bar by itself, its summary with noise as the condition of its decoders; of a flat model the whole window, mu
with noise in the place of z. The level of the window then begins where `level.py` puts it, and equation 4 trains
everything. The paper's own recipe is the second stage alone.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from musicvae.model.feed import Feed, Stream, draw_noise, draw_uniform, generator, to_tensor
from musicvae.model.level import install, solve
from musicvae.model.objective import (
    Objective,
    TrainingConfig,
    dropout,
    figures,
    kl_weight,
    learning_rate,
    objective,
    own_share,
    sums,
)
from musicvae.model.recurrence import Recurrent
from musicvae.model.vae import MusicVAE, Output, draw

BAR_SIGMA = 0.25  # deviation of the noise on each number of a code in the stage of bars
ROWS_PAY = 512  # tokens of all streams together from which on, on a CPU, rows are faster than nn.LSTM's products,
ROWS_BATCH = 16  # if a batch has so many windows
MIXED = 2  # batches of windows that give a batch of bars, each window
SHARE = 4  # a fourth of its bars
BAR_BETA = 0.02  # weight of the KL there
LEVEL_WINDOWS = 16_384  # of which the level of the window is solved, at most
LINEAR_RATE = 0.1  # of the learning rate: of what was solved already, and where every number moves every other


@dataclass
class Course:
    """What all stages of a training share."""

    model: MusicVAE
    config: TrainingConfig
    device: torch.device
    bf16: bool
    feed: Feed | None
    validation: np.ndarray  # (N, T, streams), possibly none

    @property
    def reader(self) -> MusicVAE | Recurrent:
        """What computes a step of the model fastest here: the model itself, or the same by rows."""
        return faster(self.model, self.config.batch_size, self.device, self.bf16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def moved(self, tensor: Tensor) -> Tensor:
        """On the device; on an accelerator nothing waits until it is there."""
        tensor = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return tensor.to(self.device, non_blocking=True)

    def windows(self, count: int, first: int) -> list[Tensor]:
        """Batches of at least `count` training windows, as the steps from `first` on see them."""
        assert self.feed is not None
        return [self.feed.batch(first + i) for i in range(-(-count // self.config.batch_size))]


class Stage(ABC):
    """One stage: what learns, from which batches, by which loss, over the steps from `start` to `end` of the run."""

    name: ClassVar[str]
    decay: ClassVar[float] = 0.0  # of the weights

    def __init__(self, course: Course, config: TrainingConfig, start: int):
        self.course, self.config, self.start = course, config, start  # config.steps are those of the stage
        self.module: nn.Module = course.model

    @property
    def end(self) -> int:
        return self.start + self.config.steps

    def prepare(self) -> None:  # noqa: B027 (most stages need none)
        """What happens once, before the first step."""

    def enter(self) -> None:  # noqa: B027
        """What happens before the first step and after each resumption."""

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """The weights that learn, each group with its share of the learning rate."""
        return [(list(self.module.parameters()), 1.0)]

    def learning_rate(self, step: int) -> float:
        return learning_rate(self.config, step - self.start)

    @abstractmethod
    def batch(self, step: int) -> Any:
        """What the update after `step` updates of the run sees."""

    @abstractmethod
    def loss(self, step: int, batch: Any) -> tuple[Tensor, Tensor]:
        """What is minimised, and sums over the batch for the log, the first of them the number of examples."""

    @abstractmethod
    def figures(self, tally: Tensor) -> dict[str, Any]:
        """Means by name from sums of `loss`."""

    @abstractmethod
    def validate(self, step: int) -> dict[str, Any] | None:
        """The figures of held-out windows, with the same noise each time; None without such windows."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the model and the optimizer."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Takes up what `state` gave."""


class OfWindows(Stage):
    """A stage whose batches are training windows."""

    def batch(self, step: int) -> Tensor:
        assert self.course.feed is not None
        return self.course.feed.batch(step)

    def figures(self, tally: Tensor) -> dict[str, Any]:
        return figures(tally, self.course.model.config.steps)

    def validate(self, step: int) -> dict[str, Any] | None:
        total, windows, size = torch.zeros(()), self.course.validation, self.config.batch_size
        with torch.no_grad():
            for first in range(0, len(windows), size):
                total = total + sums(self.validation(step, to_tensor(windows[first : first + size]), first)).cpu()
        return self.figures(total) if len(windows) else None

    @abstractmethod
    def validation(self, step: int, tokens: Tensor, first: int) -> Objective:
        """The objective of validation windows from number `first` on."""

    def unheard(self, step: int, tokens: Tensor) -> Tensor | None:
        """Which steps (B, T) the decoder does not hear."""
        share = dropout(self.config, step - self.start)
        return draw_uniform(tokens.shape[:2], self.config.seed, Stream.DROPOUT, step) < share if share else None

    def noise(self, count: int) -> tuple[int, ...]:
        return (count, self.course.model.config.latent_size)


class Bars(OfWindows):
    """Single bars as an autoencoder, with noise of one deviation on their codes."""

    name = "bars"

    def __init__(self, course: Course, config: TrainingConfig, start: int):
        sizes = course.model.config
        if not (sizes.linear or sizes.bars == 1):
            raise ValueError("training.bars_share is for flat models and for those with model.linear; set it to 0")
        self.mixes, self.chosen = sizes.bars > 1 and sizes.bar_start == "silent", max(1, sizes.bars // SHARE)
        size = MIXED * config.batch_size * self.chosen // sizes.bars if self.mixes else config.batch_size
        super().__init__(course, replace(config, batch_size=size), start)
        self.reader = course.reader

    def batch(self, step: int) -> Tensor:
        """Windows whose bars are of many windows, as those of one are much alike; without mixing as they are."""
        if not self.mixes:
            return super().batch(step)
        feed, sizes = self.course.feed, self.course.model.config
        assert feed is not None
        bars = torch.cat([feed.batch(MIXED * step + i, whole=False) for i in range(MIXED)]).unflatten(
            1, (sizes.bars, -1)
        )
        drawn = generator((self.config.seed, Stream.BARS, step))
        chosen = torch.rand(bars.shape[:2], generator=drawn).argsort(1)[:, : self.chosen]
        mixed = bars[torch.arange(len(bars)).unsqueeze(1), chosen].flatten(0, 1)  # (bars, S, streams)
        return mixed[: self.config.batch_size * sizes.bars].unflatten(0, (-1, sizes.bars)).flatten(1, 2)

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """All but the level of the window, which the codes do not pass."""
        above: tuple[str, ...] = ("to_sigma",)
        if self.course.model.config.linear:
            above += ("reader", "to_mu", "conductor", "to_condition", "linear")
        return [([p for name, p in self.module.named_parameters() if not name.startswith(above)], 1.0)]

    def loss(self, step: int, batch: Tensor) -> tuple[Tensor, Tensor]:
        noise = draw_noise(self.noise(len(batch)), self.config.seed, Stream.NOISE, step)
        result = self.measure(batch, noise, self.unheard(step, batch))
        return result.loss, sums(result)

    def validation(self, step: int, tokens: Tensor, first: int) -> Objective:
        noise = draw_noise(self.noise(len(tokens)), self.config.seed, Stream.VALIDATION_NOISE, first)
        return self.measure(tokens, noise, None)

    def noise(self, count: int) -> tuple[int, ...]:
        sizes = self.course.model.config
        return (count, sizes.bars * sizes.condition_size if sizes.bars > 1 else sizes.latent_size)

    def measure(self, tokens: Tensor, noise: Tensor, unheard: Tensor | None) -> Objective:
        """Equation 4 with one sigma for all, of tokens (B, T, streams), noise (B, D) and unheard (B, T)."""
        moved = self.course.moved
        tokens, noise, unheard = moved(tokens), moved(noise), None if unheard is None else moved(unheard)
        with self.course.autocast():
            means = codes(self.course, tokens)
            conditions = (means + BAR_SIGMA * noise).reshape(len(tokens) * self.course.model.config.bars, -1)
            logits = self.reader.predict_bars(tokens, conditions, unheard)
        posterior = Normal(means.float(), torch.full_like(noise, BAR_SIGMA), validate_args=False)
        return objective(Output(posterior, logits), tokens, BAR_BETA, 0.0)


class Windows(OfWindows):
    """Equation 4."""

    name = "windows"

    def __init__(self, course: Course, config: TrainingConfig, start: int):
        super().__init__(course, config, start)
        self.forward = course.reader.forward
        self.solved: dict[str, float] = {}

    @torch.no_grad()
    def prepare(self) -> None:
        """Begins with the level of the window in closed form, if a stage of bars came before."""
        if self.start == 0:
            return
        course, count = self.course, min(LEVEL_WINDOWS, self.start * self.config.batch_size)
        with course.autocast():
            parts = [codes(course, course.moved(tokens)).float().cpu() for tokens in course.windows(count, 0)]
        found = solve(torch.cat(parts), course.model.config.latent_size, self.config.distortion)
        self.solved = {"bits": round(found.bits, 1), "explained": round(found.explained, 4)}
        install(course.model, found)

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in self.module.named_parameters():
            groups[name.startswith("linear") and self.start > 0].append(parameter)
        return [(groups[False], 1.0)] + ([(groups[True], LINEAR_RATE)] if groups[True] else [])

    def loss(self, step: int, batch: Tensor) -> tuple[Tensor, Tensor]:
        noise = draw_noise(self.noise(len(batch)), self.config.seed, Stream.NOISE, step)
        share, own = own_share(self.config, step - self.start), None
        if share:
            uniforms = draw_uniform((2, *batch.shape), self.config.seed, Stream.OWN_TOKENS, step)
            own = self.course.moved(torch.where(uniforms[0, ..., :1] < share, uniforms[1], -1.0))
        result = self.measure(step, batch, noise, self.unheard(step, batch), own, self.seen(step, batch))
        return result.loss, sums(result)

    def seen(self, step: int, tokens: Tensor) -> Tensor | None:
        """tokens (B, T, streams) as the encoder sees them: in some windows a part of the streams is all 0."""
        share, streams = self.config.hidden_streams, tokens.shape[2]
        if not share or streams == 1:
            return None
        uniforms = draw_uniform((len(tokens), 2 + streams), self.config.seed, Stream.HIDDEN_STREAMS, step)
        hidden = uniforms[:, 2:] < 0.5
        kept = (uniforms[:, 1] * streams).long()  # one stream is always there
        hidden = hidden.scatter(1, kept.unsqueeze(1), False) & (uniforms[:, :1] < share)
        return tokens.masked_fill(hidden.unsqueeze(1), 0)

    def validation(self, step: int, tokens: Tensor, first: int) -> Objective:
        noise = draw_noise(self.noise(len(tokens)), self.config.seed, Stream.VALIDATION_NOISE, first)
        return self.measure(step, tokens, noise)

    def measure(
        self,
        step: int,
        tokens: Tensor,
        noise: Tensor,
        unheard: Tensor | None = None,
        own: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Objective:
        """The objective of tokens (B, T, streams) with noise (B, Z) and unheard (B, T), at the beta of this step.

        Where `own` (B, T, streams) is not negative, the decoder hears in place of the true token the one that this
        uniform number draws from what it predicts there: scheduled sampling in two passes, the first without gradient.
        The encoder sees `seen`, by default the tokens themselves.
        """
        moved = self.course.moved
        tokens, noise, unheard = moved(tokens), moved(noise), None if unheard is None else moved(unheard)
        seen = tokens if seen is None else moved(seen)
        with self.course.autocast():
            heard = tokens if own is None else self.half_own(tokens, noise, unheard, own, seen)
            output = self.forward(seen, noise, unheard, heard)
        return objective(output, tokens, kl_weight(self.config, step - self.start), self.config.free_bits)

    @torch.no_grad()
    def half_own(self, tokens: Tensor, noise: Tensor, unheard: Tensor | None, own: Tensor, seen: Tensor) -> Tensor:
        """tokens (B, T, streams), those where `own` is not negative replaced by what the decoder would write there."""
        logits, numbers = self.forward(seen, noise, unheard, tokens).logits, own.clamp(min=0).flatten(0, 1)
        written = [draw(part.flatten(0, 1), u, 1.0) for part, u in zip(logits, numbers.unbind(-1))]
        return torch.where(own < 0, tokens, torch.stack(written, -1).view_as(tokens))


def codes(course: Course, tokens: Tensor) -> Tensor:
    """tokens (B, T, streams) -> the summaries of all bars (B, U*C), or of a flat model mu (B, Z)."""
    model = course.model
    read = course.reader.read(tokens).to(model.to_mu.weight.dtype)
    if model.config.linear:
        return model.to_summary(read).reshape(len(tokens), -1)
    return model.posterior(read).mean


def faster(model: MusicVAE, batch_size: int, device: torch.device, bf16: bool) -> MusicVAE | Recurrent:
    """What computes a training step faster on this device: the model itself, or the same by rows."""
    rows_pay = device.type == "cpu" and sum(model.config.vocab_sizes) >= ROWS_PAY and batch_size >= ROWS_BATCH
    return Recurrent(model, torch.bfloat16 if bf16 else torch.float32) if rows_pay else model
