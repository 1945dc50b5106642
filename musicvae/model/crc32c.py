"""CRC-32C, the checksum of TensorFlow's files: by a compiled library if one is installed, else by NumPy.

The remainder of a division is linear, so NumPy divides many lanes of the data side by side and joins the remainders
in pairs: the remainder of A followed by B is that of A, moved on by the length of B, plus (xor) that of B.
"""

import contextlib
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
LANES, WORDS = 4096, 256  # a block is so many lanes of so many words of 32 bits: 4 MiB, which a cache holds
MASK_DELTA = 0xA282EAD8

with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where it has no compiled half, which we see for ourselves
    import google_crc32c


def crc32c(data: bytes | np.ndarray) -> int:
    """Bytes, or the bytes of a contiguous array -> their CRC-32C (RFC 3720)."""
    if compiled():
        return int(google_crc32c.value(data))
    return numpy_crc32c(data)


def compiled() -> bool:
    """Whether a compiled library is here; NumPy takes some twenty times as long, which is seconds a gigabyte."""
    return "google_crc32c" in globals() and google_crc32c.implementation == "c"


def masked(crc: int) -> int:
    """A checksum as the files store it, so that the checksum of data that hold checksums still means something."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def numpy_crc32c(data: bytes | np.ndarray) -> int:
    """The same as `crc32c` without a compiled library."""
    flat = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
    crc, at, lanes = 0xFFFFFFFF, 0, LANES
    while lanes:
        size = lanes * WORDS * 4
        while len(flat) - at >= size:
            words = flat[at : at + size].view("<u4").reshape(lanes, WORDS)
            crc, at = _moved(crc, size) ^ _remainder(words), at + size
        lanes //= 2
    table = _tables().byte
    for byte in flat[at:].tolist():
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _remainder(words: np.ndarray) -> int:
    """words (lanes, words), lanes a power of two -> the remainder of all of them, one lane after another."""
    low, high = _tables().low, _tables().high
    crc = np.zeros(len(words), np.uint32)
    for column in np.ascontiguousarray(words.T):
        crc ^= column
        crc = low.take(crc & 0xFFFF) ^ high.take(crc >> 16)
    size = words.shape[1] * 4
    while len(crc) > 1:
        crc, size = _apply(_move(size), crc[0::2]) ^ crc[1::2], size * 2
    return int(crc[0])


def _moved(crc: int, size: int) -> int:
    return int(_apply(_move(size), np.array([crc], np.uint32))[0])


class _Tables(NamedTuple):
    """Remainders of short messages, each followed by zeros up to a word."""

    byte: list[int]  # (256,) of one byte and nothing after it
    low: np.ndarray  # (65536,) of the first half of a word
    high: np.ndarray  # (65536,) of the second


@cache
def _tables() -> _Tables:
    byte = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        byte = np.where(byte & 1, byte >> 1 ^ np.uint32(POLYNOMIAL), byte >> 1)
    tables = [byte]
    for _ in range(3):  # one more zero byte each
        tables.append(byte[tables[-1] & 0xFF] ^ tables[-1] >> 8)
    half = np.arange(65536)
    first, second, third, last = tables[::-1]
    return _Tables(byte.tolist(), first[half & 255] ^ second[half >> 8], third[half & 255] ^ last[half >> 8])


@cache
def _move(size: int) -> np.ndarray:
    """(32,) what becomes of each bit of a remainder when `size` (a power of two) zero bytes follow."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if size == 1:
        return np.array(_tables().byte, np.uint32)[bits & 0xFF] ^ bits >> 8
    half = _move(size // 2)
    return _apply(half, half)


def _apply(move: np.ndarray, crc: np.ndarray) -> np.ndarray:
    result = np.zeros_like(crc)
    for bit in range(32):
        result ^= (crc >> bit & 1) * move[bit]
    return result
