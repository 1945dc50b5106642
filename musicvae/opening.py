"""What a user points at -> a checkpoint of the original: a folder, a prefix, a file of either format, an archive."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from musicvae.archive import ENDINGS, is_archive, unpacked
from musicvae.model.bundle import Bundle
from musicvae.model.config import WEIGHTS
from musicvae.model.tfjs import CONFIG, MANIFEST, Folder

BUNDLE_FILE = re.compile(r"(.+)\.(?:index|meta|data-\d{5}-of-\d{5})")


@contextmanager
def open_checkpoint(path: Path, beside: Path) -> Iterator[Bundle | Folder]:
    """The checkpoint at a path; an archive is unpacked in `beside` for as long as it is open.

    Raises ValueError where there is none, or more than one to choose from.
    """
    if is_archive(path):
        with unpacked(path, beside) as folder:
            try:
                yield _in_folder(folder)
            except ValueError as error:  # whose files are those in the archive, not those of a moment
                raise ValueError(str(error).replace(f"{folder}", f"{path}")) from None
        return
    yield _in_folder(path) if path.is_dir() else _beside(path)


def source_name(path: Path) -> str:
    """What to call a model that comes from there: the archive's name, or the folder's if the files have common ones."""
    name = path.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if path.is_file() and name.lower().endswith(ending):
            return _plain(name[: -len(ending)])
    match = BUNDLE_FILE.fullmatch(name)
    name = match[1] if match else name
    if re.match(r"model\.ckpt", name) or name in (CONFIG, MANIFEST):
        name = path.absolute().parent.name
    return _plain(re.sub(r"\.ckpt(-\d+)?$", "", name))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "imported"


def _in_folder(folder: Path) -> Bundle | Folder:
    """The one checkpoint in a folder, or if it holds none itself, in those below it."""
    if (folder / MANIFEST).is_file():
        return Folder(folder)
    if (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} is a run already: sample, encode or export it as it is")
    found = next(filter(None, (_checkpoints(folder.glob(depth)) for depth in ("*", "*/*", "*/*/*"))), [])
    if not found:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise ValueError(f"{folder} holds no checkpoint: no NAME.index and no {MANIFEST} (found: {held})")
    if len(found) > 1:
        chosen = _chosen(folder, found)
        if chosen is None:
            names = ", ".join(str(path.relative_to(folder)) for path in found[:5])
            raise ValueError(f"{folder} holds {len(found)} checkpoints ({names}): name one of them")
        found = [chosen]
    return Folder(found[0]) if found[0].is_dir() else Bundle(found[0])


def _checkpoints(paths: Iterator[Path]) -> list[Path]:
    """The folders with a manifest and the prefixes with an index among some paths, without what macOS hides there."""
    found = set()
    for path in paths:
        if path.name.startswith("._") or not path.is_file():
            continue
        if path.name == MANIFEST:
            found.add(path.parent)
        elif path.name.endswith(".index"):
            found.add(path.with_name(path.name.removesuffix(".index")))
    return sorted(found)


def _chosen(folder: Path, found: list[Path]) -> Path | None:
    """The one that TensorFlow's file `checkpoint` calls the latest."""
    file = folder / "checkpoint"
    text = file.read_text(encoding="utf-8", errors="replace")[:65536] if file.is_file() else ""
    match = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
    latest = folder / Path(match[1]).name if match else None
    return latest if latest in found else None


def _beside(path: Path) -> Bundle | Folder:
    """The checkpoint of which a file, or the prefix of whose files, was named."""
    if path.name in (CONFIG, MANIFEST) and (path.parent / MANIFEST).is_file():
        return Folder(path.parent)
    match = BUNDLE_FILE.fullmatch(path.name)
    prefix = path.with_name(match[1]) if match else path
    if prefix.with_name(prefix.name + ".index").is_file():
        return Bundle(prefix)
    kinds = f"NAME.index of TensorFlow with its data, a magenta.js folder, or either in a {', '.join(ENDINGS)}"
    if path.is_file():
        raise ValueError(f"{path} is none of what can be imported: {kinds}")
    raise ValueError(f"{path}: there is no such file or folder; can be imported: {kinds}")
