"""Windows told apart: a 64-bit hash to sort by, and exact comparison behind it."""

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, as in Fibonacci hashing

_AT_ONCE = 1 << 14  # rows compared: bounds memory


def hash_rows(rows: np.ndarray) -> np.ndarray:
    """rows (N, ...) of any integer type -> (N,) uint64, the same on every machine of the same byte order."""
    words = as_bytes(rows)
    if words.shape[1] % 8:
        words = np.pad(words, ((0, 0), (0, -words.shape[1] % 8)))
    columns = np.ascontiguousarray(words).view(np.uint64).T
    result = np.full(len(rows), rows[0].size if len(rows) else 0, np.uint64)
    for column in columns:
        result = (result ^ column) * _ODD
        result ^= result >> np.uint64(29)
    return result


def as_bytes(rows: np.ndarray) -> np.ndarray:
    """rows (N, ...) -> (N, bytes of a row) uint8."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.uint8).reshape(len(rows), rows.nbytes // max(len(rows), 1))


def same_rows(rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """rows (N, L) and their hashes -> (N,) the index of the first row equal to each. Exact: hashes only sort."""
    first = np.arange(len(rows))
    if len(rows) < 2:
        return first
    order = np.argsort(key, kind="stable")
    run_start = np.append(True, key[order[1:]] != key[order[:-1]])
    leader = order[np.flatnonzero(run_start)][np.cumsum(run_start) - 1]
    equal = np.empty(len(rows), bool)
    for at in range(0, len(rows), _AT_ONCE):
        some = slice(at, at + _AT_ONCE)
        equal[some] = (rows[order[some]] == rows[leader[some]]).all(axis=1)
    first[order] = np.where(equal, leader, order)
    for lost in np.unique(key[order[~equal]]):  # two different rows with one hash: compare each with each
        members = np.flatnonzero(key == lost)
        seen: dict[bytes, int] = {}
        for i in members.tolist():
            first[i] = seen.setdefault(rows[i].tobytes(), i)
    return first
