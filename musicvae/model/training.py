"""Training: the objective, its schedules, and a loop that resumes exactly.

Everything random in a run follows from (seed, step): which windows a step sees, how they are augmented, the noise
behind z. So the state of a run is its weights, its optimizer and one counter.
"""

import contextlib
import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from musicvae.model.checkpoint import CONFIG, WEIGHTS, RunConfig, load_config, replacing, save_run
from musicvae.model.vae import ModelConfig, MusicVAE, Output

STATE, METRICS = "training.pt", "metrics.jsonl"
STATE_FORMAT = 1
REPORTING = ("log_every", "validate_every", "listen_every", "checkpoint_every", "validation_windows")
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults scale with `steps`. Raises ValueError where a value makes no sense."""

    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    learning_rate_schedule: str = "cosine"  # or exponential, the paper's: x 0.9999 a step, whatever `steps`
    warmup: float = 0.02  # share of the steps in which the cosine schedule climbs from 0
    beta: float = 0.2  # weight of the KL term in the end
    beta_schedule: str = "ramp"  # linear between beta_from and beta_until; constant; exponential, the paper's
    beta_from: float = 0.0  # share of the steps
    beta_until: float = 0.5  # share of the steps
    free_bits: float = 48.0  # a window may carry so many bits in z free of charge
    clip_norm: float = 1.0  # longest gradient, over all weights together
    seed: int = 0
    precision: str = "auto"  # fp32; bf16; auto: bf16 where the machine is fast at it
    log_every: int = 50  # this and the following in steps; 0 is never
    validate_every: int = 500
    listen_every: int = 1000
    checkpoint_every: int = 500
    validation_windows: int = 1024  # at most so many, drawn once from the seed

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0), *((name, 0) for name in REPORTING)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must be an integer of at least {least}")
        for name in ("learning_rate", "final_learning_rate", "beta", "free_bits", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must not be negative")
        if not 0 <= self.beta_from <= self.beta_until <= 1 or not 0 <= self.warmup <= 1:
            raise ValueError("warmup, beta_from and beta_until are shares of the steps, from 0 to 1, in this order")
        choices = {
            "learning_rate_schedule": ("cosine", "exponential"),
            "beta_schedule": ("ramp", "constant", "exponential"),
            "precision": ("auto", "fp32", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must be one of {', '.join(allowed)}")


# --- the objective ---------------------------------------------------------------------------------------------


class Objective(NamedTuple):
    loss: Tensor  # scalar: what is minimised
    reconstruction: Tensor  # (B,) cross entropy in nats, summed over steps and streams
    kl: Tensor  # (B,) in nats, summed over z
    right: Tensor  # (B, T, streams) whether the most likely token is the true one


def objective(output: Output, tokens: Tensor, beta: float, free_bits: float) -> Objective:
    """Equation 4 with beta and free bits (section 4.1): mean of [cross entropy + beta * max(KL - tau, 0)]."""
    reconstruction, right = torch.zeros(len(tokens), device=tokens.device), []
    for logits, stream in zip(output.logits, tokens.unbind(-1)):  # (B, T, V), (B, T)
        nats = F.cross_entropy(logits.float().flatten(0, 1), stream.flatten(), reduction="none")
        reconstruction = reconstruction + nats.unflatten(0, stream.shape).sum(-1)
        right.append(logits.detach().argmax(-1) == stream)
    kl = kl_from_prior(output.posterior)
    above = F.relu(kl - free_bits * math.log(2))  # below the free bits the KL has no gradient
    return Objective((reconstruction + beta * above).mean(), reconstruction, kl, torch.stack(right, -1))


def kl_from_prior(posterior: Normal) -> Tensor:
    """KL(q(z|x) || N(0, 1)) of each example (B,), in nats, in float32."""
    mu, sigma = posterior.mean.float(), posterior.stddev.float()
    return ((mu.square() + sigma.square() - 1) / 2 - sigma.log()).sum(-1)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of the update after `step` updates."""
    high, low = config.learning_rate, config.final_learning_rate
    if config.learning_rate_schedule == "exponential":
        return low + (high - low) * 0.9999**step
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return high * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def kl_weight(config: TrainingConfig, step: int) -> float:
    """Beta of the update after `step` updates."""
    if config.beta_schedule == "constant":
        return config.beta
    if config.beta_schedule == "exponential":
        return config.beta * (1 - 0.99999**step)
    start, end = config.beta_from * config.steps, config.beta_until * config.steps
    return (
        config.beta * min(1.0, max(0.0, (step - start) / (end - start))) if end > start else config.beta * (step >= end)
    )


