"""Which files of the corpora belong together, as only their names tell: the --groups of the data sets.

    python paper/groups.py CORPORA drums > groups-drums.csv

A drummer plays alike all through a session, so the grooves of one drummer and session are one group; several versions
of a piece share the name before the first dot (freedoom); a tune goes under the part of the name before `__` or the
first dot (trio_*), whatever it is arranged for.
"""

import csv
import re
import sys
from pathlib import Path
from typing import TextIO


def group_of(folder: str, name: str, kind: str) -> str | None:
    """The group of one file by its name; None where the name tells nothing."""
    stem = re.sub(r"\.midi?$", "", name)
    if folder == "groove":
        return "groove " + "__".join(stem.split("__")[:2])
    if folder == "freedoom":
        return "freedoom " + stem.split(".")[0].lower()
    if folder in ("trio_hymn_groove", "trio_synth_hymn", "open_hymnal"):
        if kind == "drums" and folder == "trio_hymn_groove":  # here the drummer, not the tune, is what is alike
            return "groove " + "__".join(stem.split("__")[1].split("-")[:2])
        return "hymn " + _tune(stem).removeprefix("hymn_")
    if folder in ("trio_synth_ewld_us_pd", "openewld_us_pd"):
        if stem.startswith("dataset__"):  # a title may hold a dot: The Bells of St. Mary's
            return "ewld " + _plain(stem.split("__")[2])
        return "ewld " + _tune(stem).removeprefix("ewld_")
    return None


def _tune(stem: str) -> str:
    return _plain(stem.split("__")[0].split(".")[0])


def _plain(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def write(corpora: Path, kind: str, out: TextIO) -> None:
    """Writes the CSV, with the columns file and group, of all files whose names tell a group."""
    writer = csv.writer(out)
    writer.writerow(["file", "group"])
    for path in sorted(corpora.glob("*/*.mid")):
        group = group_of(path.parent.name, path.name, kind)
        if group:
            writer.writerow([f"{path.parent.name}/{path.name}", group])


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("melody", "drums", "trio"):
        sys.exit("usage: python paper/groups.py CORPORA melody|drums|trio > groups.csv")
    write(Path(sys.argv[1]), sys.argv[2], sys.stdout)
