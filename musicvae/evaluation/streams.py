"""What the tokens of one stream say, by its kind: where something begins, and what.

N windows   T steps a window. A stream is of kind "melody" (also bass) or "drums".
"""

import numpy as np

from musicvae.music.representation import DRUM_CLASSES, FIRST_PITCH

KINDS = ("melody", "drums")
_CLASSES_HIT = np.array([token.bit_count() for token in range(2 ** len(DRUM_CLASSES))])


def checked_windows(tokens: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """tokens (N, T, streams), never empty. Raises ValueError for anything else and for kinds that do not fit them."""
    tokens, unknown = np.asarray(tokens), [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"no kind of stream {unknown[0]!r}; known are {', '.join(KINDS)}")
    if tokens.ndim != 3 or tokens.shape[2] != len(kinds) or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens are {tokens.dtype} {tokens.shape}; expected integers (windows, steps, {len(kinds)})")
    if not tokens.size:
        raise ValueError(f"tokens of shape {tokens.shape} hold nothing to evaluate; at least one window is needed")
    return tokens


def stream_names(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each stream: a second melody is the bass."""
    return tuple("bass" if kind == "melody" and "melody" in kinds[:i] else kind for i, kind in enumerate(kinds))


def count_onsets(tokens: np.ndarray, kind: str) -> np.ndarray:
    """Tokens of any shape -> how many onsets each holds: a note or none; in drums, the classes hit."""
    return _CLASSES_HIT[tokens] if kind == "drums" else (tokens >= FIRST_PITCH).astype(np.int64)


def count_common_onsets(tokens: np.ndarray, others: np.ndarray, kind: str) -> np.ndarray:
    """How many onsets two tokens have in common: the same note, or in drums the classes that both hit."""
    return count_onsets(tokens & others, kind) if kind == "drums" else count_onsets(tokens, kind) * (tokens == others)
