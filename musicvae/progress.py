"""How far a training is, and how long it will still take, from its first seconds on."""

import sys
import time
from typing import TextIO

FIRST = 3.0  # seconds until the first line; where nobody can look at a terminal, the next comes after twice as long
REDRAWN = 1.0  # seconds between two looks at a terminal


class Progress:
    """Call it with the step after every update; it writes to stderr, over itself where that is a terminal."""

    def __init__(self, steps: int, max_seconds: float | None = None, stream: TextIO | None = None):
        self.steps, self.max_seconds = steps, max_seconds
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.first, self.begun, self.shown = -1, 0.0, False
        self.due = FIRST

    def __call__(self, step: int) -> None:
        now = time.monotonic()
        if self.first < 0:  # the first update prepares much that the others need not
            self.first, self.begun = step, now
            return
        passed = now - self.begun
        if passed >= self.due and step < self.steps:
            self._write(self.line(step, passed))
            self.due = passed + REDRAWN if self.live else passed * 2

    def line(self, step: int, passed: float) -> str:
        """The progress `passed` seconds after the first update of this call."""
        left = passed / (step - self.first) * (self.steps - step)
        text = f"step {step:,} of {self.steps:,} ({step / self.steps:.0%}), about {duration(left)} left"
        if self.max_seconds is not None and self.max_seconds - passed < left:
            text += f"; pauses in {duration(max(self.max_seconds - passed, 0))}"
        return text

    def clear(self) -> None:
        """Makes room for another line on the same terminal."""
        if self.live and self.shown:
            print("\r\033[K", end="", file=self.stream, flush=True)
            self.shown = False

    def _write(self, text: str) -> None:
        self.clear()
        print(text, end="" if self.live else "\n", file=self.stream, flush=True)
        self.shown = True


def duration(seconds: float) -> str:
    """90.0 -> "90 s", 600.0 -> "10 min", 9000.0 -> "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