# --- what a step sees, from (seed, step) alone -----------------------------------------------------------------


class Feed:
    """The training windows in the order of the steps: a new permutation each epoch, batches straddle its end."""

    def __init__(self, tokens: np.ndarray, config: TrainingConfig, augment: Augment | None):
        self.tokens, self.config, self.augment = tokens, config, augment
        self.permutations: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> Tensor:
        """tokens (B, T, streams) int64 of the update after `step` updates."""
        size, n = self.config.batch_size, len(self.tokens)
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), n)
        rows = np.concatenate([self.permutation(e)[places[epochs == e]] for e in np.unique(epochs)])
        batch = np.asarray(self.tokens[rows])
        if self.augment is not None:
            batch = self.augment(batch, np.random.default_rng([self.config.seed, 1, step]))
        return to_tensor(batch)

    def permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self.permutations:
            kept = {e: p for e, p in self.permutations.items() if e == epoch - 1}
            order = np.random.default_rng([self.config.seed, 0, epoch]).permutation(len(self.tokens))
            self.permutations = {**kept, epoch: order}
        return self.permutations[epoch]


def draw_noise(shape: tuple[int, ...], *seed: int) -> Tensor:
    """Standard normal numbers on the CPU that follow from the seed alone."""
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(state)))


def to_tensor(tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int64))


# --- one training ----------------------------------------------------------------------------------------------


