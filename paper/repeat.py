"""A data set whose training windows of some corpora count several times; validation and test stay as they are.

    python paper/repeat.py data/trio-16 data/trio-16-played --corpora freedoom easyrpg --times 8

Nine in ten windows of trio-16 were assembled or written by a program, and none of those is tested.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musicvae.files import replacing
from musicvae.music.dataset import Dataset


def repeat(data: Path, out: Path, corpora: list[str], times: int) -> tuple[int, int]:
    """Copies the data set; returns its training windows before and now. ValueError for corpora without windows."""
    windows = Dataset(data).rows("train")
    corpus = pc.list_element(pc.split_pattern(windows["file"], "/", max_splits=1), 0)
    chosen = windows.filter(pc.is_in(corpus, pa.array(corpora)))
    if not len(chosen) or times < 1:
        raise ValueError(
            f"{data} has {len(chosen)} training windows of {', '.join(corpora)}, to be there {times} times"
        )
    repeated = pa.concat_tables([windows, *[chosen] * (times - 1)])
    copy_with(repeated, data, out)
    return len(windows), len(repeated)


def copy_with(training: pa.Table, data: Path, out: Path) -> None:
    """The data set in a new folder, with other training windows."""
    out.mkdir(parents=True)
    for name in ("validation.parquet", "test.parquet"):
        shutil.copyfile(data / name, out / name)
    report = json.loads((data / "report.json").read_text())
    report["splits"]["train"]["windows"] = len(training)
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    with replacing(out / "train.parquet") as temporary:
        pq.write_table(training, temporary, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data set to copy")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--corpora", nargs="+", required=True, metavar="FOLDER", help="first folders of their files")
    parser.add_argument("--times", type=int, default=8)
    given = parser.parse_args()
    before, now = repeat(given.data, given.out, given.corpora, given.times)
    print(f"{given.out}: {now:,} training windows, before {before:,}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileExistsError) as error:
        sys.exit(f"repeat.py: {error}")
