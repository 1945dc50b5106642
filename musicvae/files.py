"""Files that are whole at every moment: written under a temporary name, and renamed when all went well."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which is gone afterwards. ValueError where another process holds it.

    Whoever dies loses the lock. Where the system has no flock (Windows), nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"another process is writing here (it holds {path}). Wait for it, or give another --out"
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


@contextmanager
def replacing(path: Path, concurrent: bool = False) -> Iterator[Path]:
    """`with replacing(path) as temporary`: what is written there becomes `path` at the end, else nothing changes.

    `path` is the old file or the new one, even after a power cut. The temporary name stands in the same folder and is
    always the same, so that what a killed process left is written over by the next; `concurrent` gives each process
    its own, for files that several may write at once.
    """
    mark = f".{os.getpid()}" if concurrent else ""
    temporary = path.with_name(f".{path.name}{mark}.partial")
    try:
        with naming(path, temporary):
            temporary.unlink(missing_ok=True)
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)  # what this user's files have
            yield temporary
            if stat.S_IMODE(temporary.stat().st_mode) != mode:
                temporary.chmod(mode)  # a library may have put there a file of its own, for its owner only
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # which would hide the error that matters
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Gives an OSError the file's path where it has none, as when a disk is full, or that of its temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of NumPy, which says no more than how much it could not write
            raise OSError(f"{path}: {error}") from None
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
