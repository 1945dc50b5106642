"""What became of every file and every window on the way to a data set."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from musicvae.music.grouping import HELD_BACK, SPLITS
from musicvae.music.midi import Song
from musicvae.music.reasons import REASONS
from musicvae.music.windows import MAX_PAIRS, MAX_WINDOWS

EXAMPLES = 3  # files named for each reason

WHY = REASONS | {
    "crashed": "reading it ended the process",
    "hung": "reading it took too long",
    "no-part": "it has no part of this kind",
    "too-short": "no stretch of 4/4 is long enough",
    "too-silent": "every window is silent for more than a bar",
    "too-many-windows": f"it has more than {MAX_WINDOWS:,} windows",
    "internal": "our own code failed on it (please report this)",
}


class FileResult(NamedTuple):
    """What one file gave; `reason` is empty if it was used."""

    reason: str = ""
    detail: str = ""
    tracks: int = 0
    drum_tracks: int = 0
    onsets: int = 0
    off_grid: int = 0
    dropped_metres: int = 0
    possible: int = 0  # windows in 4/4
    sounding: int = 0  # of these, after the rule of silence
    unique: int = 0  # of these, different within the file
    cut_pairs: int = 0  # of melody and bass, beyond as many as are looked at

    @classmethod
    def of_song(cls, song: Song) -> "FileResult":
        drums = sum(i.is_drum for i in song.instruments)
        return cls("", "", len(song.instruments), drums, len(song.notes.start), song.off_grid, len(song.dropped))


def make_report(
    settings: dict[str, Any],
    names: list[str],
    files: list[FileResult],
    group: np.ndarray,
    split: np.ndarray,
    buckets: list[dict[str, Any]],
) -> dict[str, Any]:
    """Results of all files and buckets -> the report, ready for JSON; it holds no time and no machine."""
    used = np.array([not f.reason for f in files], bool)
    unique = np.sum([b["unique"] for b in buckets], axis=0)
    kept_of_file: Counter[int] = Counter()
    for bucket in buckets:
        kept_of_file.update(dict(zip(*bucket["by_file"])))
    onsets = sum(f.onsets for f in files)
    total = int(unique.sum())
    return {
        "settings": settings,
        "files": {
            "read": len(files),
            "used": int(used.sum()),
            "rejected": int((~used).sum()),
            "with_metres_dropped": sum(f.dropped_metres > 0 and not f.reason for f in files),
        },
        "rejected": _rejected(names, files),
        "cut": _cut(names, files),
        "held_back": int(np.count_nonzero(used & (split == HELD_BACK))),
        "tracks": sum(f.tracks for f in files),
        "windows": {
            "in_4_4": sum(f.possible for f in files),
            "after_silence_rule": sum(f.sounding for f in files),
            "unique_in_their_song": sum(f.unique for f in files),
            "unique": total,
            "duplicates": sum(f.sounding for f in files) - total,
            "left_other_splits_for_train": int(np.sum([b["moved"] for b in buckets])),
        },
        "splits": {
            name: {
                "songs": int(np.count_nonzero(used & (split == n))),
                "groups": len(np.unique(group[used & (split == n)])),
                "windows": int(unique[n]),
            }
            for n, name in enumerate(SPLITS)
        },
        "folders": _folders(names, files, split, kept_of_file),
        "onsets_a_bar": [
            round(o / max(total * settings["bars"], 1), 3)
            for o in np.sum([b["onsets"] for b in buckets], axis=0).tolist()
        ],
        "off_grid": round(sum(f.off_grid for f in files) / onsets, 4) if onsets else 0.0,
    }


def _rejected(names: list[str], files: list[FileResult]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, file in zip(names, files):
        if file.reason:
            entry = result.setdefault(file.reason, {"files": 0, "why": WHY[file.reason], "examples": []})
            entry["files"] += 1
            if len(entry["examples"]) < EXAMPLES:
                entry["examples"].append(f"{name}: {file.detail or WHY[file.reason]}")
    return dict(sorted(result.items(), key=lambda item: (-item[1]["files"], item[0])))


def _cut(names: list[str], files: list[FileResult]) -> dict[str, Any]:
    """Songs of which not all was looked at, though they may be used."""
    found = [(name, file.cut_pairs) for name, file in zip(names, files) if file.cut_pairs]
    return {
        "files": len(found),
        "pairs": sum(pairs for _, pairs in found),
        "why": f"more than {MAX_PAIRS} pairs of melody and bass, the rest of which was not looked at",
        "examples": [f"{name}: {pairs:,} pairs too many" for name, pairs in found[:EXAMPLES]],
    }


def _folders(names: list[str], files: list[FileResult], split: np.ndarray, kept: Counter[int]) -> dict[str, Any]:
    """By the first folder of each name: songs used and windows kept, by split."""
    result: dict[str, Any] = {}
    for i, (name, file) in enumerate(zip(names, files)):
        folder = name.split("/")[0] if "/" in name else "."
        entry = result.setdefault(folder, {"files": 0, "used": 0, **dict.fromkeys(SPLITS, 0)})
        entry["files"] += 1
        entry["used"] += not file.reason
        if split[i] != HELD_BACK:
            entry[SPLITS[split[i]]] += kept.get(i, 0)
    return result
