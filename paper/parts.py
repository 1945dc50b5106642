"""A data set of trios whose parts come from different songs: few songs have all three, many have one.

    python paper/parts.py data/trio-16-played data/trio-16-parts --melodies data/melody-16 --drums data/drums-16-played

In a share of the training windows the melody, and in as many, drawn anew, the drums are those of a window drawn from
the other data sets; the melody is shifted into the scale of the bass. Songs that validate or test the trios give
nothing. Meant for what comes before the training proper (`levels.py`): it learns to read and write each part, not to
play together; with a smaller share for the training too, which the few played trios alone teach by heart. Validation
and test windows stay as they are.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from repeat import copy_with

from musicvae.music.dataset import Dataset
from musicvae.music.key import NO_KEY, find_keys, pitch_class_steps
from musicvae.music.representation import FIRST_PITCH

SHARE = 0.6  # of the melodies and of the drums are borrowed
MINOR = 12  # the first minor key of `musicvae/music/key.py`
MELODY, BASS, DRUMS = range(3)


def borrow(
    trios: np.ndarray, melodies: np.ndarray, drums: np.ndarray, rng: np.random.Generator, share: float = SHARE
) -> np.ndarray:
    """trios (N, T, 3), melodies (M, T), drums (L, T) -> trios, with a share of melodies and of drums borrowed."""
    mixed = np.array(trios)
    taken = np.flatnonzero(rng.random(len(mixed)) < share)
    chosen = melodies[rng.integers(len(melodies), size=len(taken))]
    mixed[taken, :, MELODY] = in_key_of(chosen, mixed[taken, :, BASS])
    taken = np.flatnonzero(rng.random(len(mixed)) < share)
    mixed[taken, :, DRUMS] = drums[rng.integers(len(drums), size=len(taken))]
    return mixed


def in_key_of(melodies: np.ndarray, basses: np.ndarray) -> np.ndarray:
    """melodies (N, T), basses (N, T) -> melodies, each shifted the shortest way to the scale of its bass.

    A minor key has the scale of the major key three semitones above. Where one of them has no key, or a pitch would
    leave the MIDI range, the melody stays as it is.
    """
    mine, theirs = (find_keys(pitch_class_steps(part)) for part in (melodies, basses))
    shift = (scale_of(theirs) - scale_of(mine) + 5) % 12 - 5
    sounding = melodies >= FIRST_PITCH
    moved = melodies.astype(np.int64) + shift[:, None] * sounding
    outside = ((moved < FIRST_PITCH) | (moved >= FIRST_PITCH + 128)) & sounding
    stays = (mine == NO_KEY) | (theirs == NO_KEY) | outside.any(axis=1)
    return np.where(stays[:, None], melodies, moved).astype(melodies.dtype)


def scale_of(keys: np.ndarray) -> np.ndarray:
    """keys -> pitch class of the tonic of the major key that has the same scale."""
    return (keys + 3 * (keys >= MINOR)) % 12


def unheld(data: Path, trios: Dataset, representation: str) -> np.ndarray:
    """Training windows (N, T) of one part whose songs neither validate nor test the trios.

    Raises ValueError for a data set of another representation, length or drum map than the part has in the trios.
    """
    source, wanted = Dataset(data), trios.settings
    found = source.settings
    fits = (found.representation, found.bars) == (representation, wanted.bars)
    if not fits or (representation == "drums" and (found.drum_map or "current") != (wanted.drum_map or "current")):
        raise ValueError(
            f"{data} holds {found.representation} of {found.bars} bars; {representation} of {wanted.bars} bars are "
            f"needed, with the drum map of the trios ({wanted.drum_map or 'current'})"
        )
    held = pa.concat_arrays([trios.rows(s, ["file"])["file"].combine_chunks() for s in ("validation", "test")]).unique()
    free = ~np.isin(source.rows("train", ["file"])["file"].to_numpy(), held.to_numpy(zero_copy_only=False))
    return np.asarray(source.tokens("train"))[free, :, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data set of trios")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--melodies", type=Path, required=True, metavar="DATA", help="data set of melodies")
    parser.add_argument("--drums", type=Path, required=True, metavar="DATA", help="data set of drums")
    parser.add_argument("--share", type=float, default=SHARE, help="of melodies, and of drums, that are borrowed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if not 0 < given.share <= 1:
        raise ValueError(f"--share {given.share}; it must be above 0, and at most 1")
    trios = Dataset(given.data)
    if trios.settings.representation != "trio":
        raise ValueError(f"{given.data} holds {trios.settings.representation}; trios are needed")
    before, windows = np.asarray(trios.tokens("train")), pq.read_table(given.data / "train.parquet")
    parts = [unheld(data, trios, part) for data, part in ((given.melodies, "melody"), (given.drums, "drums"))]
    mixed = borrow(before, *parts, np.random.default_rng(given.seed), given.share)
    column = windows.schema.get_field_index("tokens")
    field = windows.schema.field(column)
    tokens = pa.FixedSizeListArray.from_arrays(mixed.reshape(-1), mixed[0].size).cast(field.type)
    copy_with(windows.set_column(column, field, tokens), given.data, given.out)
    print(
        f"{given.out}: {len(mixed):,} training windows, parts from {len(parts[0]):,} melodies, {len(parts[1]):,} drums"
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileExistsError) as error:
        sys.exit(f"parts.py: {error}")
