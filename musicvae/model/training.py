"""Training: a loop that resumes exactly.

Everything random in a run follows from (seed, step): which windows a step sees, how they are augmented, the noise
behind z. So the state of a run is its weights, its optimizer and one counter.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.files import locked, replacing
from musicvae.model.checkpoint import RunConfig, find_device, save_run
from musicvae.model.feed import Augment, Feed, draw_noise, draw_uniform, to_tensor
from musicvae.model.objective import (
    Objective,
    TrainingConfig,
    dropout,
    kl_weight,
    learning_rate,
    objective,
    own_share,
)
from musicvae.model.recurrence import Recurrent
from musicvae.model.run_folder import (
    LOCK,
    STATE,
    STATE_FORMAT,
    Clock,
    Interrupts,
    Metrics,
    check_state,
    load_state,
    save_state,
    saved_steps,
)
from musicvae.model.vae import ModelConfig, MusicVAE, Output, draw

ROWS_PAY = 512  # tokens of all streams together from which on, on a CPU, rows are faster than nn.LSTM's products,
ROWS_BATCH = 16  # if a batch has so many windows

# --- one training ----------------------------------------------------------------------------------------------


class Trainer:
    """What a step changes: the weights, the optimizer, the counters."""

    def __init__(self, model: MusicVAE, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model.to(device).train(), config, device
        self.bf16 = wants_bf16(config.precision, device)
        self.forward: Callable[..., Output] = faster(model, config.batch_size, device, self.bf16).forward
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
        share, unheard = dropout(self.config, self.step), None
        if share:
            unheard = draw_uniform(tokens.shape[:2], self.config.seed, 4, self.step) < share
        share, own = own_share(self.config, self.step), None
        if share:
            uniforms = draw_uniform((2, *tokens.shape), self.config.seed, 5, self.step)
            own = self.moved(torch.where(uniforms[0, ..., :1] < share, uniforms[1], -1.0))
        result = self.measure(tokens, noise, unheard, own)
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or math.inf)
        if self.device.type == "cpu":
            self.refuse_nan(result.loss.detach() + norm)
        self.optimizer.step()
        self.step += 1
        self.tally += torch.cat([sums(result), norm.detach().reshape(1)])
        self.updating = False

    def measure(
        self, tokens: Tensor, noise: Tensor, unheard: Tensor | None = None, own: Tensor | None = None
    ) -> Objective:
        """The objective of tokens (B, T, streams) with noise (B, Z) and unheard (B, T), at the beta of this step.

        Where `own` (B, T, streams) is not negative, the decoder hears in place of the true token the one that this
        uniform number draws from what it predicts there: scheduled sampling in two passes, the first without gradient.
        """
        tokens, noise = self.moved(tokens), self.moved(noise)
        unheard = None if unheard is None else self.moved(unheard)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            heard = None if own is None else self.half_own(tokens, noise, unheard, own)
            output = self.forward(tokens, noise, unheard, heard)
        return objective(output, tokens, kl_weight(self.config, self.step), self.config.free_bits)

    @torch.no_grad()
    def half_own(self, tokens: Tensor, noise: Tensor, unheard: Tensor | None, own: Tensor) -> Tensor:
        """tokens (B, T, streams), those where `own` is not negative replaced by what the decoder would write there."""
        logits, numbers = self.forward(tokens, noise, unheard).logits, own.clamp(min=0).flatten(0, 1)
        written = [draw(part.flatten(0, 1), u, 1.0) for part, u in zip(logits, numbers.unbind(-1))]
        return torch.where(own < 0, tokens, torch.stack(written, -1).view_as(tokens))

    def moved(self, tensor: Tensor) -> Tensor:
        """On the device; on an accelerator nothing waits until it is there."""
        tensor = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return tensor.to(self.device, non_blocking=True)

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
        groups = self.optimizer.state_dict()["param_groups"]  # which follow from the settings
        self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        self.step, self.seconds, self.validation = state["step"], state["seconds"], state["validation"]
        self.tally.copy_(state["tally"])


def faster(model: MusicVAE, batch_size: int, device: torch.device, bf16: bool) -> MusicVAE | Recurrent:
    """What computes a training step faster on this device: the model itself, or the same by rows."""
    rows_pay = device.type == "cpu" and sum(model.config.vocab_sizes) >= ROWS_PAY and batch_size >= ROWS_BATCH
    return Recurrent(model, torch.bfloat16 if bf16 else torch.float32) if rows_pay else model


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
    origin: dict[str, Any] | None = None,
    max_seconds: float | None = None,
    device: str | torch.device = "auto",
    on_log: Callable[[dict[str, Any]], None] | None = None,
    on_listen: Callable[[MusicVAE, int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> TrainingResult:
    """Trains a model on tokens (N, T, streams) into the folder `out`, or goes on where an earlier call stopped.

    augment(batch, rng) changes each batch (B, T, streams) anew at every visit; initial gives the first weights (fine
    tuning), origin says where they came from; max_seconds pauses this call; on_log gets every line of metrics.jsonl;
    on_listen(model, step) may write music; on_step(step) is called after every update.
    The same call again resumes: on one CPU with as many threads to the same weights bit for bit.
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
        trained={"windows": len(tokens), **({} if origin is None else {"from": origin})},
    )
    settings = json.loads(json.dumps(asdict(run_config)))
    settings |= {"data": fingerprint(tokens), "augmented": augment is not None}
    settings |= {} if initial is None else {"from": digest(initial)}
    state = load_state(folder, settings)
    trainer = Trainer(new_model(model_config, config.seed, initial), config, device)
    if state is not None:
        check_state(folder / STATE, state, trainer.state(), config.steps)
        trainer.restore(state)
    session = Session(
        trainer, folder, settings, run_config, Clock(trainer.seconds, max_seconds), on_log, on_listen, on_step
    )
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
    on_step: Callable[[int], None] | None = None
    interrupted: bool = False

    def run(self, feed: Feed, validation: np.ndarray) -> None:
        """Trains until the last step, the end of the time or Ctrl-C."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            self.update_all(feed, validation)

    def update_all(self, feed: Feed, validation: np.ndarray) -> None:
        trainer, steps = self.trainer, self.trainer.config.steps
        with Metrics(self.folder, trainer.step, self.on_log) as metrics, Interrupts() as interrupts:
            try:
                while trainer.step < steps and not self.clock.over and not interrupts.asked:
                    trainer.update(feed.batch(trainer.step))
                    self.report(metrics, validation)
            except (KeyboardInterrupt, BrokenPipeError):  # the latter where nobody reads the output any more
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
        if self.on_step is not None:
            self.on_step(trainer.step)
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
            save_state(temporary, {"format": STATE_FORMAT, "settings": self.settings, **trainer.state()})
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
        torch.random.default_generator.manual_seed(seed)
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


def digest(model: MusicVAE) -> str:
    """Of the weights."""
    whole = hashlib.sha256()
    for value in model.state_dict().values():
        whole.update(value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()[:16]


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bf16; ValueError where it is asked for and the machine has none."""
    if precision == "fp32" or (precision == "auto" and not fast_at_bf16(device)):
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast(device.type, dtype=torch.bfloat16):
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
