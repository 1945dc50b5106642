"""The last stage of a training: a prior of samples, learnt from encoded music by the loop that trained the model."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from musicvae.model.bar_prior import BarPrior
from musicvae.model.feed import Stream, generator, to_tensor
from musicvae.model.flow import Flow
from musicvae.model.objective import TrainingConfig
from musicvae.model.prior import LEAST_WINDOWS, Cloud, Prior, Summaries
from musicvae.model.stages import Course, Stage, codes

PRIOR_WINDOWS = 32_768  # of which a prior is learnt, at most
PRIOR_RATE, PRIOR_DECAY, PRIOR_WARMUP = 2e-3, 0.01, 0.1
GRAIN = 0.4  # of the deviation of summaries: noise that a prior of bars learns with them
FLOW = {"units": 96, "layers": 8}
BAR_PRIOR = {"units": 72, "layers": 5, "hidden": 128, "given": 80}
PRIOR_BATCH = {Flow: 512, BarPrior: 64}


class OfPrior(Stage):
    """A prior of samples (`prior.py`), learnt from encoded music; the model stays as it is."""

    name = "prior"
    decay = PRIOR_DECAY

    def __init__(self, course: Course, config: TrainingConfig, start: int):
        size = PRIOR_BATCH[BarPrior if course.model.config.linear else Flow]
        config = replace(config, batch_size=size, learning_rate=PRIOR_RATE, warmup=PRIOR_WARMUP)
        super().__init__(course, replace(config, learning_rate_schedule="cosine"), start)
        self.count = min(PRIOR_WINDOWS, max(64, config.steps) * 16)
        self.best: dict[str, Any] = {}

    def enter(self) -> None:
        """Encodes windows: those of the steps after the last of the windows stage."""
        feed = self.course.feed
        assert feed is not None
        self.encoded = encode(self.course, self.course.windows(self.count, self.start))
        size = self.course.config.batch_size
        parts = [to_tensor(self.course.validation[i : i + size]) for i in range(0, len(self.course.validation), size)]
        self.held_out = encode(self.course, parts, self.encoded) if len(self.course.validation) else None
        self.module = new_prior(self.encoded, self.config.seed).to(self.course.device)

    def batch(self, step: int) -> Tensor:
        drawn = generator((self.config.seed, Stream.PRIOR, step))
        rows = torch.randint(len(self.encoded[0]), (self.config.batch_size,), generator=drawn)
        return self.encoded.draw(rows, drawn)

    def loss(self, step: int, batch: Tensor) -> tuple[Tensor, Tensor]:
        loss = -self.module.bits(self.course.moved(batch))  # type: ignore[operator]
        return loss, torch.stack([loss.new_tensor(float(len(batch))), loss.detach() * len(batch)])

    def figures(self, tally: Tensor) -> dict[str, Any]:
        count, loss = tally.tolist()
        return {"loss": loss / count, "bits": -loss / count}

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, Any] | None:
        """Keeps the prior that is best; without enough windows of other songs the last."""
        held_out = self.held_out
        if held_out is None or len(held_out[0]) < LEAST_WINDOWS:
            self.best = {"prior": copy.deepcopy(self.module.state_dict()), "bits": None, "step": step}
            return None
        drawn = generator((self.config.seed, Stream.PRIOR_VALIDATION))
        bits = float(self.module.bits(self.course.moved(held_out.draw(torch.arange(len(held_out[0])), drawn))))  # type: ignore[operator]
        if not self.best or bits > self.best["bits"]:
            self.best = {"prior": copy.deepcopy(self.module.state_dict()), "bits": bits, "step": step}
        return {"loss": -bits, "bits": bits}

    def state(self) -> dict[str, Any]:
        return {"prior": self.module.state_dict(), "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["prior"])
        self.best = state["best"]

    def summary(self) -> dict[str, Any]:
        """What the config of a run says of its prior."""
        bits, of_bars = self.best["bits"], isinstance(self.module, BarPrior)
        found = {"windows": len(self.encoded[0]), "steps": self.best["step"] - self.start, "of_bars": of_bars}
        return found | {"bits": None if bits is None else round(bits, 1)}

    def found(self) -> Prior | None:
        """The best prior, if it helps with windows of other songs."""
        if not self.best or (self.best["bits"] is not None and self.best["bits"] <= 0):
            return None
        prior = copy.deepcopy(self.module)
        prior.load_state_dict(self.best["prior"])
        return prior  # type: ignore[return-value]


@torch.no_grad()
def encode(course: Course, batches: list[Tensor], like: Cloud | Summaries | None = None) -> Cloud | Summaries:
    """What a prior is learnt from: summaries of bars with the noise of `like`, or posteriors of windows."""
    model, found = course.model, list[tuple[Tensor, ...]]()
    with course.autocast():
        for tokens in batches:
            if model.config.linear:
                summaries = codes(course, course.moved(tokens)).float().cpu()
                found.append((summaries.unflatten(1, (model.config.bars, -1)),))
            else:
                posterior = model.posterior(course.reader.read(course.moved(tokens)).to(model.to_mu.weight.dtype))
                found.append((posterior.mean.float().cpu(), posterior.stddev.float().cpu()))
    columns = [torch.cat(column) for column in zip(*found)]
    if not model.config.linear:
        return Cloud(*columns)
    grain = like.grain if isinstance(like, Summaries) else GRAIN * float(columns[0].var((0, 1)).mean().sqrt())
    return Summaries(columns[0], grain)


def new_prior(encoded: Cloud | Summaries, seed: int) -> Prior:
    """A prior of bars that knows the mean and the scale of each number, or a flow that changes nothing yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(encoded, Cloud):
            return Flow(encoded.mu.shape[1], **FLOW)
        prior = BarPrior(encoded.values.shape[2], **BAR_PRIOR)
    prior.mean.copy_(encoded.values.mean((0, 1)))
    prior.scale.copy_((encoded.values.var((0, 1)) + encoded.grain**2).sqrt())
    return prior
