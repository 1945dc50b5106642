"""The language model: what must hold of any, what KenLM says of the same text, and its files."""

import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from musicvae.evaluation import ngram
from musicvae.evaluation.arpa import load_arpa, save_arpa
from musicvae.evaluation.ngram import NgramModel, adjusted_counts, estimate_discounts, train_ngrams

FIXTURES = Path(__file__).parent.parent.parent / "shared" / "fixtures" / "ngram"
TINY = np.array([[5, 7, 5, 7], [5, 7, 7, 9]])


@pytest.fixture(scope="module")
def kenlm_figures():
    """What the KenLM tools made of 4,000 windows: `train`, `test`, and `log10` of the test tokens."""
    if not FIXTURES.is_dir():
        pytest.skip("no figures of KenLM here: ../shared/fixtures/ngram is absent")
    return np.load(FIXTURES / "expected.npz")


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    """400 sentences of a walk among 12 tokens that remembers where it came from."""
    rng, walk = np.random.default_rng(0), np.zeros((400, 20), int)
    for t in range(1, 20):
        walk[:, t] = (walk[:, t - 1] * 3 + walk[:, max(t - 2, 0)] + rng.choice([1, 1, 1, 2, 5], 400)) % 12
    return walk * 10


@pytest.fixture(scope="module")
def model(text) -> NgramModel:
    return train_ngrams(text)


# --- probabilities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_all_words_sum_to_one_after_any_context(text, order):
    model = train_ngrams(text, order)
    for context in ([], [0], [110], [999], text[3, :4], text[5, :19], [0, 999, 10, 10], [110, 0, 110, 0, 110, 0]):
        p = model.predict(np.array(context, int))
        assert p.sum() == pytest.approx(1, abs=1e-12) and p.min() > 0, context


def test_a_sentence_of_the_training_text_costs_less_than_its_shuffle(text, model):
    shuffled = np.random.default_rng(1).permuted(text, axis=1)
    assert (model.cost(text) < model.cost(shuffled)).mean() > 0.99


def test_the_cost_of_a_sentence_is_that_of_its_tokens_and_of_its_end(text, model):
    for sentence in text[:3]:
        log10 = 0.0
        for t, token in enumerate(sentence):
            log10 += np.log10(model.predict(sentence[:t])[2 + np.searchsorted(model.vocabulary, token)])
        log10 += np.log10(model.predict(sentence)[1])
        assert model.cost(sentence[None])[0] == pytest.approx(-log10)


def test_an_unseen_ngram_backs_off_to_the_shorter_one(text):
    """p(w | u v) = backoff(u v) p(w | v) where u v w is new, and plainly p(w | v) where the context u v is new too."""
    model, rows = train_ngrams(text[:12], 3), text[:12].tolist()
    tokens, pairs = model.vocabulary.tolist(), model.ngrams[1]
    seen = [{tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)} for n in (2, 3)]
    key = {t: ngram.FIRST_WORD + i for i, t in enumerate(tokens)}
    bits, known, unknown = ngram.word_bits(len(tokens)), [], []
    for u, v, w in itertools.product(tokens, repeat=3):
        if (u, v, w) not in seen[1] and (v, w) in seen[0]:
            (known if (u, v) in seen[0] else unknown).append((u, v, w))
    for u, v, w in known[:20] + unknown[:20]:
        vw, uv = (np.searchsorted(pairs.keys, key[x] << bits | key[y]) for x, y in ((v, w), (u, v)))
        weight = pairs.backoff[uv] if (u, v) in seen[0] else 0.0
        assert model.score(np.array([[0, u, v, w]]))[0, 3] == pytest.approx(pairs.probability[vw] + weight)
    assert len(known) > 20 and len(unknown) > 20


def test_tokens_never_seen_are_one_word_and_share_one_small_probability(model):
    a, b, seen = (model.score([[0, token, 10]])[0, 1] for token in (55, 9999, 10))
    assert a == b < seen


def test_the_model_hears_four_tokens_back_and_no_further(text, model):
    change_far, change_near = text[:50].copy(), text[:50].copy()
    change_far[:, 9] = 777
    change_near[:, 10] = 777
    same = model.score(text[:50])[:, 14]
    assert (model.score(change_far)[:, 14] == same).all()
    assert (model.score(change_near)[:, 14] != same).any()


# --- counts and discounts, by hand -----------------------------------------------------------------------------------


def test_shorter_ngrams_count_by_the_words_before_them():
    words = {(): ["begin"], 5: 3, 7: 4, 9: 5, "begin": 1, "end": 2}
    counted = adjusted_counts(TINY, np.array([5, 7, 9]), 3)
    bits = ngram.word_bits(3)

    def count(*sequence) -> int:
        key = 0
        for word in sequence:
            key = key << bits | words[word]
        found = counted[len(sequence) - 1]
        at = np.searchsorted(found.keys, key)
        return int(found.counts[at]) if at < len(found.keys) and found.keys[at] == key else 0

    assert count("begin", 5, 7) == 2  # the longest: as often as it occurs
    assert count(5, 7, "end") == 1
    assert count(5, 7) == 2  # begin 5 7, 7 5 7: two different words before it, though it occurs three times
    assert count("begin", 5) == 2  # nothing can stand before it: as often as it occurs
    assert count(7) == 2 and count(5) == 2 and count("end") == 2  # after 5 7; after begin 7; after 7 9
    assert count("begin") == 0


