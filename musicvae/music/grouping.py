"""Songs that must not be parted: which belong together, and which split each group goes to.

Two files may be one song: a copy, another arrangement, the same tune in another key. If one of them trained the model,
the other cannot test it.
"""

import csv
import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from musicvae.music.midi import Song
from musicvae.music.representation import FIRST_PITCH, Drums, Melody, Representation, Trio
from musicvae.music.unique import hash_rows
from musicvae.music.windows import find_windows

SIGNATURE_BARS = 2
STOCK_PHRASE = 20  # a window in more songs than this ties nobody
SHARE = 0.5  # of the smaller song's windows
SPLITS = ("train", "validation", "test")
HELD_BACK = -1  # the split of a song that may only train, but is tied to one that tests
_BOUNDS = (0.90, 0.95)  # train below the first, validation below the second, test above


def signatures(songs: list[Song], representation: Representation) -> list[np.ndarray]:
    """For each song the sorted hashes of its different 2-bar windows; melodies are the same in every key."""
    if isinstance(representation, Drums):
        windows = find_windows(songs, representation, SIGNATURE_BARS)
        tokens = windows.tokens[..., 0]
    else:
        windows = find_windows(songs, Melody() if isinstance(representation, Trio) else representation, SIGNATURE_BARS)
        tokens = without_key(windows.tokens[..., 0])
    key = hash_rows(tokens)
    bounds = np.searchsorted(windows.song, np.arange(len(songs) + 1))
    return [np.unique(key[a:b]) for a, b in pairwise(bounds)]


def without_key(tokens: np.ndarray) -> np.ndarray:
    """Melody tokens (N, T) -> intervals above the first note, so that transposed windows are equal."""
    is_note = tokens >= FIRST_PITCH
    first = tokens[np.arange(len(tokens)), is_note.argmax(axis=1)].astype(np.int16)
    return np.where(is_note, tokens.astype(np.int16) - first[:, None] + 256, tokens)


def tie(signature: list[np.ndarray], extra: list[list[int]] = []) -> np.ndarray:  # noqa: B006 (never changed)
    """Signatures of songs -> (songs,) the least song of each one's group.

    Two songs tie if they are identical or share half of the smaller one's windows; ties are passed on. `extra` holds
    lists of songs that somebody knows to belong together.
    """
    parent = np.arange(len(signature))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    seen: dict[bytes, int] = {}
    same = [(seen.setdefault(s.tobytes(), i), i) for i, s in enumerate(signature) if len(s)]
    known = [(group[0], other) for group in extra for other in group[1:]]
    for a, b in [*same, *known, *_sharing(signature)]:
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(len(signature))], np.int64)


def _sharing(signature: list[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of songs with enough windows in common."""
    size = np.array([len(s) for s in signature], np.int64)
    if not size.sum():
        return []
    song, key = np.repeat(np.arange(len(size)), size), np.concatenate(signature)
    order = np.argsort(key, kind="stable")
    song, key = song[order], key[order]
    start = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    count = np.diff(np.append(start, len(key)))
    pairs = []
    for n in range(2, STOCK_PHRASE + 1):
        rows = song[start[count == n][:, None] + np.arange(n)]
        a, b = np.triu_indices(n, 1)
        pairs.append(rows[:, a].ravel() * len(size) + rows[:, b].ravel())
    pair, shared = np.unique(np.concatenate(pairs), return_counts=True)
    a, b = pair // len(size), pair % len(size)
    enough = shared >= SHARE * np.minimum(size[a], size[b])
    return list(zip(a[enough].tolist(), b[enough].tolist()))


def split_groups(signature: list[np.ndarray], group: np.ndarray) -> np.ndarray:
    """(songs,) index into SPLITS: 90 / 5 / 5 by sha256 of the group's least content hash, whatever files are called."""
    content = [hashlib.sha256(s.tobytes()).digest() for s in signature]
    least: dict[int, bytes] = {}
    for song, g in enumerate(group.tolist()):
        least[g] = min(least.get(g, content[song]), content[song])
    share = {g: int.from_bytes(hashlib.sha256(h).digest()[:8]) / 2**64 for g, h in least.items()}
    return np.array([np.searchsorted(_BOUNDS, share[g], side="right") for g in group.tolist()], np.int64)


def read_groups(path: Path, names: list[str]) -> list[list[int]]:
    """CSV with the columns file and group -> lists of indices into `names` that belong together.

    Raises ValueError if it cannot be read, lacks the columns, or names none of the files.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file", "group"} <= set(reader.fieldnames or []):
                raise ValueError(f"{path}: columns {reader.fieldnames}; needed are file and group")
            rows = [((row["file"] or "").strip(), (row["group"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from None
    unnamed = [file for file, group in rows if not group]
    if unnamed:
        raise ValueError(f"{path}: no group for {unnamed[0]!r} and {len(unnamed) - 1} others; leave such rows out")
    index = {name: i for i, name in enumerate(names)}
    groups: dict[str, list[int]] = {}
    for name, group in rows:
        if name in index:
            groups.setdefault(group, []).append(index[name])
    if rows and not groups:
        raise ValueError(
            f"{path}: none of its {len(rows)} files is in the data set (first: {rows[0][0]}; ours: {names[0]})"
        )
    return list(groups.values())
