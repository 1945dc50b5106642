"""An n-gram model <-> an ARPA file, the text form that every n-gram toolkit reads. Words are token numbers."""

import gzip
from pathlib import Path
from typing import IO

import numpy as np

from musicvae.evaluation.ngram import BEGIN, END, FIRST_WORD, UNKNOWN, NgramModel, Ngrams, mask, pack, word_bits
from musicvae.files import replacing

SPECIAL = {UNKNOWN: "<unk>", BEGIN: "<s>", END: "</s>"}
NEVER = -99.0  # what stands for the logarithm of 0


def save_arpa(path: str | Path, model: NgramModel) -> None:
    """Writes the model as text, in gzip if the name ends with .gz; 1e-7 of each figure are lost."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, _opened(temporary, "wt", path.suffix == ".gz") as file:
        _write(file, model)


def load_arpa(path: str | Path) -> NgramModel:
    """The model in an ARPA file whose words are token numbers. Raises ValueError for what is no such file."""
    path = Path(path)
    try:
        with _opened(path, "rt", path.suffix == ".gz") as file:
            return _read(file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path}: no ARPA file of token numbers ({error})") from None


def _opened(path: Path, mode: str, is_gzip: bool) -> IO[str]:
    return gzip.open(path, mode, encoding="ascii") if is_gzip else open(path, mode, encoding="ascii")  # type: ignore[return-value]


def _write(file: IO[str], model: NgramModel) -> None:
    bits = word_bits(len(model.vocabulary))
    names = [SPECIAL[word] for word in range(FIRST_WORD)] + [str(token) for token in model.vocabulary]
    file.write("\\data\\\n" + "".join(f"ngram {n}={len(g.keys)}\n" for n, g in enumerate(model.ngrams, 1)))
    for n, ngrams in enumerate(model.ngrams, 1):
        file.write(f"\n\\{n}-grams:\n")
        words = [(ngrams.keys >> (n - 1 - i) * bits & mask(1, bits)).tolist() for i in range(n)]
        figures = zip(ngrams.probability.clip(NEVER).tolist(), ngrams.backoff.tolist())
        for (probability, backoff), *key in zip(figures, *words):
            weight = f"\t{backoff:.8g}" if n < len(model.ngrams) else ""
            file.write(f"{probability:.8g}\t{' '.join([names[word] for word in key])}{weight}\n")
    file.write("\n\\end\\\n")


def _read(file: IO[str]) -> NgramModel:
    """Section by section; the single words come first, and tell the vocabulary."""
    sections: dict[int, list[list[str]]] = {}
    n = 0
    for line in file:
        if line.startswith("\\"):
            n = int(line[1 : line.index("-")]) if line.rstrip().endswith("-grams:") else 0
            sections.setdefault(n, [])
        elif n and line.strip():
            sections[n].append(line.split())
    lengths = sorted(sections.keys() - {0})
    if not lengths or lengths != list(range(1, len(lengths) + 1)):
        raise ValueError(f"sections of n-grams found: {lengths}")
    special = {name: word for word, name in SPECIAL.items()}
    vocabulary = np.array(sorted(int(row[1]) for row in sections[1] if row[1] not in special), np.int64)
    names = special | {str(token): FIRST_WORD + i for i, token in enumerate(vocabulary.tolist())}
    return NgramModel(vocabulary, tuple(_section(sections[n], n, names) for n in lengths))


def _section(rows: list[list[str]], n: int, names: dict[str, int]) -> Ngrams:
    """rows: probability, n words, perhaps a backoff -> sorted by key."""
    words = np.array([names[name] for row in rows for name in row[1 : n + 1]], np.int64).reshape(-1, n)
    probability = np.array([float(row[0]) for row in rows])
    backoff = np.array([float(row[n + 1]) if len(row) > n + 1 else 0.0 for row in rows])
    keys = pack(words, n, word_bits(len(names) - FIRST_WORD))[:, 0]
    if n == 1:
        if not np.array_equal(np.sort(keys), np.arange(len(names))):
            raise ValueError("<unk>, <s>, </s> and every token must stand among the 1-grams, once")
        probability[keys == BEGIN] = -np.inf  # writers put various figures there
    order = np.argsort(keys)
    return Ngrams(keys[order], probability[order], backoff[order])
