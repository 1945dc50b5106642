"""Reconstruction (Table 1): how much of a window survives the way through z, and what must stand beside that number.

N windows   G groups of songs   T steps a window   Z latent   W ways to reconstruct   R resamples
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from musicvae.evaluation.streams import checked_windows, count_common_onsets, count_onsets, stream_names
from musicvae.model.objective import kl_from_prior
from musicvae.model.player import Player
from musicvae.model.torch_player import TorchPlayer, player_of
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms

WAYS = {  # the fields of StreamReport, and how a table names them
    "sampled": "sampled, z drawn",
    "sampled_mu": "sampled, z = mu",
    "greedy_mu": "most likely, z = mu",
    "teacher_forced": "teacher-forced, z drawn",
    "teacher_forced_mu": "teacher-forced, z = mu",
    "nothing": "always nothing",
}
ACTIVE_VARIANCE = 0.01  # of mu over the windows, above which a latent unit is used (Burda et al. 2016)
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float | None  # 95 % interval over groups of songs; None if there is but one group
    high: float | None


@dataclass(frozen=True)
class Scores:
    accuracy: Estimate  # share of steps whose token is the true one
    onset_f1: Estimate  # exact step and pitch (drums: class), over all onsets; 0 if there are none at all


@dataclass(frozen=True)
class StreamReport:
    name: str
    sampled: Scores  # temperature 1: the token drawn is the one scored, the model hears its own tokens everywhere
    sampled_mu: Scores
    greedy_mu: Scores  # temperature 0, still hearing its own tokens
    teacher_forced: Scores  # the most likely token, given the true ones before it
    teacher_forced_mu: Scores
    nothing: Scores  # token 0 at every step
    cross_entropy: float  # nats a step, teacher-forced, z drawn


@dataclass(frozen=True)
class ReconstructionReport:
    """`dataclasses.asdict` makes it ready for JSON."""

    windows: int
    groups: int
    steps: int
    seed: int
    resamples: int
    kl_bits: float  # mean KL(q(z|x) || N(0, 1)) of a window, before free bits
    active_units: int
    latent_size: int
    streams: tuple[StreamReport, ...]
    mean: StreamReport | None  # over the streams; None if there is but one


def draw_windows(total: int, n: int | None, seed: int) -> np.ndarray:
    """Ascending indices of n of all windows, drawn without repeats; None, or more than there are, takes all.

    Raises ValueError for n < 1.
    """
    if n is not None and n < 1:
        raise ValueError(f"{n} windows; must be at least 1")
    return np.sort(np.random.default_rng(seed).permutation(total)[:n])


def evaluate_reconstruction(
    model: MusicVAE,
    tokens: np.ndarray,
    groups: np.ndarray,
    *,
    kinds: tuple[str, ...],
    seed: int = 0,
    batch_size: int = 256,
    resamples: int = 1000,
    on_batch: Callable[[int], None] | None = None,
    on_written: Callable[[dict[str, np.ndarray]], None] | None = None,
) -> ReconstructionReport:
    """Reconstruct tokens (N, T, streams), each window of a group (N,) of songs, in all the ways of Table 1.

    z is one draw from the posterior, or mu; draws hang on the seed and on a window's place, never on the batch size.
    on_batch hears the number of windows done, on_written what each way wrote, (batch, T, streams). Runs where the
    model is, in float32. Raises ValueError for tokens that the model cannot take, for none, and for groups that do not
    fit them.
    """
    tokens, groups = checked_windows(tokens, kinds), np.asarray(groups)
    if groups.shape != tokens.shape[:1]:
        raise ValueError(f"groups of shape {groups.shape}; {len(tokens)} windows need one group each")
    if batch_size < 1 or resamples < 1:
        raise ValueError(f"batch_size is {batch_size} and resamples {resamples}; both must be at least 1")
    # Three independent streams of chance: a z and the tokens written from it must not share random numbers.
    for_z, for_tokens, for_bootstrap = (int(s) for s in np.random.SeedSequence(seed).generate_state(3))
    noise = draw_prior(len(tokens), model.config.latent_size, for_z)
    uniforms = draw_uniforms(len(tokens), tokens.shape[1], len(kinds), for_tokens)
    parts = []
    player = player_of(model)
    with _frozen(model):
        for i in range(0, len(tokens), batch_size):
            rows = slice(i, i + batch_size)
            truth = tokens[rows].astype(np.int64)
            parts.append(_reconstruct(model, player, truth, noise[rows], uniforms[rows], kinds, on_written))
            if on_batch:
                on_batch(min(i + batch_size, len(tokens)))
    return _report(parts, groups, kinds, tokens.shape[1], seed, resamples, for_bootstrap)


def reconstruction_table(report: ReconstructionReport) -> Table:
    """The report as a table: one line for each stream and way, and the other figures below."""
    table = Table(title="Reconstruction", caption=_caption(report), caption_justify="left")
    table.add_column("stream")
    table.add_column("reconstructed by")
    for heading in ("accuracy", "onset F1"):
        table.add_column(heading)
    for stream in (*report.streams, *([report.mean] if report.mean else [])):
        for n, (way, words) in enumerate(WAYS.items()):
            scores: Scores = getattr(stream, way)
            cells = [f"{e.value:.3f}{_interval(e)}" for e in (scores.accuracy, scores.onset_f1)]
            table.add_row("" if n else stream.name, words, *cells, end_section=n == len(WAYS) - 1)
    return table


# --- one batch -------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What one batch of B windows gives."""

    counts: np.ndarray  # (B, W, streams, 4): the two fractions of `shares`, above and below the line
    nats: np.ndarray  # (B, streams) cross entropy, summed over steps
    kl: np.ndarray  # (B,) nats
    mu_sum: np.ndarray  # (Z,) of mu over the batch
    mu_square_sum: np.ndarray  # (Z,) of mu squared