class Trainer:
    """What a step changes: the weights, the optimizer, the counters."""

    def __init__(self, model: MusicVAE, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model.to(device).train(), config, device
        self.bf16 = wants_bf16(config.precision, device)
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=fused)
        self.step, self.seconds, self.updating = 0, 0.0, False
        self.tally = torch.zeros(6 + len(model.config.vocab_sizes), device=device)  # sums since the last log line
        self.validation: dict[str, Any] | None = None  # the last line of it

    def update(self, tokens: Tensor) -> None:
        """One step of Adam on tokens (B, T, streams); on an accelerator nothing here waits for it."""
        self.updating = True
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        noise = draw_noise((len(tokens), self.model.config.latent_size), self.config.seed, 2, self.step)
        result = self.measure(tokens, noise)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if self.device.type == "cpu":
            self.refuse_nan(result.loss.detach() + norm)
        self.optimizer.step()
        self.step += 1
        self.tally += torch.cat([sums(result), norm.detach().reshape(1)])
        self.updating = False

    def measure(self, tokens: Tensor, noise: Tensor) -> Objective:
        """The objective of tokens (B, T, streams) with noise (B, Z), at the beta of this step."""
        if self.device.type == "cuda":
            tokens, noise = tokens.pin_memory(), noise.pin_memory()
        tokens, noise = tokens.to(self.device, non_blocking=True), noise.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            output = self.model(tokens, noise)
        return objective(output, tokens, kl_weight(self.config, self.step), self.config.free_bits)

    def validate(self, windows: np.ndarray) -> dict[str, Any]:
        """The figures of held-out windows (N, T, streams), with the same noise each time."""
        self.model.eval()
        tally = torch.zeros_like(self.tally)[:-1]
        with torch.no_grad():
            for start in range(0, len(windows), self.config.batch_size):
                tokens = to_tensor(windows[start : start + self.config.batch_size])
                noise = draw_noise((len(tokens), self.model.config.latent_size), self.config.seed, 3, start)
                tally += sums(self.measure(tokens, noise))
        self.model.train()
        return {"kind": "validation", "step": self.step, **figures(tally, self.model.config.steps)}

    def log_line(self) -> dict[str, Any]:
        """The means since the last log line, which this one empties; ValueError where training has diverged."""
        self.refuse_nan(self.tally.sum())
        updates, last = self.tally[0] / self.config.batch_size, max(0, self.step - 1)
        line = {"kind": "train", "step": self.step, **figures(self.tally[:-1], self.model.config.steps)}
        line["beta"], line["learning_rate"] = kl_weight(self.config, last), learning_rate(self.config, last)
        line["gradient_norm"] = float(self.tally[-1] / updates)
        self.tally.zero_()
        return line

    def refuse_nan(self, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise ValueError(
                f"training diverged: loss or gradient is {float(value)} at step {self.step} (learning rate "
                f"{learning_rate(self.config, self.step):.3g}). The last checkpoint is kept; train again in a new "
                "folder with a lower learning_rate or more warmup"
            )

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "tally": self.tally,
            "validation": self.validation,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.validation = state["step"], state["seconds"], state["validation"]
        self.tally.copy_(state["tally"])


def sums(result: Objective) -> Tensor:
    """Examples, then sums over them: loss, reconstruction, KL, steps all right, steps right in each stream."""
    right = result.right.float().mean(1)  # (B, streams)
    whole = result.right.all(-1).float().mean(1)
    size = len(right)
    rows = [result.loss.new_tensor(float(size)), result.loss * size, result.reconstruction.sum(), result.kl.sum()]
    return torch.cat([torch.stack([*rows, whole.sum()]), right.sum(0)]).detach()


def figures(tally: Tensor, steps: int) -> dict[str, Any]:
    """Means by name from the `sums` of some batches; reconstruction in nats a step, KL in bits a window."""
    count, loss, reconstruction, kl, whole, *streams = tally.tolist()
    return {
        "loss": loss / count,
        "reconstruction": reconstruction / count / steps,
        "accuracy": whole / count,
        "accuracy_streams": [stream / count for stream in streams],
        "kl_bits": kl / count / math.log(2),
    }


@dataclass(frozen=True)
class TrainingResult:
    model: MusicVAE
    folder: Path
    step: int
    seconds: float  # spent on this run, over all calls
    finished: bool
    paused: bool = False  # by max_seconds
    interrupted: bool = False  # by Ctrl-C or SIGTERM
    resumed_from: int | None = None  # step of the checkpoint that this call went on from; None: from scratch


def train(
    model_config: ModelConfig,
    config: TrainingConfig,
    tokens: np.ndarray,
    validation_tokens: np.ndarray | None,
    out: str | Path,
    *,
    name: str = "",
    representation: str = "",
    drum_map: str = "",
    preset: str = "",
    size: str = "",
    augment: Augment | None = None,
    initial: MusicVAE | None = None,
    max_seconds: float | None = None,
    device: str | torch.device = "auto",
    on_log: Callable[[dict[str, Any]], None] | None = None,
    on_listen: Callable[[MusicVAE, int], None] | None = None,
) -> TrainingResult:
    """Trains a model on tokens (N, T, streams) into the folder `out`, or goes on where an earlier call stopped.

    augment(batch, rng) changes each batch (B, T, streams) anew at every visit; initial gives the first weights (fine
    tuning); max_seconds pauses this call; on_log gets every line of metrics.jsonl; on_listen(model, step) may write
    music. The same call again resumes: on one CPU and with as many threads, to the same weights bit for bit.
    Raises ValueError, before anything is written, where data, settings and folder do not fit each other.
    """
    folder, device = Path(out), find_device(device)
    check_windows("training", tokens, model_config, at_least=config.batch_size)
    validation = draw_validation(validation_tokens, model_config, config)
    run_config = RunConfig(
        name=name,
        representation=representation,
        drum_map=drum_map,
        preset=preset,
        size=size,
        model=model_config,
        training=asdict(config),
        trained={"windows": len(tokens)},
    )
    settings = json.loads(json.dumps(asdict(run_config)))
    settings |= {"data": fingerprint(tokens), "augmented": augment is not None}
    state = load_state(folder, settings)
    trainer = Trainer(new_model(model_config, config.seed, initial), config, device)
    if state is not None:
        trainer.restore(state)
    session = Session(trainer, folder, settings, run_config, Clock(trainer.seconds, max_seconds), on_log, on_listen)
    if state is not None and saved_steps(folder) != trainer.step:
        session.save_model()  # the last call was killed between the two files
    if trainer.step < config.steps:
        session.run(Feed(tokens, config, augment), validation)
    return session.result(resumed_from=None if state is None else state["step"])


@dataclass
class Session:
    """One call of `train`: the trainer, its folder, and who listens."""

    trainer: Trainer
    folder: Path
    settings: dict[str, Any]
    run_config: RunConfig
    clock: "Clock"
    on_log: Callable[[dict[str, Any]], None] | None
    on_listen: Callable[[MusicVAE, int], None] | None
    interrupted: bool = False

    def run(self, feed: Feed, validation: np.ndarray) -> None:
        """Trains until the last step, the end of the time or Ctrl-C."""
        self.folder.mkdir(parents=True, exist_ok=True)
        trainer, steps = self.trainer, self.trainer.config.steps
        with Metrics(self.folder, trainer.step, self.on_log) as metrics, Interrupts() as interrupts:
            try:
                while trainer.step < steps and not self.clock.over and not interrupts.asked:
                    trainer.update(feed.batch(trainer.step))
                    self.report(metrics, validation)
            except KeyboardInterrupt:
                if trainer.updating:  # half of the weights may be new: the last checkpoint stands
                    raise
                interrupts.asked = True
            self.interrupted = interrupts.asked and trainer.step < steps
            self.save()

    def report(self, metrics: "Metrics", validation: np.ndarray) -> None:
        """Whatever is due after this step."""
        trainer, config, clock = self.trainer, self.trainer.config, self.clock
        trainer.seconds = clock.seconds
        clock.examples += config.batch_size
        if due(trainer.step, config.log_every, config):
            line = trainer.log_line() | {"examples_per_second": clock.lap(), "seconds": clock.seconds}
            metrics.write(line)
        with clock.aside():
            if due(trainer.step, config.validate_every, config) and len(validation):
                trainer.validation = trainer.validate(validation)
                metrics.write(trainer.validation | {"seconds": clock.seconds})
            if due(trainer.step, config.listen_every, config) and self.on_listen is not None:
                self.on_listen(trainer.model.eval(), trainer.step)
                trainer.model.train()
            if trainer.step < config.steps and due(trainer.step, config.checkpoint_every, config):
                self.save()

    def save(self) -> None:
        """The checkpoint first, then the model that `load_run` reads; each file is whole at every moment."""
        trainer = self.trainer
        trainer.refuse_nan(trainer.tally.sum())
        trainer.seconds = self.clock.seconds
        with replacing(self.folder / STATE) as temporary:
            torch.save({"format": STATE_FORMAT, "settings": self.settings, **trainer.state()}, temporary)
        self.save_model()

    def save_model(self) -> None:
        trainer = self.trainer
        trained = {"steps": trainer.step, "seconds": round(trainer.seconds, 1), **self.run_config.trained}
        trained |= {"device": trainer.device.type, "torch": str(torch.__version__), "validation": trainer.validation}
        save_run(self.folder, trainer.model, replace(self.run_config, trained=trained))

    def result(self, resumed_from: int | None) -> TrainingResult:
        trainer = self.trainer
        finished = trainer.step >= trainer.config.steps
        return TrainingResult(
            model=trainer.model.eval(),
            folder=self.folder,
            step=trainer.step,
            seconds=trainer.seconds,
            finished=finished,
            paused=not finished and not self.interrupted,
            interrupted=self.interrupted,
            resumed_from=resumed_from,
        )


def due(step: int, every: int, config: TrainingConfig) -> bool:
    return every > 0 and (step % every == 0 or step == config.steps)


def new_model(model_config: ModelConfig, seed: int, initial: MusicVAE | None) -> MusicVAE:
    """A model on the CPU with weights from the seed, or with those of `initial`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MusicVAE(model_config)
    if initial is not None:
        try:
            model.load_state_dict(initial.state_dict())
        except RuntimeError:
            raise ValueError(f"the initial model is {initial.config}; the one to train is {model_config}") from None
    return model


# --- what is refused before anything starts --------------------------------------------------------------------


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


def draw_validation(tokens: np.ndarray | None, model: ModelConfig, config: TrainingConfig) -> np.ndarray:
    """At most `validation_windows` windows; none means that nothing is validated."""
    if tokens is None or len(tokens) == 0 or config.validation_windows == 0:
        return np.zeros((0, model.steps, len(model.vocab_sizes)), np.uint16)
    check_windows("validation", tokens, model)
    rows = np.random.default_rng([config.seed, 4]).permutation(len(tokens))[: config.validation_windows]
    return np.asarray(tokens[np.sort(rows)])


def fingerprint(tokens: np.ndarray) -> str:
    """The number of windows and a digest of up to 65,536 of them, evenly spaced."""
    rows = np.unique(np.linspace(0, len(tokens) - 1, 65536).astype(np.int64))
    digest = hashlib.sha256(np.ascontiguousarray(tokens[rows], dtype="<u2").tobytes()).hexdigest()
    return f"{len(tokens)} windows, sha256 {digest[:16]}"


def find_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {device} cannot be used here ({str(error).splitlines()[0]})") from None
    return torch.device(device)


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bf16; ValueError where it is asked for and the machine has none."""
    if precision == "fp32" or (precision == "auto" and not fast_at_bf16(device)):
        return False
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            nn.LSTM(8, 8, device=device)(torch.zeros(2, 2, 8, device=device))[0].sum().backward()
    except RuntimeError as error:
        if precision == "auto":
            return False
        raise ValueError(f"precision bf16 cannot be used on this {device.type} ({error}); use auto or fp32") from None
    return True


def fast_at_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself; elsewhere it is imitated, slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return device.type == "cpu" and any(probe() for probe in probes if probe is not None)


# --- the folder ------------------------------------------------------------------------------------------------


def load_state(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a folder, None if it has none; ValueError if it is not of these settings and data."""
    if not (folder / STATE).exists():
        if any((folder / file).exists() for file in (CONFIG, WEIGHTS)):
            raise ValueError(f"{folder} holds a model without {STATE}, so its training cannot go on: give a new --out")
        return None
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        before = state["settings"]
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"{folder / STATE} cannot be read ({str(error).splitlines()[0]}): give a new --out") from None
    if state["format"] != STATE_FORMAT:
        raise ValueError(f"{folder / STATE} has format {state['format']}; this version reads {STATE_FORMAT}")
    changes = differences(before, settings)
    if changes:
        raise ValueError(
            f"{folder} holds a training with other settings: {'; '.join(changes)}. "
            "Resume it with its own settings, or give a new --out"
        )
    return state


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """'training.steps was 100, is now 200', for each setting on which the weights depend."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new and f"{prefix}{key}" not in {f"training.{field}" for field in REPORTING}:
            found.append(f"{prefix}{key} was {old}, is now {new}")
    return found


def saved_steps(folder: Path) -> int | None:
    """How far the model beside the checkpoint was trained; None if it cannot be read."""
    try:
        return load_config(folder).trained.get("steps") if (folder / WEIGHTS).exists() else None
    except ValueError:
        return None


class Metrics:
    """metrics.jsonl, TensorBoard if it is installed, and the caller's screen."""

    def __init__(self, folder: Path, step: int, on_log: Callable[[dict[str, Any]], None] | None):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.on_log = folder / METRICS, on_log
        self.board: Any = None
        self.keep(step)
        self.file = open(self.path, "a", encoding="utf-8")
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def keep(self, step: int) -> None:
        """Drops the lines of steps after the checkpoint, which will be written again, and one cut short by a kill."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
        with replacing(self.path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps({k: rounded(v) for k, v in line.items()}) + "\n")
        self.file.flush()
        for key, value in line.items() if self.board is not None else []:
            if isinstance(value, float):
                self.board.add_scalar(f"{line['kind']}/{key}", value, line["step"])
        if self.on_log is not None:
            self.on_log(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Clock:
    """The seconds of a run over all calls, of this call against max_seconds, and of the steps between two log lines."""

    def __init__(self, before: float, max_seconds: float | None):
        self.before, self.max_seconds, self.began = before, max_seconds, time.monotonic()
        self.mark, self.examples = self.began, 0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    @property
    def over(self) -> bool:
        return self.max_seconds is not None and time.monotonic() - self.began >= self.max_seconds

    def lap(self) -> float:
        """Examples a second since the last lap, without what was done `aside`."""
        now = time.monotonic()
        rate = self.examples / max(now - self.mark, 1e-9)
        self.mark, self.examples = now, 0
        return rate

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.mark += time.monotonic() - began


class Interrupts:
    """Ctrl-C and SIGTERM wait for the end of a step; a second one does not."""

    def __init__(self) -> None:
        self.asked, self.handlers = False, dict[int, Any]()

    def ask(self, number: int, _: object) -> None:
        self.asked = True
        signal.signal(number, self.handlers[number])

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self.handlers = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
