"""Teaching a model of ours what a trained decoder knows: the decoder by soft targets, the encoder by its dreams.

    musicvae import TEACHER --out runs/teacher
    python paper/teach.py dream runs/teacher runs/dreams.npz --dreams 256000
    python paper/teach.py sleep runs/teacher runs/dreams.npz runs/asleep --steps 2000
    python paper/teach.py wake runs/teacher runs/dreams.npz runs/taught --start runs/asleep --data data/melody-90
    musicvae train melody-90 data/melody-90 --from runs/taught --out runs/melody-90
    python paper/teach.py compare runs/teacher runs/unheard.npz runs/melody-90 --data data/melody-90

The teacher needs no encoder of its own. `dream` lets it write windows from z of the prior. In `sleep` (Hinton et al.
1995) our encoder learns q(z|x) of them. In `wake` the encoder learns equation 4 on real windows through the teacher's
decoder, which stays as it is, while our decoder learns the teacher's whole distribution at every step of the same
windows, from the same z, and of dreams, from theirs. Killed, the same command goes on from the last checkpoint.
`compare` says how near a student is to its teacher, on test windows and on dreams that it did not learn from.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from musicvae.evaluation.reconstruction import draw_windows
from musicvae.files import replacing
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import RunConfig
from musicvae.model.feed import Feed, draw_noise, draw_uniform
from musicvae.model.objective import TrainingConfig, learning_rate, objective
from musicvae.model.precision import wants_bf16
from musicvae.model.torch_player import player_of
from musicvae.model.vae import MusicVAE, Output
from musicvae.music.dataset import Dataset
from musicvae.music.representation import representation
from musicvae.presets import SIZES, preset
from musicvae.train import keep_memory

BETA, FREE_BITS = 0.2, 48.0
LOG, CHECKPOINT = 25, 100  # steps
DREAMT = 512  # windows dreamt at once
ENCODER_RATE = 0.4  # of the learning rate, in `wake`: through a decoder that stays as it is, a large step never returns
CPU = torch.device("cpu")
PRESET = preset("melody-90")


class Dreams(NamedTuple):
    """What the teacher wrote at temperature 1 from z of the prior: z (N, Z) in half precision, tokens (N, T, 1)."""

    z: np.ndarray
    tokens: np.ndarray

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """z (B, Z) and tokens (B, T, 1) of one step: all dreams in turn, in another order each time."""
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), len(self.z))
        orders = {epoch: np.random.default_rng([7, epoch]).permutation(len(self.z)) for epoch in set(epochs.tolist())}
        rows = [orders[epoch][place] for epoch, place in zip(epochs.tolist(), places)]
        return torch.from_numpy(self.z[rows].astype(np.float32)), torch.from_numpy(self.tokens[rows].astype(np.int64))


def dream(teacher: MusicVAE, n: int, seed: int = 0) -> Dreams:
    """n windows from z of the prior, by the teacher's own distributions. ValueError for more than one stream."""
    config = teacher.config
    if len(config.vocab_sizes) != 1:
        raise ValueError(
            f"the teacher has {len(config.vocab_sizes)} streams; only a teacher of one stream is supported"
        )
    z = draw_noise((n, config.latent_size), seed, 5).numpy().astype(np.float16)
    tokens, decoder = np.empty((n, config.steps, 1), np.uint16), player_of(teacher)
    generator = torch.Generator().manual_seed(seed)
    for at in range(0, n, DREAMT):
        part = z[at : at + DREAMT].astype(np.float32)
        numbers = torch.rand(len(part), config.steps, 1, generator=generator).numpy()
        tokens[at : at + DREAMT] = decoder.decode(part, numbers)
    return Dreams(z, tokens)


# --- the lessons: a loss, and figures to watch ---------------------------------------------------------------------


def sleep_loss(student: MusicVAE, z: Tensor, tokens: Tensor) -> tuple[Tensor, dict[str, float]]:
    """-log q(z|x) of dreams; figures: the share of the variance of z that mu explains."""
    posterior = student.encode(tokens)
    explained = 1 - (posterior.mean - z).square().mean()
    return -posterior.log_prob(z).sum(-1).mean(), {"explained": float(explained.detach())}


