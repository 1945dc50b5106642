"""What a step of a training changes, through all its stages."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.model.config import ModelConfig
from musicvae.model.feed import Feed
from musicvae.model.objective import TrainingConfig, kl_weight
from musicvae.model.precision import wants_bf16
from musicvae.model.prior_stage import OfPrior
from musicvae.model.run_folder import check_moments, check_state
from musicvae.model.stages import Bars, Course, Stage, Windows
from musicvae.model.vae import MusicVAE


class Trainer:
    """What a step changes: the weights, the optimizer, the counters; and the stage that it belongs to."""

    def __init__(
        self,
        model: MusicVAE,
        config: TrainingConfig,
        device: torch.device,
        bf16: bool | None = None,
        feed: Feed | None = None,
        validation: np.ndarray | None = None,
    ):
        bf16 = wants_bf16(config.precision, device) if bf16 is None else bf16
        nothing = np.zeros((0, model.config.steps, len(model.config.vocab_sizes)), np.uint16)
        validation = nothing if validation is None else validation
        self.course = Course(model.to(device).train(), config, device, bf16, feed, validation)
        self.model, self.config, self.device = model, config, device
        self.stages = stages(self.course)
        self.step, self.seconds, self.updating = 0, 0.0, False
        self.validation: dict[str, Any] | None = None  # the last line of it, of whole windows
        self.place = 0
        self.begin(0)

    @property
    def stage(self) -> Stage:
        return self.stages[self.place]

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    def begin(self, place: int) -> None:
        """Makes the optimizer of a stage, without what happens once before it."""
        self.place = place
        self.stage.enter()
        groups = self.stage.rates()
        self.shares = [share for _, share in groups]
        self.parameters = [parameter for part, _ in groups for parameter in part]
        kind = torch.optim.AdamW if self.stage.decay else torch.optim.Adam
        self.optimizer = kind(
            [{"params": part} for part, _ in groups],
            lr=self.config.learning_rate,
            weight_decay=self.stage.decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.tally: Tensor | None = None  # sums since the last log line, and the length of the gradients

    def advance(self) -> None:
        """To the next stage, which begins with the weights as they are."""
        self.stages[self.place + 1].prepare()
        self.begin(self.place + 1)

    def update(self, batch: Any) -> None:
        """One step of Adam; on an accelerator nothing here waits for it."""
        self.updating = True
        for group, share in zip(self.optimizer.param_groups, self.shares):
            group["lr"] = share * self.stage.learning_rate(self.step)
        loss, sums = self.stage.loss(self.step, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        if self.device.type == "cpu":
            self.refuse_nan(loss.detach() + norm)
        self.optimizer.step()
        self.step += 1
        line = torch.cat([sums, norm.detach().reshape(1)])
        self.tally = line if self.tally is None else self.tally + line
        self.updating = False

    def validate(self) -> dict[str, Any] | None:
        """The figures of held-out windows, with the same noise each time; None without such windows."""
        self.model.eval()
        found = self.stage.validate(self.step)
        self.model.train()
        if found is None:
            return None
        line = {"kind": "validation", "stage": self.stage.name, "step": self.step, **found}
        self.validation = line if isinstance(self.stage, Windows) else self.validation
        return line

    def log_line(self) -> dict[str, Any]:
        """The means since the last log line, which this one empties; ValueError where training has diverged."""
        assert self.tally is not None
        self.refuse_nan(self.tally.sum())
        stage, last = self.stage, max(0, self.step - 1)
        updates = self.tally[0] / stage.config.batch_size
        line = {"kind": "train", "stage": stage.name, "step": self.step, **stage.figures(self.tally[:-1])}
        line |= {"beta": kl_weight(stage.config, last - stage.start)} if isinstance(stage, Windows) else {}
        line["learning_rate"] = stage.learning_rate(last)
        line["gradient_norm"] = float(self.tally[-1] / updates)
        self.tally = None
        return line

    def refuse_nan(self, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise ValueError(
                f"training diverged: loss or gradient is {float(value)} at step {self.step} (learning rate "
                f"{self.stage.learning_rate(self.step):.3g}). The last checkpoint is kept; train again in a new "
                "folder with a lower learning_rate or more warmup"
            )

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "stage": self.place,
            "kept": {n: stage.state() for n, stage in enumerate(self.stages[: self.place + 1])},
            "bf16": self.course.bf16,
            "seconds": self.seconds,
            "tally": self.tally,
            "validation": self.validation,
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Goes on from the state of a checkpoint. Raises ValueError, with its path, for one that is damaged."""
        check_state(path, state, {**self.state(), "stage": len(self.stages) - 1}, self.config.steps)
        self.model.load_state_dict(state["model"])
        self.step, self.seconds, self.validation = state["step"], state["seconds"], state["validation"]
        if state["stage"]:
            self.begin(state["stage"])
        for place, kept in state["kept"].items():
            self.stages[place].restore(kept)
        check_moments(path, state["optimizer"], self.parameters if self.step > self.stage.start else [])
        groups = self.optimizer.state_dict()["param_groups"]  # which follow from the settings
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        self.tally = None if state["tally"] is None else state["tally"].to(self.device)


def stages(course: Course) -> list[Stage]:
    """Those of a training, by their shares of the steps; a stage of no step is left out."""
    total, config = course.config.steps, course.config
    bars, prior = round(config.bars_share * total), round(config.prior_share * total)
    found: list[Stage] = []
    for kind, steps in ((Bars, bars), (Windows, total - bars - prior), (OfPrior, prior)):
        if steps > 0:
            found.append(kind(course, replace(config, steps=steps), found[-1].end if found else 0))
    return found


def new_model(model_config: ModelConfig, seed: int, initial: MusicVAE | None) -> MusicVAE:
    """A model on the CPU with weights from the seed, or with those of `initial`."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        model = MusicVAE(model_config)
    if initial is not None:
        try:
            model.load_state_dict(initial.state_dict())
        except RuntimeError:
            raise ValueError(f"the initial model is {initial.config}; the one to train is {model_config}") from None
    return model
