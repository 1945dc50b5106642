"""Training: one loop for all stages, that resumes exactly.

Everything random in a run follows from (seed, step): which windows a step sees, how they are augmented, the noise
behind z. So the state of a run is its weights, its optimizer, one counter, and what its stage keeps.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicvae.files import locked, replacing
from musicvae.model.checkpoint import find_device, load_run, save_run
from musicvae.model.config import PRIOR, ModelConfig, RunConfig
from musicvae.model.feed import Augment, Feed, Stream, check_windows
from musicvae.model.objective import TrainingConfig
from musicvae.model.precision import denormals_flushed
from musicvae.model.prior import save_prior
from musicvae.model.prior_stage import OfPrior
from musicvae.model.run_folder import (
    LOCK,
    STATE,
    STATE_FORMAT,
    Clock,
    Interrupts,
    Metrics,
    is_whole,
    load_state,
    save_state,
)
from musicvae.model.stages import Windows
from musicvae.model.trainer import Trainer, new_model
from musicvae.model.trial import chosen_precision
from musicvae.model.vae import MusicVAE


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
    on_step: Callable[[int], None] | None = None,
) -> TrainingResult:
    """Trains the model of `run` on tokens (N, T, streams) into the folder `out`, or goes on where a call stopped.

    augment(batch, rng) changes each batch (B, T, streams) at every visit, form(batch, rng) those of whole windows;
    initial gives the first weights; max_seconds pauses this call; on_log gets every line of metrics.jsonl;
    on_listen(model, step) may write music; on_step(step) is called after every update. The same call again resumes: on
    one CPU with as many threads to the same weights bit for bit.
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
    if state is not None and state["step"] >= config.steps and is_whole(folder, state["step"]):
        done = state["step"]
        return TrainingResult(load_run(folder, device).model, folder, done, state["seconds"], True, resumed_from=done)
    with torch.random.fork_rng(devices=[]), denormals_flushed(device):  # the caller's random numbers stay as they are
        model, feed = new_model(run.model, config.seed, initial), Feed(tokens, config, augment, form)
        bf16 = state["bf16"] if state else chosen_precision(model, config, device, feed)
        trainer = Trainer(model, config, device, bf16, feed, validation)
        if state is not None:
            trainer.restore(state, folder / STATE)
        session = Session(
            trainer, folder, settings, run, Clock(trainer.seconds, max_seconds), on_log, on_listen, on_step
        )
        if state is not None and not is_whole(folder, trainer.step):
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
    on_step: Callable[[int], None] | None = None
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
            except (KeyboardInterrupt, BrokenPipeError):  # the latter where nobody reads the output any more
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
        if self.on_step is not None:
            self.on_step(trainer.step)
        ends = trainer.step == trainer.stage.end
        if ends or due(trainer.step, config.log_every, config):
            line = trainer.log_line() | {"examples_per_second": clock.lap(), "seconds": clock.seconds}
            metrics.write(line)
        with clock.aside():
            always = ends and isinstance(trainer.stage, OfPrior)  # which keeps the prior that is best there
            if always or (config.validate_every and (ends or due(trainer.step, config.validate_every, config))):
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
            save_state(temporary, {"format": STATE_FORMAT, "settings": self.settings, **trainer.state()})
        self.save_model()

    @property
    def prior(self) -> OfPrior | None:
        """The stage of the prior, once it is done."""
        stage = self.trainer.stage
        return stage if isinstance(stage, OfPrior) and self.trainer.finished and stage.found() else None

    def save_model(self) -> None:
        trainer, prior = self.trainer, self.prior
        trained = {"steps": trainer.step, "seconds": round(trainer.seconds, 1), **self.run_config.trained}
        trained |= {"device": trainer.device.type, "torch": str(torch.__version__), "validation": trainer.validation}
        trained |= {"precision": "bf16" if trainer.course.bf16 else "fp32"}
        if prior:
            trained |= {"prior": prior.summary()}
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


# --- what is refused before anything starts --------------------------------------------------------------------


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
