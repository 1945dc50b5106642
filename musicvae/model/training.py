"""Training: one loop for all stages, that resumes exactly.

Everything random in a run follows from (seed, step): which windows a step sees, how they are augmented, the noise
behind z. So the state of a run is its weights, its optimizer, one counter, and what its stage keeps.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.files import locked, replacing
from musicvae.model.checkpoint import RunConfig, find_device, save_run
from musicvae.model.feed import Augment, Feed, Stream
from musicvae.model.objective import TrainingConfig, kl_weight
from musicvae.model.prior import PRIOR, save_prior
from musicvae.model.run_folder import LOCK, STATE, STATE_FORMAT, Clock, Interrupts, Metrics, load_state, saved_steps
from musicvae.model.stages import Course, OfPrior, Stage, Windows, stages
from musicvae.model.vae import ModelConfig, MusicVAE

TRIAL_SECONDS = 1.0  # for which each precision is tried, and each stage where steps are to fit into a time
SPARE = 0.9  # of the time is planned for steps: the rest is for reading windows, validation and checkpoints

# --- one training ----------------------------------------------------------------------------------------------


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

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.step, self.seconds, self.validation = state["step"], state["seconds"], state["validation"]
        if state["stage"]:
            self.begin(state["stage"])
        for place, kept in state["kept"].items():
            self.stages[place].restore(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.tally = None if state["tally"] is None else state["tally"].to(self.device)


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
    run: RunConfig,
    config: TrainingConfig,
    tokens: np.ndarray,
    validation_tokens: np.ndarray | None,
    out: str | Path,
    *,
    augment: Augment | None = None,
    form: Augment | None = None,
    initial: MusicVAE | None = None,
    max_seconds: float | None = None,
    device: str | torch.device = "auto",
    on_log: Callable[[dict[str, Any]], None] | None = None,
    on_listen: Callable[[MusicVAE, int], None] | None = None,
) -> TrainingResult:
    """Trains the model of `run` on tokens (N, T, streams) into the folder `out`, or goes on where a call stopped.

    augment(batch, rng) changes each batch (B, T, streams) at every visit, form(batch, rng) those of whole windows;
    initial gives the first weights; max_seconds pauses this call; on_log gets every line of metrics.jsonl;
    on_listen(model, step) may write music. The same call again resumes: on one CPU with as many threads to the same
    weights bit for bit.
    Raises ValueError, before anything is written, where data, settings and folder do not fit each other.
    """
    folder, device = Path(out), find_device(device)
    check_windows("training", tokens, run.model, at_least=config.batch_size)
    validation = draw_validation(validation_tokens, run.model, config)
    run = replace(run, training=asdict(config), trained={"windows": len(tokens), **run.trained})
    settings = json.loads(json.dumps(asdict(run)))
    settings |= {"data": fingerprint(tokens), "augmented": augment is not None}
    settings |= {} if initial is None else {"initial": digest(initial)}
    state = load_state(folder, settings)
    with denormals_flushed(device):
        model, feed = new_model(run.model, config.seed, initial), Feed(tokens, config, augment, form)
        bf16 = state["bf16"] if state else chosen_precision(model, config, device, feed)
        trainer = Trainer(model, config, device, bf16, feed, validation)
        if state is not None:
            trainer.restore(state)
        session = Session(trainer, folder, settings, run, Clock(trainer.seconds, max_seconds), on_log, on_listen)
        if state is not None and not session.saved:
            session.save_model()  # the last call was killed between the files
        if not trainer.finished:
            session.run()
    return session.result(resumed_from=None if state is None else state["step"])


@dataclass
class Session:
    """One call of `train`: the trainer, its folder, and who listens."""

    trainer: Trainer
    folder: Path
    settings: dict[str, Any]
    run_config: RunConfig
    clock: Clock
    on_log: Callable[[dict[str, Any]], None] | None
    on_listen: Callable[[MusicVAE, int], None] | None
    interrupted: bool = False

    def run(self) -> None:
        """Trains until the last step, the end of the time or Ctrl-C."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            self.fit()

    def fit(self) -> None:
        """The loop: every stage, every loss and every device goes through it."""
        trainer = self.trainer
        with Metrics(self.folder, trainer.step, self.on_log) as metrics, Interrupts() as interrupts:
            try:
                while not (trainer.finished or self.clock.over or interrupts.asked):
                    if trainer.step == trainer.stage.end:
                        self.next_stage()
                    trainer.update(trainer.stage.batch(trainer.step))
                    self.report(metrics)
            except KeyboardInterrupt:
                if trainer.updating:  # half of the weights may be new: the last checkpoint stands
                    raise
                interrupts.asked = True
            self.interrupted = interrupts.asked and not trainer.finished
            self.save()

    def next_stage(self) -> None:
        """What it begins with follows from the checkpoint before it alone."""
        with self.clock.aside():
            self.save()
            self.trainer.advance()

    def report(self, metrics: Metrics) -> None:
        """Whatever is due after this step."""
        trainer, config, clock = self.trainer, self.trainer.config, self.clock
        trainer.seconds = clock.seconds
        clock.examples += trainer.stage.config.batch_size
        ends = trainer.step == trainer.stage.end
        if ends or due(trainer.step, config.log_every, config):
            line = trainer.log_line() | {"examples_per_second": clock.lap(), "seconds": clock.seconds}
            metrics.write(line)
        with clock.aside():
            if config.validate_every and (ends or due(trainer.step, config.validate_every, config)):
                found = trainer.validate()
                if found:
                    metrics.write(found | {"seconds": clock.seconds})
            hears = isinstance(trainer.stage, Windows) and self.on_listen is not None
            if hears and config.listen_every and (ends or due(trainer.step, config.listen_every, config)):
                assert self.on_listen is not None
                self.on_listen(trainer.model.eval(), trainer.step)
                trainer.model.train()
            if not trainer.finished and due(trainer.step, config.checkpoint_every, config):
                self.save()

    def save(self) -> None:
        """The checkpoint first, then the model that `load_run` reads; each file is whole at every moment."""
        trainer = self.trainer
        if trainer.tally is not None:
            trainer.refuse_nan(trainer.tally.sum())
        trainer.seconds = self.clock.seconds
        with replacing(self.folder / STATE) as temporary:
            torch.save({"format": STATE_FORMAT, "settings": self.settings, **trainer.state()}, temporary)
        self.save_model()

    @property
    def prior(self) -> OfPrior | None:
        """The stage of the prior, once it is done."""
        stage = self.trainer.stage
        return stage if isinstance(stage, OfPrior) and self.trainer.finished and stage.found() else None

    @property
    def saved(self) -> bool:
        """Whether the model beside the checkpoint is of the same step, with its prior."""
        whole = self.prior is None or (self.folder / PRIOR).exists()
        return whole and saved_steps(self.folder) == self.trainer.step

    def save_model(self) -> None:
        trainer, prior = self.trainer, self.prior
        trained = {"steps": trainer.step, "seconds": round(trainer.seconds, 1), **self.run_config.trained}
        trained |= {"device": trainer.device.type, "torch": str(torch.__version__), "validation": trainer.validation}
        trained |= {"precision": "bf16" if trainer.course.bf16 else "fp32"}
        if prior:
            bits = None if prior.best["bits"] is None else round(prior.best["bits"], 1)
            trained |= {"prior": {"windows": len(prior.encoded[0]), "steps": prior.best["step"], "bits": bits}}
        save_run(self.folder, trainer.model, replace(self.run_config, trained=trained))
        found = prior.found() if prior else None
        if found is not None:
            save_prior(self.folder / PRIOR, found)

    def result(self, resumed_from: int | None) -> TrainingResult:
        trainer = self.trainer
        return TrainingResult(
            model=trainer.model.eval(),
            folder=self.folder,
            step=trainer.step,
            seconds=trainer.seconds,
            finished=trainer.finished,
            paused=not trainer.finished and not self.interrupted,
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
    rows = np.random.default_rng([config.seed, Stream.VALIDATION_WINDOWS]).permutation(len(tokens))[
        : config.validation_windows
    ]
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


# --- what is chosen by trying it --------------------------------------------------------------------------------


@contextmanager
def denormals_flushed(device: torch.device) -> Iterator[None]:
    """On a CPU, numbers too small for the usual format count as 0: gradients over long windows are full of them."""
    flushes = device.type == "cpu" and torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(False)


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
