"""What a training keeps in its folder and how it is stopped: checkpoint, metrics, clock, Ctrl-C."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch

from musicvae.files import replacing
from musicvae.model.config import CONFIG, WEIGHTS, load_config
from musicvae.model.objective import REPORTING

STATE, METRICS, LOCK = "training.pt", "metrics.jsonl", ".lock"
STATE_FORMAT = 1


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
    missing = {"format", "model", "optimizer", "step", "seconds", "tally", "validation"} - state.keys()
    if missing:
        raise ValueError(f"{folder / STATE} lacks {', '.join(sorted(missing))}: give a new --out")
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
            with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
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