def _reconstruct(
    model: MusicVAE,
    player: Player | TorchPlayer,
    tokens: np.ndarray,
    noise: Tensor,
    uniforms: Tensor,
    kinds: tuple[str, ...],
    on_written: Callable[[dict[str, np.ndarray]], None] | None,
) -> Part:
    truth = model.check(torch.from_numpy(tokens)).to(next(model.parameters()).device)
    posterior = model.encode(truth)
    mu = posterior.mean
    z = mu + posterior.stddev * noise.to(mu.device)
    drawn, drawn_nats = _teacher_force(model, truth, z)
    from_z, from_mu, numbers = z.cpu().numpy(), mu.cpu().numpy(), uniforms.numpy()
    arrays = {
        "sampled": player.decode(from_z, numbers),
        "sampled_mu": player.decode(from_mu, numbers),  # the same numbers, so that the two lines differ by z alone
        "greedy_mu": player.decode(from_mu, temperature=0),
        "teacher_forced": drawn.cpu().numpy(),
        "teacher_forced_mu": _teacher_force(model, truth, mu)[0].cpu().numpy(),
        "nothing": np.zeros_like(tokens),
    }
    if on_written:
        on_written(arrays)
    counts = np.stack([count(array, tokens, kinds) for array in arrays.values()], axis=1)
    wide = mu.double()
    figures = (drawn_nats, kl_from_prior(posterior), wide.sum(0), wide.square().sum(0))
    return Part(counts, *(figure.double().cpu().numpy() for figure in figures))


