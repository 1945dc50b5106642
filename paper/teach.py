"""Teaching a model of ours what a trained decoder knows: the decoder by soft targets, the encoder by its dreams.

    musicvae import TEACHER --out runs/teacher
    python paper/teach.py decoder runs/teacher data/melody-90 runs/decoder --learning-rate 2e-3
    python paper/teach.py dreams runs/teacher data/melody-90 runs/dreams --batch-size 256
    python paper/teach.py windows runs/teacher data/melody-90 runs/encoder --batch-size 256 --start runs/dreams
    python paper/teach.py join runs/decoder runs/encoder runs/taught
    musicvae train melody-90 data/melody-90 --from runs/taught --out runs/melody-90

`decoder` learns p(x|z) from the teacher's own samples, whose every step has the teacher's whole distribution as its
target. An encoder learns q(z|x) of such samples (`dreams`, the sleep phase of Hinton et al. 1995), then equation 4 on
real windows through the teacher's decoder, which stays as it is (`windows`). The teacher needs no encoder of its own.
Killed, the same command goes on from the last checkpoint.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicvae.files import replacing
from musicvae.model.checkpoint import RunConfig, load_run, save_run
from musicvae.model.objective import TrainingConfig, learning_rate, objective
from musicvae.model.sampling import FastDecoder
from musicvae.model.training import Feed, draw_noise
from musicvae.model.vae import MusicVAE, Output
from musicvae.music.dataset import Dataset
from musicvae.music.representation import representation
from musicvae.train import keep_memory

BETA, FREE_BITS = 0.2, 48.0
CHECKPOINT = 40  # steps


class Teacher:
    """A trained decoder that dreams: z from the prior, tokens from its own distributions at temperature 1."""

    def __init__(self, folder: Path):
        run = load_run(folder)
        self.model, self.config = run.model.requires_grad_(False), run.config
        self.decoder = FastDecoder(self.model)

    @torch.no_grad()
    def dream(self, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """z (B, Z) -> tokens (B, T, 1) and the logits (B, T, V) that they were drawn from."""
        uniforms = torch.rand(len(z), self.config.model.steps, 1, generator=generator)
        tokens = self.decoder.decode(z, uniforms)
        return tokens, self.model.predict_steps(tokens, z)[0]


def dreams(teacher: Teacher, config: TrainingConfig, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """z (B, Z), tokens (B, T, 1) and logits (B, T, V) of one step of the training."""
    z = draw_noise((config.batch_size, teacher.config.model.latent_size), config.seed, 5, step)
    generator = torch.Generator().manual_seed(config.seed * 2**32 + step)
    return z, *teacher.dream(z, generator)


def decoder_loss(student: MusicVAE, z: Tensor, tokens: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy against the teacher's distributions; figures: how far from the teacher, in nats a step."""
    wanted, own = logits.softmax(-1), student.predict_steps(tokens, z)[0]
    loss = F.cross_entropy(own.flatten(0, 1), wanted.flatten(0, 1)) * tokens.shape[1]
    divergence = loss / tokens.shape[1] + (wanted * logits.log_softmax(-1)).sum(-1).mean()
    same = (own.argmax(-1) == logits.argmax(-1)).float().mean()
    return loss, {"divergence": float(divergence.detach()), "same_choice": float(same)}


def dream_loss(student: MusicVAE, z: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, float]]:
    """-log q(z|x) of the dreams; figures: the share of the variance of z that mu explains."""
    posterior = student.encode(tokens)
    explained = 1 - (posterior.mean - z).square().mean()
    return -posterior.log_prob(z).sum(-1).mean(), {"explained": float(explained.detach())}


def real_loss(student: MusicVAE, teacher: Teacher, tokens: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Equation 4 on real windows, the student's posterior heard through the teacher's decoder."""
    posterior = student.encode(tokens)
    output = Output(posterior, teacher.model.predict_steps(tokens, posterior.mean + posterior.stddev * noise))
    result = objective(output, tokens, BETA, FREE_BITS)
    return result.loss, {
        "accuracy": float(result.right.float().mean()),
        "kl_bits": float(result.kl.detach().mean()) / math.log(2),
    }


def study(
    out: Path, student: MusicVAE, run: RunConfig, config: TrainingConfig, lesson: Callable[[int], tuple[Tensor, dict]]
) -> None:
    """Runs `lesson(step)` -> loss and figures to the end of the steps, with a checkpoint every few of them."""
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)
    step, spent, state = 0, 0.0, out / "study.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        student.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["seconds"]
    out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, list[float]] = {}
    began = time.monotonic() - spent
    while step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        loss, figures = lesson(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        step += 1
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums.setdefault(name, []).append(value)
        if step % 20 == 0 or step == config.steps:
            line = {
                "step": step,
                "seconds": time.monotonic() - began,
                **{k: float(np.mean(v)) for k, v in sums.items()},
            }
            print(json.dumps({k: round(v, 4) for k, v in line.items()}), flush=True)
            sums = {}
        if step % CHECKPOINT == 0 or step == config.steps:
            taught = {"steps": step, "seconds": round(time.monotonic() - began, 1), **figures}
            saved = {"model": student.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(state) as temporary:
                torch.save({**saved, "step": step, "seconds": time.monotonic() - began}, temporary)
            save_run(out, student, RunConfig(**{**vars(run), "trained": taught}))


def join(decoder: Path, encoder: Path, out: Path) -> None:
    """One run from the decoder of the first and the encoder of the second."""
    first, second = load_run(decoder), load_run(encoder)
    ours = second.model.state_dict() | {k: v for k, v in first.model.state_dict().items() if k.startswith("decoders.")}
    first.model.load_state_dict(ours)
    trained = {"decoder": first.config.trained, "encoder": second.config.trained}
    save_run(out, first.model, RunConfig(**{**vars(first.config), "trained": trained}))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("decoder", "dreams", "windows", "join"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="run whose weights are the first; without it they are random")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    keep_memory()
    if given.what == "join":
        join(*given.folders)
        return
    teacher_folder, data, out = given.folders
    teacher = Teacher(teacher_folder)
    config = TrainingConfig(
        steps=given.steps,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        final_learning_rate=given.learning_rate / 100,
    )
    torch.manual_seed(0)
    student = load_run(given.start).model.train() if given.start else MusicVAE(teacher.config.model)
    run = RunConfig(**{**vars(teacher.config), "name": "taught", "trained": {}})
    for name, weights in student.named_parameters():
        weights.requires_grad = name.startswith("decoders.") == (given.what == "decoder")
    lessons = {
        "decoder": lambda step: decoder_loss(student, *dreams(teacher, config, step)),
        "dreams": lambda step: dream_loss(student, *dreams(teacher, config, step)[:2]),
    }
    if given.what == "windows":
        feed = Feed(Dataset(data).tokens("train"), config, representation(run.representation).transpose)
        shape = (config.batch_size, run.model.latent_size)
        lessons["windows"] = lambda step: real_loss(
            student, teacher, feed.batch(step), draw_noise(shape, config.seed, 2, step)
        )
    study(out, student, run, config, lessons[given.what])


if __name__ == "__main__":
    main()
