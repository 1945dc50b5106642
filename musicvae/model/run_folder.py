"""What a training keeps in its folder and how it is stopped: checkpoint, metrics, clock, Ctrl-C."""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from musicvae.files import naming, replacing
from musicvae.model.config import CONFIG, PRIOR, WEIGHTS, load_config
from musicvae.model.objective import REPORTING

STATE, METRICS, LOCK = "training.pt", "metrics.jsonl", ".lock"
STATE_FORMAT = 2
KEYS = {"format", "model", "optimizer", "step", "stage", "kept", "bf16", "seconds", "tally", "validation"}


KEPT = {"format", "model", "optimizer", "step", "stage", "kept", "bf16", "seconds", "tally", "validation"}


def load_state(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The checkpoint of a folder, None if it has none; ValueError if it is not of these settings and data."""
    if not (folder / STATE).exists():
        if any((folder / file).exists() for file in (CONFIG, WEIGHTS)):
            raise ValueError(f"{folder} holds a model without {STATE}, so its training cannot go on: give a new --out")
        return None
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        before = dict({**state}["settings"])
    except Exception as error:  # torch raises many kinds
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{folder / STATE} cannot be read ({why}): give a new --out") from None
    missing = KEPT - state.keys()
    if missing:
        raise ValueError(f"{folder / STATE} lacks {', '.join(sorted(missing))}: give a new --out")
    if repr(state["format"]) != repr(STATE_FORMAT):  # it may be a tensor
        raise ValueError(f"{folder / STATE} has format {state['format']}; this version reads {STATE_FORMAT}")
    if type(state["step"]) is not int:
        raise ValueError(f"{folder / STATE} is damaged (step is {state['step']!r:.40}): give a new --out")
    changes = differences(before, settings)
    if changes:
        raise ValueError(
            f"{folder} holds a training with other settings: {'; '.join(changes)}. "
            "Resume it with its own settings, or give a new --out"
        )
    return state


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint. Raises OSError where the disk is full, of which torch makes a RuntimeError."""
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def check_state(path: Path, state: dict[str, Any], fresh: dict[str, Any], steps: int) -> None:
    """ValueError unless the checkpoint can take the place of `fresh`, the state of the same training at step 0, whose
    `stage` is the last one that there is."""
    wanted = {name: fresh[name] for name in ("step", "stage", "seconds", "model", "bf16")}
    why, step = mismatch({name: state[name] for name in wanted}, wanted), state["step"]
    if not why and not (0 <= step <= steps and 0 <= state["stage"] <= fresh["stage"]):
        why = f"step is {step}, of {steps}, in stage {state['stage']} of {fresh['stage']}"
    if not why and state["seconds"] < 0:
        why = f"seconds is {state['seconds']:g}"
    if not why and not (isinstance(state["kept"], dict) and set(state["kept"]) == set(range(state["stage"] + 1))):
        why = "what its stages keep is not there"
    tally = state["tally"]
    if not why and tally is not None and not (isinstance(tally, torch.Tensor) and tally.isfinite().all()):
        why = "tally is no tensor of finite numbers"
    try:
        json.dumps(state["validation"])
    except (TypeError, ValueError, RecursionError):
        why = why or "validation is no line of metrics"
    if why:
        raise ValueError(f"{path} is damaged ({why}): give a new --out")


def check_moments(path: Path, optimizer: Any, parameters: Sequence[torch.Tensor]) -> None:
    """ValueError unless the optimizer's state in a checkpoint is of these parameters, none if it has made no update.

    The optimizer trusts what it is given: tensors of another shape end the process without an error.
    """
    state = optimizer.get("state") if isinstance(optimizer, dict) else None
    moments = [{"step": torch.tensor(0.0), "exp_avg": x.detach(), "exp_avg_sq": x.detach()} for x in parameters]
    if why := mismatch(state, dict(enumerate(moments)), "optimizer"):
        raise ValueError(f"{path} is damaged ({why}): give a new --out")


def mismatch(found: Any, wanted: Any, name: str = "") -> str:
    """Where `found` has other keys, types, shapes or strides than `wanted`, or numbers not finite; empty if nowhere."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or found.keys() != wanted.keys():
            return f"{name or 'it'} has other entries than this training"
        return next(filter(None, (mismatch(found[key], wanted[key], f"{name}.{key}".strip(".")) for key in wanted)), "")
    if not isinstance(wanted, torch.Tensor):
        fits = type(found) is type(wanted) and math.isfinite(found)
        return "" if fits else f"{name} is {found!r:.40}"
    if not isinstance(found, torch.Tensor) or (found.layout, found.dtype) != (wanted.layout, wanted.dtype):
        return f"{name} is no tensor of {wanted.dtype}"
    if found.shape != wanted.shape or found.stride() != wanted.stride():
        return f"{name} has shape {tuple(found.shape)}, this training {tuple(wanted.shape)}"
    return "" if found.isfinite().all() else f"{name} has numbers that are not finite"


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


def is_whole(folder: Path, step: int) -> bool:
    """Whether the model beside the checkpoint is of this step, with the prior that its config speaks of."""
    try:
        trained = load_config(folder).trained if (folder / WEIGHTS).exists() else {}
    except ValueError:
        return False
    return trained.get("steps") == step and ("prior" not in trained or (folder / PRIOR).exists())


def begun_steps(folder: Path) -> int | None:
    """The steps that a training in this folder was begun for; None if there is none that can be read."""
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        return int(state["settings"]["training"]["steps"])
    except Exception:  # torch raises many kinds; `load_state` says what is wrong
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
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
        with replacing(self.path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        with naming(self.path):
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
        with naming(self.path):
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