def test_discounts_follow_from_how_many_ngrams_occur_once_to_four_times():
    counts = np.repeat([1, 2, 3, 4, 9], [100, 30, 12, 6, 50])
    y = 100 / 160
    wanted = [1 - 2 * y * 30 / 100, 2 - 3 * y * 12 / 30, 3 - 4 * y * 6 / 12]
    assert estimate_discounts(counts) == pytest.approx(wanted)


@pytest.mark.parametrize("numbers", [[9, 0, 3, 1], [0, 3, 3, 1], [3, 2, 0, 0], [50, 10, 5, 50]])
def test_counts_that_give_no_discount_fall_back(numbers):
    assert tuple(estimate_discounts(np.repeat([1, 2, 3, 4], numbers))) == ngram.FALLBACK


def test_a_text_counts_the_same_in_one_piece_and_in_many(text, model, monkeypatch):
    monkeypatch.setattr(ngram, "_AT_ONCE", 100)
    pieces = train_ngrams(text)
    for one, other in zip(model.ngrams, pieces.ngrams):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))
    assert np.array_equal(pieces.score(text), model.score(text))


def test_sentences_shorter_than_the_order_are_no_trouble():
    model = train_ngrams(np.array([[4], [4], [6]]), order=5)
    assert model.predict(np.array([], int)).sum() == pytest.approx(1)
    assert model.cost(np.array([[4]])) < model.cost(np.array([[6]])) < model.cost(np.array([[5]]))


@pytest.mark.parametrize("tokens", [np.zeros((0, 4), int), np.zeros((2, 2, 1), int), np.zeros((2, 4))])
def test_what_is_no_text_is_refused(tokens):
    with pytest.raises(ValueError, match="expected integers"):
        train_ngrams(tokens)


def test_an_order_that_an_integer_cannot_hold_is_refused(text):
    with pytest.raises(ValueError, match="it can be 1 to 15"):
        train_ngrams(text, 16)


# --- KenLM -----------------------------------------------------------------------------------------------------------


def test_a_model_of_kenlm_read_from_its_file_scores_as_kenlm_does(kenlm_figures):
    model = load_arpa(FIXTURES / "lmplz.arpa.gz")
    assert np.abs(model.score(kenlm_figures["test"]) - kenlm_figures["log10"]).max() < 1e-5


def test_the_same_text_gives_the_model_that_kenlm_makes_of_it(kenlm_figures):
    """lmplz puts one single word, the last type to appear, into its counts of counts as often as it occurs; with that
    all figures agree. Without, the discounts of single words differ, which nothing but a rare word hears."""
    train, wanted = kenlm_figures["train"], kenlm_figures["log10"]
    textbook = train_ngrams(train)
    difference = np.abs(textbook.score(kenlm_figures["test"]) - wanted)
    assert difference.max() < 1.2e-3 and difference.mean() < 1e-5
    vocabulary, first = np.unique(train, return_index=True)
    counted = adjusted_counts(train, vocabulary, 5)
    single = counted[0].counts.copy()
    single[ngram.FIRST_WORD + first.argmax()] = (train == vocabulary[first.argmax()]).sum()
    discounts = [estimate_discounts(single), *(estimate_discounts(c.counts) for c in counted[1:])]
    as_lmplz = train_ngrams(train, discounts=np.array(discounts))
    assert np.abs(as_lmplz.score(kenlm_figures["test"]) - wanted).max() < 1e-5


def test_kenlm_reads_our_file_and_scores_as_we_do(text, model, tmp_path):
    kenlm = pytest.importorskip("kenlm", reason="the library kenlm is not installed")
    save_arpa(tmp_path / "model.arpa", model)
    terminal = os.dup(2)  # the library writes a bar of progress there
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        theirs = kenlm.Model(str(tmp_path / "model.arpa"))
    os.dup2(terminal, 2)
    sentences = np.concatenate([text[:20], np.random.default_rng(0).permuted(text[:20], axis=1), [[777] * 20]])
    for sentence, ours in zip(sentences, model.score(sentences)):
        scores = [score for score, *_ in theirs.full_scores(" ".join(map(str, sentence)), bos=True, eos=True)]
        assert np.abs(np.array(scores) - ours).max() < 1e-5


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_a_model_is_the_same_after_a_round_trip(text, model, tmp_path, name):
    save_arpa(tmp_path / "new" / name, model)
    again = load_arpa(tmp_path / "new" / name)
    assert np.array_equal(again.vocabulary, model.vocabulary)
    assert np.abs(again.score(text) - model.score(text)).max() < 1e-5
    if name.endswith(".gz"):
        assert gzip.open(tmp_path / "new" / name, "rt").readline() == "\\data\\\n"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda t: "", "sections of n-grams"),
        (lambda t: t.replace("<unk>", "0"), "1-grams"),
        (lambda t: t.replace("\t110\t", "\tC4\t"), "no ARPA file"),
        (lambda t: t.replace("\\2-grams:", "\\7-grams:"), "sections of n-grams"),
        (lambda t: t[: t.index("\\2-grams:")] + "\\2-grams:\n-1\t110\n", "no ARPA file"),
    ],
    ids=["empty", "no-unknown", "a-word", "a-section-missing", "cut-short"],
)
def test_a_damaged_file_is_refused_with_its_name(model, tmp_path, damage, why):
    path = tmp_path / "model.arpa"
    save_arpa(path, model)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=f"model.arpa.*{why}"):
        load_arpa(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.arpa: cannot be read"):
        load_arpa(tmp_path / "none.arpa")