def _teacher_force(model: MusicVAE, truth: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely tokens (B, T, streams) given the true ones before each, and their nats (B, streams)."""
    logits = model.predict_steps(truth, z)
    nats = [
        F.cross_entropy(head.flatten(0, 1), stream.flatten(), reduction="none").unflatten(0, stream.shape).sum(-1)
        for head, stream in zip(logits, truth.unbind(-1))
    ]
    return torch.stack([head.argmax(-1) for head in logits], dim=-1), torch.stack(nats, dim=-1)


def count(written: np.ndarray, truth: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """Two (B, T, streams) -> (B, streams, 4): steps right, steps, twice the onsets in common, the onsets of both."""
    columns = []
    for i, kind in enumerate(kinds):
        ours, true = written[..., i], truth[..., i]
        common = count_common_onsets(ours, true, kind).sum(1)
        onsets = count_onsets(ours, kind).sum(1) + count_onsets(true, kind).sum(1)
        right, steps = (ours == true).sum(1), np.full(len(true), true.shape[1])
        columns.append(np.stack([right, steps, 2 * common, onsets], axis=-1))
    return np.stack(columns, axis=1)


@contextmanager
def _frozen(model: MusicVAE) -> Iterator[None]:
    """Evaluation mode, no gradients, true float32 (cuDNN would round an LSTM to TF32); then as it was before."""
    training, cudnn = model.training, torch.backends.cudnn
    model.eval()
    try:
        with torch.no_grad(), cudnn.flags(enabled=cudnn.enabled, benchmark=False, allow_tf32=False):
            yield
    finally:
        model.train(training)


# --- all batches -----------------------------------------------------------------------------------------------


def bootstrap(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """sums (G, ...) of each group -> totals (R, ...) of G groups drawn with replacement, R times."""
    rng, size, totals = np.random.default_rng(seed), len(sums), []
    at_once = max(1, 2**22 // size)
    for start in range(0, resamples, at_once):
        n = min(at_once, resamples - start)
        drawn = rng.integers(size, size=(n, size)) + size * np.arange(n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)  # how often each group was drawn
        totals.append(times.astype(float) @ sums.reshape(size, -1))
    return np.concatenate(totals).reshape(resamples, *sums.shape[1:])


def shares(counts: np.ndarray) -> np.ndarray:
    """counts (..., streams, 4) -> accuracy and onset F1 (..., streams, 2); the mean of several streams comes last."""
    above, below = counts[..., ::2], counts[..., 1::2]
    result = np.divide(above, below, out=np.zeros(above.shape), where=below > 0)
    return result if result.shape[-2] == 1 else np.concatenate([result, result.mean(-2, keepdims=True)], axis=-2)


def _report(
    parts: list[Part], groups: np.ndarray, kinds: tuple[str, ...], steps: int, seed: int, resamples: int, chance: int
) -> ReconstructionReport:
    counts, nats, kl = (np.concatenate([part[i] for part in parts]) for i in range(3))
    mu_sum, mu_square_sum = (np.sum([part[i] for part in parts], axis=0) for i in (3, 4))
    names, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(sums, group, counts)
    value = shares(sums.sum(0))  # (W, streams and mean, 2)
    spread = None
    if len(names) > 1:
        spread = np.quantile(shares(bootstrap(sums, resamples, chance)), INTERVAL, axis=0)
    entropy = nats.mean(0) / steps
    streams = tuple(
        _stream(name, value, spread, i, entropy[i] if i < len(kinds) else entropy.mean())
        for i, name in enumerate((*stream_names(kinds), "mean")[: value.shape[1]])
    )
    variance = mu_square_sum / len(kl) - (mu_sum / len(kl)) ** 2
    return ReconstructionReport(
        windows=len(kl),
        groups=len(names),
        steps=steps,
        seed=seed,
        resamples=resamples,
        kl_bits=float(kl.mean() / math.log(2)),
        active_units=int((variance > ACTIVE_VARIANCE).sum()),
        latent_size=len(variance),
        streams=streams[: len(kinds)],
        mean=streams[len(kinds)] if len(kinds) > 1 else None,
    )


def _stream(name: str, value: np.ndarray, spread: np.ndarray | None, i: int, entropy: float) -> StreamReport:
    def estimate(way: int, figure: int) -> Estimate:
        low, high = (None, None) if spread is None else (float(x) for x in spread[:, way, i, figure])
        return Estimate(float(value[way, i, figure]), low, high)

    scores = {way: Scores(estimate(n, 0), estimate(n, 1)) for n, way in enumerate(WAYS)}
    return StreamReport(name=name, cross_entropy=float(entropy), **scores)


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f" ({estimate.low:.3f}-{estimate.high:.3f})"


def _caption(report: ReconstructionReport) -> str:
    entropies = ", ".join(f"{stream.name} {stream.cross_entropy:.3f}" for stream in report.streams)
    return (
        f"{report.windows:,} windows of {report.steps} steps, "
        f"from {report.groups:,} groups of songs; seed {report.seed}.\n"
        f"KL {report.kl_bits:.1f} bits a window (before free bits); "
        f"{report.active_units} of {report.latent_size} latent units active.\n"
        f"Cross entropy, nats a step (teacher-forced, z drawn): {entropies}.\n"
        "Accuracy: share of steps. Onset F1: exact step and pitch (drums: class).\n"
        "In brackets: 95 % intervals, by bootstrap over groups of songs.\n"
        "Sampled: temperature 1, the model hears only its own tokens."
    )
