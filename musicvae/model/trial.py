"""What a training finds out by trying: the faster precision, and how many steps fit into a time."""

import copy
import time

import numpy as np
import torch

from musicvae.model.checkpoint import find_device
from musicvae.model.config import ModelConfig
from musicvae.model.feed import Feed, check_windows
from musicvae.model.objective import TrainingConfig
from musicvae.model.precision import denormals_flushed, wants_bf16
from musicvae.model.prior_stage import OfPrior
from musicvae.model.stages import Stage
from musicvae.model.trainer import Trainer, new_model
from musicvae.model.vae import MusicVAE

TRIAL_SECONDS = 1.0  # for which each precision and each stage is tried
SPARE = 0.9  # of the time is planned for steps: the rest is for reading windows, validation and checkpoints


def chosen_precision(model: MusicVAE, config: TrainingConfig, device: torch.device, feed: Feed) -> bool:
    """Whether to train in bf16; `auto` tries both on a CPU that can, and takes the faster."""
    bf16 = wants_bf16(config.precision, device)
    if not bf16 or config.precision != "auto" or device.type != "cpu":
        return bf16
    trials = [Trainer(copy.deepcopy(model), config, device, choice, feed) for choice in (False, True)]
    return seconds_per_step(trials[1].stage) < seconds_per_step(trials[0].stage)


def seconds_per_step(stage: Stage) -> float:
    """Of loss and gradients of a stage: the best of some rounds after the first, which change no weight."""
    times, began = list[float](), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < TRIAL_SECONDS:
        at = time.perf_counter()
        stage.loss(stage.start, stage.batch(stage.start))[0].backward()
        for parameter in stage.module.parameters():
            parameter.grad = None
        times.append(time.perf_counter() - at)
    return min(times[1:])


def planned_steps(
    model: ModelConfig, config: TrainingConfig, tokens: np.ndarray, seconds: float, device: str | torch.device = "auto"
) -> int:
    """How many steps of all stages fit into this time, by trying some of each; at least ten.

    Raises ValueError for training windows that do not fit.
    """
    device = find_device(device)
    check_windows("training", tokens, model, at_least=config.batch_size)
    with denormals_flushed(device):
        feed, whole = Feed(tokens, config, None), new_model(model, config.seed, None)
        trainer = Trainer(whole, config, device, chosen_precision(whole, config, device, feed), feed)
        total = 0.0
        for stage in trainer.stages:
            if isinstance(stage, OfPrior):
                stage.count = 4 * stage.config.batch_size
            stage.enter()
            total += seconds_per_step(stage) * stage.config.steps
    return max(10, int(config.steps * SPARE * seconds / total))
