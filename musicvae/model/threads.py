"""How many threads NumPy's products take: small ones lose more by waiting for each other than they gain."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

SMALL = 1024  # units of a layer, below which one thread is as fast as several
NAMES = tuple(f"{first}openblas_{{}}_num_threads{last}" for first in ("scipy_", "") for last in ("64_", ""))


@contextmanager
def few_threads(units: int) -> Iterator[None]:
    """One thread for the products of layers of so many units if they are SMALL; then as many as before.

    Only where NumPy computes by OpenBLAS, as in the wheels for Linux and Windows; elsewhere nothing changes.
    """
    if units >= SMALL or openblas() is None:
        yield
        return
    get, set_to = openblas()  # type: ignore[misc]
    before = get()
    set_to(1)
    try:
        yield
    finally:
        set_to(before)


@cache
def openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """What reads and what sets the number of threads."""
    beside = sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"))
    core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules["numpy.core._multiarray_umath"]
    for path in (core.__file__, *beside):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in NAMES:
            if hasattr(library, name.format("set")):
                return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None
