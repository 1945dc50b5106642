"""Many tasks over many processes, where a process that dies or hangs costs one item, not the job."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from types import MappingProxyType
from typing import Any, NamedTuple

ITEM_SECONDS = 20.0  # longer than any file may take; a process that is silent for so long is ended
MAX_DEATHS_WITHOUT_ITEM = 3
NO_MAIN_GUARD = 87  # exit code of a process that would start processes before it is a worker

Skip = Mapping[int, str]
Beat = Callable[[int], None]
Work = Callable[[Any, Skip, Beat], Any]
NOTHING: Skip = MappingProxyType({})


def no_beat(item: int) -> None:
    """For callers that nobody watches."""


def check_main_guard() -> None:
    """Ends a worker process that is still running the script of its parent, where that calls what starts workers.

    Its parent then says what is wrong. In every other process nothing happens.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing.spawn tells it
        sys.exit(NO_MAIN_GUARD)


class Done(NamedTuple):
    task: Any
    result: Any


def run_tasks(work: Work, tasks: list[Any], workers: int, item_seconds: float = ITEM_SECONDS) -> Iterator[Done]:
    """Calls `work(task, skip, beat)` for each task in one of `workers` processes and yields results as they come.

    `work` must be a module's function. It calls `beat(i)` before it touches item i; if the process dies or is silent
    for `item_seconds` after that, the task is begun again with `skip[i]` = "crashed" or "hung". Raises OSError for
    one in a process (a full disk, say) or if processes die outside any item, RuntimeError if `work` raises else.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    crew = [_Worker(context, work) for _ in range(min(max(workers, 1), len(tasks)))]
    try:
        for worker in crew:
            worker.begin(waiting.pop())
        while busy := [w for w in crew if w.busy]:
            wait([w.connection for w in busy], timeout=0.5)
            for worker in busy:
                result = worker.look(item_seconds)
                if result is not None:
                    yield result
                    if waiting:
                        worker.begin(waiting.pop())
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    def __init__(self, context: Any, work: Work):
        self.context, self.work = context, work
        self.busy = False
        self._start()

    def _start(self) -> None:
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs, self.work), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, task: Any) -> None:
        self.task, self.deaths, self.busy = task, 0, True
        self.skip: dict[int, str] = {}
        self._send()

    def _send(self) -> None:
        self.item: int | None = None
        self.since = time.monotonic()
        self.connection.send((self.task, self.skip))

    def look(self, item_seconds: float) -> Done | None:
        """The task's result if it is there; restarts the process if it died or hangs."""
        refused = ""
        try:
            while not refused and self.connection.poll():
                kind, value = self.connection.recv()
                self.since = time.monotonic()
                if kind == "done":
                    self.busy = False
                    return Done(self.task, value)
                refused = value if kind == "system" else ""
                if kind == "error":
                    raise RuntimeError(f"a worker failed:\n{value}")
                self.item = value
            hung = not refused and self.item is not None and time.monotonic() - self.since > item_seconds
            if not refused and not hung and self.process.is_alive():
                return None
        except (EOFError, OSError):
            hung = False
        if refused:
            raise OSError(f"{refused}. What is done is kept: once that is mended, the same command goes on")
        self._restart("hung" if hung else "crashed")
        return None

    def _restart(self, why: str) -> None:
        self.end()
        if self.item is not None:
            self.skip[self.item] = why
        else:
            self.deaths += 1
            if self.process.exitcode == NO_MAIN_GUARD:
                raise ValueError(
                    "worker processes run the script that starts them once more: in a script, call this below "
                    'if __name__ == "__main__":'
                )
            if self.deaths >= MAX_DEATHS_WITHOUT_ITEM:
                raise ChildProcessError(
                    f"worker processes keep dying (exit code {self.process.exitcode}); is there enough memory?"
                )
        self._start()
        self._send()

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, work: Work) -> None:
    import signal
    import traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    try:
        while True:
            task, skip = connection.recv()
            try:
                answer = ("done", work(task, skip, lambda item: connection.send(("item", item))))
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                answer = ("system", str(error))
            except Exception:
                answer = ("error", traceback.format_exc())
            connection.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone
