"""An n-gram language model of tokens, with interpolated modified Kneser-Ney smoothing (Chen & Goodman 1999, 4.1.6).

Section 5.4 measures the cost of a sequence with it: how surprising each token is after the four before it.

N sentences (windows)   T tokens a sentence   W different tokens of the training text   K n-grams of one length
A word is 0 unknown, 1 begin, 2 end of sentence, 3 + i the i-th token of the vocabulary. An n-gram is one integer, its
first word in the highest bits: so the n-grams of a length are a sorted array, those of one context stand together, and
all work is array work.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

UNKNOWN, BEGIN, END, FIRST_WORD = 0, 1, 2, 3
FALLBACK = (0.5, 1.0, 1.5)  # discounts for a text too small or too even to tell; those of KenLM's lmplz
_AT_ONCE = 1 << 22  # tokens counted or scored in one go: bounds memory


class Ngrams(NamedTuple):
    """All n-grams of one length, sorted by key."""

    keys: np.ndarray  # (K,) int64
    probability: np.ndarray  # (K,) log10 p(last word | words before it); -inf for "begin", which is never predicted
    backoff: np.ndarray  # (K,) log10 of the weight of the shorter context, where these words are the context


@dataclass(frozen=True)
class NgramModel:
    """p(token | tokens before it). Tokens that the training text lacks are all one word, the unknown."""

    vocabulary: np.ndarray  # (W,) int64, ascending: the tokens of the training text
    ngrams: tuple[Ngrams, ...]  # of length 1, 2, ...

    def score(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (N, T) -> log10 p of each token, and of the end of the sentence after the last (N, T + 1)."""
        tokens = checked_sentences(tokens)
        at_once = max(1, _AT_ONCE // (tokens.shape[1] + 1))
        parts = [tokens[at : at + at_once] for at in range(0, len(tokens), at_once)]
        return np.concatenate([self._score(to_words(part, self.vocabulary)) for part in parts])

    def cost(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (N, T) -> -log10 p of each whole sentence, its end included (N,)."""
        return -self.score(tokens).sum(axis=1)

    def predict(self, context: np.ndarray) -> np.ndarray:
        """p of every word (W + 2,) after the first tokens (L,) of a sentence: unknown, end, then the vocabulary."""
        before = to_words(np.asarray(context, np.int64).reshape(1, -1), self.vocabulary)[:, :-1]
        words = np.array([UNKNOWN, END, *range(FIRST_WORD, FIRST_WORD + len(self.vocabulary))])
        return 10.0 ** self._score(np.column_stack([before.repeat(len(words), axis=0), words]))[:, -1]

    def _score(self, words: np.ndarray) -> np.ndarray:
        """words (N, 1 + T), from "begin" on -> log10 p of each but the first (N, T).

        That is the probability of the longest known n-gram; or else what the shorter context says, and a weight.
        """
        bits = word_bits(len(self.vocabulary))
        result = self.ngrams[0].probability[words[:, 1:]]
        for n in range(2, len(self.ngrams) + 1):
            longer, shorter = self.ngrams[n - 1], self.ngrams[n - 2]
            keys = pack(words, n, bits)  # (N, 2 + T - n): the last words, as far as n of them are there
            place, context = _find(longer.keys, keys), _find(shorter.keys, keys >> bits)
            weight = np.where(context >= 0, shorter.backoff[context], 0.0)
            known = np.append(longer.probability, np.nan)[place]  # a place of -1, for none, is the nan
            result[:, n - 2 :] = np.where(place >= 0, known, weight + result[:, n - 2 :])
        return result


def train_ngrams(tokens: np.ndarray, order: int = 5, discounts: np.ndarray | None = None) -> NgramModel:
    """tokens (N, T), a sentence each -> the model of n-grams up to `order`.

    `discounts` (order, 3) stands in for those that the counts of each length give. Raises ValueError for what is no
    text, and for n-grams that do not fit into an integer.
    """
    tokens = checked_sentences(tokens)
    vocabulary = np.unique(tokens).astype(np.int64)
    bits = word_bits(len(vocabulary))
    if not 1 <= order <= 62 // bits:
        raise ValueError(f"an order of {order}; with {len(vocabulary)} different tokens it can be 1 to {62 // bits}")
    ngrams: list[Ngrams] = []
    below = np.full(FIRST_WORD + len(vocabulary), 1 / (len(vocabulary) + 2))  # all words alike, "begin" none of them
    for n, counted in enumerate(adjusted_counts(tokens, vocabulary, order), 1):
        if n > 1:
            below = 10.0 ** ngrams[-1].probability[_find(ngrams[-1].keys, counted.keys & mask(n - 1, bits))]
        taken = estimate_discounts(counted.counts) if discounts is None else np.asarray(discounts, float)[n - 1]
        smoothed = _smooth(counted, taken, below, bits)
        if n > 1:
            ngrams[-1].backoff[_find(ngrams[-1].keys, smoothed.contexts)] = np.log10(smoothed.freed)
        probability = np.log10(smoothed.share)
        if n == 1:
            probability[BEGIN] = -np.inf
        ngrams.append(Ngrams(counted.keys, probability, np.zeros(len(probability))))
    return NgramModel(vocabulary, tuple(ngrams))


def estimate_discounts(counts: np.ndarray) -> np.ndarray:
    """Counts of the n-grams of one length (K,) -> what is taken from a count of 1, of 2, of 3 and more (3,).

    From how many n-grams have counts 1 to 4 (Chen & Goodman 1999, equation 26); FALLBACK where that is no discount.
    """
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if min(n1, n2, n3) == 0:
        return np.array(FALLBACK)
    y = n1 / (n1 + 2 * n2)
    found = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found if ((found >= 0) & (found <= [1, 2, 3])).all() else np.array(FALLBACK)


# --- counting ----------------------------------------------------------------------------------------------------


class Counted(NamedTuple):
    keys: np.ndarray  # (K,) int64, ascending
    counts: np.ndarray  # (K,) int64


def adjusted_counts(tokens: np.ndarray, vocabulary: np.ndarray, order: int) -> list[Counted]:
    """The n-grams of each length up to `order`, the single words all there, and how they count.

    The longest count as often as they occur, shorter ones as many different words as stand before them; those that
    begin a sentence, where no word stands before, as often as they occur.
    """
    bits = word_bits(len(vocabulary))
    result = [_occurrences(tokens, vocabulary, order)]
    for n in range(order - 1, 0, -1):
        followed = Counted(*np.unique(result[0].keys & mask(n, bits), return_counts=True))
        first = pack(to_words(tokens[:, :n], vocabulary)[:, :n], n, bits)
        start = Counted(*np.unique(first, return_counts=True))
        result.insert(0, _merge([followed, start]))
    words = np.zeros(FIRST_WORD + len(vocabulary), np.int64)
    words[result[0].keys] = result[0].counts
    words[[UNKNOWN, BEGIN]] = 0
    return [Counted(np.arange(len(words)), words), *result[1:]]


def _occurrences(tokens: np.ndarray, vocabulary: np.ndarray, n: int) -> Counted:
    """The n-grams of all sentences, part by part: memory follows how many are different, not how long the text is."""
    at_once, bits = max(1, _AT_ONCE // (tokens.shape[1] + 2)), word_bits(len(vocabulary))
    parts: list[Counted] = []
    for at in range(0, len(tokens), at_once):
        keys = pack(to_words(tokens[at : at + at_once], vocabulary), n, bits)
        parts.append(Counted(*np.unique(keys, return_counts=True)))
        while len(parts) > 1 and len(parts[-2].keys) < 2 * len(parts[-1].keys):  # so that few merges are large
            parts[-2:] = [_merge(parts[-2:])]
    return _merge(parts)


def _merge(parts: list[Counted]) -> Counted:
    keys, where = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([part.counts for part in parts]), minlength=len(keys))
    return Counted(keys, counts.astype(np.int64))


# --- smoothing ---------------------------------------------------------------------------------------------------


class Smoothed(NamedTuple):
    share: np.ndarray  # (K,) p of each n-gram's last word after the others
    contexts: np.ndarray  # (C,) keys of all but the last words
    freed: np.ndarray  # (C,) what the discounts leave of each context to what the shorter one says


def _smooth(counted: Counted, discounts: np.ndarray, below: np.ndarray, bits: int) -> Smoothed:
    """Discounted shares of the counts in a context, and the rest by `below` (K,), p after the shorter context."""
    contexts, start, context = np.unique(counted.keys >> bits, return_index=True, return_inverse=True)
    taken = np.append(0.0, discounts)[counted.counts.clip(max=3)]
    total = np.add.reduceat(counted.counts, start) if len(start) else np.zeros(0)
    freed = np.bincount(context, taken, minlength=len(contexts)) / total
    return Smoothed((counted.counts - taken) / total[context] + freed[context] * below, contexts, freed)


# --- keys --------------------------------------------------------------------------------------------------------


def word_bits(vocabulary: int) -> int:
    """Bits that one word needs."""
    return (FIRST_WORD + vocabulary - 1).bit_length()


def mask(n: int, bits: int) -> int:
    """What leaves the last n words of a key."""
    return (1 << n * bits) - 1


def to_words(tokens: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """tokens (N, T) -> words (N, 1 + T + 1): begin, the tokens, end."""
    words = np.full((len(tokens), tokens.shape[1] + 2), BEGIN, np.int64)
    words[:, -1] = END
    if len(vocabulary):
        place = _find(vocabulary, tokens)
        words[:, 1:-1] = np.where(place >= 0, FIRST_WORD + place, UNKNOWN)
    return words


def pack(words: np.ndarray, n: int, bits: int) -> np.ndarray:
    """words (N, L) -> the keys of its n-grams (N, L - n + 1); none where L is less than n."""
    length = max(words.shape[1] - n + 1, 0)
    keys = np.zeros((len(words), length), np.int64)
    for i in range(n if length else 0):
        keys = keys << bits | words[:, i : i + length]
    return keys


def checked_sentences(tokens: np.ndarray) -> np.ndarray:
    """tokens (N, T), never empty. Raises ValueError for anything else."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"sentences are {tokens.dtype} {tokens.shape}; expected integers (sentences, tokens)")
    return tokens


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` (...) stands in the ascending keys (K,), -1 if nowhere."""
    if not len(keys):
        return np.full(wanted.shape, -1)
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