def decoder_loss(student: MusicVAE, z: Tensor, tokens: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy against the teacher's distributions; figures: how far from the teacher, in nats a step."""
    wanted, own = logits.float().softmax(-1), student.predict_steps(tokens, z)[0].float()
    loss = F.cross_entropy(own.flatten(0, 1), wanted.flatten(0, 1)) * tokens.shape[1]
    divergence = loss / tokens.shape[1] + (wanted * logits.float().log_softmax(-1)).sum(-1).mean()
    same = (own.argmax(-1) == logits.argmax(-1)).float().mean()
    return loss, {"divergence": float(divergence.detach()), "same_choice": float(same)}


def wake_loss(
    student: MusicVAE, teacher: MusicVAE, tokens: Tensor, noise: Tensor, dreamt: tuple[Tensor, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Equation 4 of real windows through the teacher's decoder, plus the decoder's lesson on them and on dreams."""
    posterior = student.encode(tokens)
    z = posterior.mean + posterior.stddev * noise
    output = Output(posterior, teacher.predict_steps(tokens, z))
    result = objective(output, tokens, BETA, FREE_BITS)
    with torch.no_grad():
        dreamt_logits = teacher.predict_steps(dreamt[1], dreamt[0])[0]
    real_loss, real = decoder_loss(student, z.detach(), tokens, output.logits[0].detach())
    dream_loss, imagined = decoder_loss(student, *dreamt, dreamt_logits)
    return result.loss + real_loss + dream_loss, {
        "accuracy": float(result.right.float().mean()),
        "nats": float(result.reconstruction.detach().mean()) / tokens.shape[1],
        "kl_bits": float(result.kl.detach().mean()) / math.log(2),
        **real,
        **{f"dreams_{name}": value for name, value in imagined.items()},
    }


@torch.no_grad()
def compare(student: MusicVAE, teacher: MusicVAE, tokens: np.ndarray, dreams: Dreams) -> dict[str, float]:
    """How near the student is to its teacher: on real windows, z drawn by the student's encoder, and on dreams.

    tokens (N, T, 1). Divergence: KL(teacher || student) in nats a step; same choice: share of steps with the same most
    likely token, both after the true ones; sampled accuracy: of the real windows, by either decoder, temperature 1.
    """
    figures: dict[str, list[float]] = {}
    decoders = {"student": player_of(student), "teacher": player_of(teacher)}
    for at in range(0, len(tokens), DREAMT):
        real = torch.from_numpy(np.asarray(tokens[at : at + DREAMT], np.int64))
        posterior = student.encode(real)
        z = posterior.mean + posterior.stddev * draw_noise(tuple(posterior.mean.shape), 0, 6, at)
        uniforms = draw_uniform((*real.shape,), 0, 7, at)
        values = decoder_loss(student, z, real, teacher.predict_steps(real, z)[0])[1]
        for name, decoder in decoders.items():
            values[f"{name}_sampled_accuracy"] = float(
                (decoder.decode(z.numpy(), uniforms.numpy()) == real.numpy()).mean()
            )
        dreamt = Dreams(dreams.z[at : at + DREAMT], dreams.tokens[at : at + DREAMT]).batch(0, min(len(real), DREAMT))
        imagined = decoder_loss(student, *dreamt, teacher.predict_steps(dreamt[1], dreamt[0])[0])[1]
        for name, value in {**values, **{f"dreams_{name}": value for name, value in imagined.items()}}.items():
            figures.setdefault(name, []).append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in figures.items()}


# --- the loop ------------------------------------------------------------------------------------------------------


def study(
    out: Path,
    student: MusicVAE,
    run: RunConfig,
    config: TrainingConfig,
    rates: dict[str, float],
    lesson: Callable[[int], tuple[Tensor, dict[str, float]]],
) -> None:
    """Runs `lesson(step)` to the end of the steps, with a checkpoint every few of them.

    `rates` are the parts of the model that learn, by the beginning of their names, each with its share of the rate.
    Raises ValueError where `out` holds a study by other settings.
    """
    parts = [[p for name, p in student.named_parameters() if name.startswith(part)] for part in rates]
    optimizer = torch.optim.Adam([{"params": part} for part in parts], fused=True)
    step, spent, state, settings = 0, 0.0, out / "study.pt", {"lesson": run.name, **asdict(config)}
    if state.exists():
        saved = torch.load(state, weights_only=True)
        changed = sorted(k for k, v in settings.items() if saved["settings"].get(k) != v)
        if changed:
            raise ValueError(f"{out} was begun with another {', '.join(changed)}. Give the same, or another folder")
        student.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["seconds"]
    out.mkdir(parents=True, exist_ok=True)
    sums: dict[str, list[float]] = {}
    began, bf16 = time.monotonic() - spent, wants_bf16("auto", CPU)
    while step < config.steps:
        for group, share in zip(optimizer.param_groups, rates.values()):
            group["lr"] = learning_rate(config, step) * share
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss, figures = lesson(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in parts:
            torch.nn.utils.clip_grad_norm_(part, config.clip_norm)
        optimizer.step()
        step += 1
        for name, value in {"loss": float(loss.detach()), **figures}.items():
            sums.setdefault(name, []).append(value)
        if step % LOG == 0 or step == config.steps:
            means = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
            print(json.dumps({"step": step, "seconds": round(time.monotonic() - began), **means}), flush=True)
            sums = {}
        if step % CHECKPOINT == 0 or step == config.steps:
            seconds = time.monotonic() - began
            saved = {"model": student.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(state) as temporary:
                torch.save({**saved, "step": step, "seconds": seconds, "settings": settings}, temporary)
            lesson_done = {
                "lesson": run.name,
                "steps": step,
                "seconds": round(seconds, 1),
                "batch_size": config.batch_size,
            }
            source = {**run.trained["source"], "lessons": [*run.trained["source"]["lessons"], lesson_done]}
            taught = {"steps": step, "seconds": round(seconds, 1), "source": source, **figures}
            save_run(out, student, replace(run, trained=taught))


def origin(teacher: RunConfig, start: RunConfig | None) -> dict[str, Any]:
    """What is kept of who taught, and of the lessons before this one."""
    source = teacher.trained.get("source", {})
    before = start.trained.get("source", {}).get("lessons", []) if start else []
    return {"taught_by": source.get("name", teacher.name), "licence": source.get("licence", ""), "lessons": before}


def read_words(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("dream", "sleep", "wake", "compare"))
    parser.add_argument("teacher", type=Path)
    parser.add_argument("dreams", type=Path, help="the teacher's dreams: an .npz")
    parser.add_argument("out", type=Path, nargs="?", help="run folder")
    parser.add_argument("--dreams", type=int, default=256_000, dest="number")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--dreams-a-batch", type=int, default=64, help="beside the real windows of `wake`")
    parser.add_argument("--seed", type=int, default=0, help="of the dreams")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="run whose weights are the first; without it they are random")
    parser.add_argument("--data", type=Path, help="data set of real windows")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.what != "dream" and (given.out is None or (given.what != "sleep" and given.data is None)):
        parser.error("sleep, wake and compare need a run folder OUT, the last two --data as well")
    return given


def main(arguments: list[str] | None = None) -> None:
    given = read_words(arguments)
    torch.set_num_threads(given.threads)
    keep_memory()
    loaded = load_run(given.teacher)
    teacher = loaded.model.requires_grad_(False)
    if given.what == "dream":
        with replacing(given.dreams) as temporary, temporary.open("wb") as file:
            np.savez(file, **dream(teacher, given.number, given.seed)._asdict())
        return
    with np.load(given.dreams) as saved:
        dreams = Dreams(saved["z"], saved["tokens"])
    if given.what == "compare":
        tokens = Dataset(given.data).tokens("test")
        tokens = np.asarray(tokens[draw_windows(len(tokens), len(dreams.z), given.seed)])
        print(json.dumps(compare(load_run(given.out).model, teacher, tokens, dreams), indent=1))
        return
    rate = given.learning_rate
    config = TrainingConfig(
        steps=given.steps, batch_size=given.batch_size, learning_rate=rate, final_learning_rate=rate / 100
    )
    torch.manual_seed(0)
    start = load_run(given.start) if given.start else None
    student = start.model.train() if start else MusicVAE(teacher.config)
    source = origin(loaded.config, start.config if start else None)
    size = next((size for size in SIZES if PRESET.model(size) == teacher.config), "")
    run = replace(loaded.config, name=given.what, preset=PRESET.name, size=size, trained={"source": source})
    if given.what == "sleep":
        rates = {"encoder": 1.0, "to_": 1.0}
        study(
            given.out,
            student,
            run,
            config,
            rates,
            lambda step: sleep_loss(student, *dreams.batch(step, given.batch_size)),
        )
        return
    feed = Feed(Dataset(given.data).tokens("train"), config, representation(run.representation).transpose)
    shape = (config.batch_size, run.model.latent_size)
    rates = {"encoder": ENCODER_RATE, "to_": ENCODER_RATE, "decoders": 1.0}

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        noise, dreamt = draw_noise(shape, config.seed, 2, step), dreams.batch(step, given.dreams_a_batch)
        return wake_loss(student, teacher, feed.batch(step), noise, dreamt)

    study(given.out, student, run, config, rates, lesson)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"teach.py: {error}")
