"""What is measured of a window, by three literal notes; and vectors learnt from music, on models that were trained."""

import json

import numpy as np
import pytest
from folders import MELODY, build, write

from musicvae.box import PRETRAINED, models
from musicvae.composer import load
from musicvae.evaluation.attributes import effect_records, measure_effects
from musicvae.evaluation.command import fitting_dataset
from musicvae.learn import (
    Learned,
    Lesson,
    learn_from_dataset,
    learn_from_folders,
    quartiles,
    save_learned,
)
from musicvae.model.latent import attribute_vector
from musicvae.model.vectors import ATTRIBUTES, load_vectors, read_report, save_vectors
from musicvae.music.attributes import attribute_units, measure
from musicvae.music.representation import Drums, Melody, Trio, representation

C4, E4, F_SHARP_4 = 62, 66, 68  # tokens


def window(*events: tuple[int, int]) -> np.ndarray:
    """(step, token) of two bars -> tokens (1, 32, 1)."""
    tokens = np.zeros((1, 32, 1), np.int64)
    for step, token in events:
        tokens[0, step] = token
    return tokens


def one(tokens: np.ndarray, kind=None) -> dict[str, float]:
    return {name: float(values[0]) for name, values in measure(tokens, kind or Melody()).items()}


def test_three_notes_say_all_that_is_measured_of_a_melody():
    found = one(window((0, C4), (6, E4), (9, 1), (17, F_SHARP_4)))
    assert found == pytest.approx(
        {
            "note-density": 1.5,  # three notes in two bars
            "average-pitch": (60 + 64 + 66) / 3,
            "average-interval": (4 + 2) / 2,
            "pitch-range": 6,
            "syncopation-8": 1 / 3,  # the E stands on an eighth off the beat
            "syncopation-16": 1 / 3,  # the F sharp on a sixteenth off the eighths
            "c-major": 2 / 3,
        }
    )


@pytest.mark.parametrize("before", [4, 5])
def test_a_note_just_before_takes_the_syncopation_away(before: int):
    assert one(window((6, C4)))["syncopation-8"] == 1
    assert one(window((before, C4), (6, C4)))["syncopation-8"] == 0


def test_a_note_on_the_eighth_before_takes_it_from_a_sixteenth_but_a_rest_and_an_off_do_not():
    assert one(window((4, C4), (5, C4)))["syncopation-16"] == 0
    assert one(window((3, C4), (4, 1), (5, C4)))["syncopation-16"] == 1


def test_falling_and_rising_by_as_much_are_equal_intervals():
    assert one(window((0, C4), (4, E4), (8, C4)))["average-interval"] == 4


def test_silence_has_no_pitch_and_one_note_no_interval():
    silent, single = one(window()), one(window((3, C4)))
    assert silent["note-density"] == 0 and np.isnan([v for n, v in silent.items() if n != "note-density"]).all()
    assert np.isnan(single["average-interval"]) and single["pitch-range"] == 0


def test_the_windows_of_a_batch_are_measured_each_for_itself():
    a, b = window((0, C4), (6, E4)), window((30, F_SHARP_4))
    together = measure(np.concatenate([a, window(), b]), Melody())
    for row, alone in ((0, one(a)), (2, one(b))):
        np.testing.assert_equal({name: values[row] for name, values in together.items()}, alone)


def test_the_90_tokens_of_the_original_mean_other_pitches():
    found = one(window((0, 2), (4, 2 + 87)), representation("melody-90"))
    assert found["average-pitch"] == (21 + 108) / 2 and found["c-major"] == 1  # A and C, the ends of a piano


def test_drums_are_counted_by_class_and_together():
    kick_and_hat, snare = 0b101, 0b10
    found = one(window((0, kick_and_hat), (4, snare), (8, kick_and_hat)), Drums())
    hits = {"hits": 2.5, "kick": 1, "snare": 0.5, "closed-hi-hat": 1}
    assert found == pytest.approx(dict.fromkeys(found, 0) | hits) and len(found) == 10


def test_a_trio_has_the_attributes_of_its_three_parts():
    melody, bass, drums = window((0, C4), (6, E4)), window((0, 40)), window((4, 0b10))
    found = one(np.concatenate([melody, bass, drums], axis=2), Trio())
    parts = (("melody", melody, Melody()), ("bass", bass, Melody()), ("drums", drums, Drums()))
    alone = {f"{part}-{name}": value for part, tokens, kind in parts for name, value in one(tokens, kind).items()}
    np.testing.assert_equal(found, alone)


@pytest.mark.parametrize("name", ["melody", "melody-90", "drums", "trio"])
def test_every_attribute_has_a_unit(name: str):
    kind = representation(name)
    tokens = np.zeros((1, 32, len(kind.vocab_sizes)), np.int64)
    assert list(measure(tokens, kind)) == list(attribute_units(kind))
    with pytest.raises(ValueError, match="expected"):
        measure(tokens[0], kind)


# --- groups ------------------------------------------------------------------------------------------------------


def test_quartiles_are_the_least_and_the_greatest_quarter():
    groups = quartiles(np.random.default_rng(0).permutation(100.0 + np.arange(100)))
    assert (groups.lacking.sum(), groups.having.sum()) == (26, 26)  # the bounds themselves included
    assert (groups.lacking_words, groups.having_words) == ("≤ 125", "≥ 174")


@pytest.mark.parametrize(
    ("values", "lacking", "having", "words"),
    [
        ([0] * 8 + [1, 2], range(8), [8, 9], ("= 0", "> 0")),
        ([0.5, 0.7] + [1] * 8, [0, 1], range(2, 10), ("< 1", "= 1")),
        ([1] * 4, range(4), [], ("= 1", "> 1")),
        ([np.nan, 1, 2, 3, 4, np.nan], [1, 2], [3, 4], ("≤ 2", "≥ 3")),
        ([np.nan] * 3, [], [], ("any", "any")),
    ],
    ids=["most lack it", "most have it", "all alike", "some without meaning", "none has a meaning"],
)
def test_groups_never_overlap_however_many_windows_are_equal(values, lacking, having, words):
    groups = quartiles(np.array(values, float))
    assert not (groups.lacking & groups.having).any()
    assert np.flatnonzero(groups.lacking).tolist() == list(lacking)
    assert np.flatnonzero(groups.having).tolist() == list(having)
    assert (groups.lacking_words, groups.having_words) == words


# --- trained models ----------------------------------------------------------------------------------------------


def walks(n: int, every: int, seed: int) -> np.ndarray:
    """Melodies (n, 32, 1) that wander over the white keys, a note each so many steps."""
    rng = np.random.default_rng(seed)
    white = np.array([p for p in range(128) if p % 12 in (0, 2, 4, 5, 7, 9, 11)])
    at = rng.integers(32, 44, (n, 1)) + np.cumsum(rng.integers(-2, 3, (n, 32 // every)), axis=1)
    tokens = np.zeros((n, 32, 1), np.int64)
    tokens[:, ::every, 0] = 2 + white[at.clip(25, 52)]
    return tokens


@pytest.fixture(scope="module")
def melody():
    return load("melody-2")


def own(melody, tokens: np.ndarray) -> np.ndarray:
    """The same notes in the tokens of the model."""
    return melody.representation.narrowed(tokens).tokens


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of MIDI: eight tunes in sixteenths and eight in half notes, 8 bars each; and a file that is none."""
    root = tmp_path_factory.mktemp("midi")
    for name, every in (("busy", 1), ("calm", 8)):
        (root / name).mkdir()
        for i, tokens in enumerate(walks(32, every, seed=every).reshape(8, 128, 1)):
            Melody().to_song(tokens).save(root / name / f"{i}.mid")
    (root / "calm" / "broken.mid").write_bytes(b"MThd")
    return root


def test_a_vector_learnt_from_two_folders_raises_what_tells_them_apart(melody, folders, tmp_path):
    learned = learn_from_folders(melody, "haste", folders / "busy", folders / "calm", measured=16)
    lesson, effect = learned.lessons["haste"], learned.effects["haste"]
    assert (lesson.having, lesson.lacking) == ("music of busy", "music of calm")
    columns = list(attribute_units(melody.representation))
    assert effect["windows"] == 16 and effect["change"][columns.index("note-density")] > 0.5
    assert list(learned.skipped) == [f"{folders / 'calm'}: broken.mid"]

    path = tmp_path / ATTRIBUTES
    save_learned(path, melody, learned)
    save_learned(path, melody, learned._replace(lessons={"other": lesson}))
    report = read_report(path)
    assert set(load_vectors(path, melody.latent_size)) == set(report["attributes"]) == {"haste", "other"}


def test_vectors_learnt_from_a_data_set_raise_what_they_are_named_after(melody, tmp_path):
    rng = np.random.default_rng(1)
    tunes = {}
    for i in range(40):  # of a pace and a height each
        tokens = walks(4, int(rng.choice([1, 2, 4, 8])), seed=i).reshape(128, 1)
        tokens = np.where(tokens > 1, tokens + rng.integers(-12, 13), tokens)
        tunes[f"{i}.mid"] = Melody().to_song(tokens).to_bytes()
    data = build([write(tmp_path / "midi", tunes)], MELODY, tmp_path / "data")
    learned = learn_from_dataset(melody, data.folder, windows=120, measured=64)
    columns = list(attribute_units(melody.representation))
    for name in ("note-density", "average-pitch"):
        lesson, effect = learned.lessons[name], learned.effects[name]
        assert effect["windows"] <= 64
        heard = measure_effects(
            melody, np.asarray(fitting_dataset(melody, data.folder).tokens("train")[:64]), {name: lesson.vector}
        )
        assert heard.change[0, columns.index(name)] > 0.1
        assert min(lesson.lacking_windows, lesson.having_windows) >= 25
        assert lesson.unit == attribute_units(melody.representation)[name]
    assert "busy" in learned.lessons and learned.skipped["syncopation-8"].startswith("too few windows (")
    with pytest.raises(ValueError, match=r"holds melody of 2 bars.*the model is for drums of 2 bars"):
        learn_from_dataset(load("drums-2"), data.folder)


def test_a_vector_that_does_the_contrary_of_its_name_is_left_out_and_goes_from_the_file(melody, tmp_path, monkeypatch):
    tunes = {f"{i}.mid": Melody().to_song(walks(4, 2 ** (i % 4), seed=i).reshape(128, 1)).to_bytes() for i in range(24)}
    data = build([write(tmp_path / "midi", tunes)], MELODY, tmp_path / "data")
    path = tmp_path / "attributes.safetensors"
    save_vectors(path, {"note-density": np.ones(melody.latent_size), "mine": np.ones(melody.latent_size)})
    monkeypatch.setattr("musicvae.learn.attribute_vector", lambda having, lacking: attribute_vector(lacking, having))
    learned = learn_from_dataset(melody, data.folder, windows=80, measured=40)
    assert "less of it (-" in learned.skipped["note-density"] and "note-density" not in learned.lessons
    save_learned(path, melody, learned)
    assert set(load_vectors(path, melody.latent_size)) == {"mine", *learned.lessons}


def test_vectors_of_another_model_in_the_file_go_when_new_ones_are_learnt(melody, tmp_path):
    path = tmp_path / "attributes.safetensors"
    save_vectors(path, {"old": np.ones(melody.latent_size + 1), "kept": np.ones(melody.latent_size)})
    lesson = Lesson(np.ones(melody.latent_size), "folders", "a", "b", "", 10, 10)
    save_learned(path, melody, Learned({"new": lesson}, {}, {}))
    assert set(load_vectors(path, melody.latent_size)) == {"kept", "new"}


def test_adding_a_vector_and_taking_it_away_go_opposite_ways(melody):
    moved = (np.where(w > 1, w + up, w) for w, up in ((walks(12, 4, 1), 12), (walks(12, 4, 2), -12)))
    high, low = (own(melody, tokens) for tokens in moved)
    vector = attribute_vector(melody.encode_tokens(high).mu, melody.encode_tokens(low).mu)
    up = measure_effects(melody, low, {"up": vector, "nothing": 0 * vector})
    down = measure_effects(melody, high, {"down": vector}, amount=-1)
    column = up.columns.index("average-pitch")
    assert up.difference[0, column] > 2 and down.difference[0, column] < -2
    assert not np.nan_to_num(up.change[1]).any()


def test_effects_are_differences_in_standard_deviations_of_real_windows(melody):
    tokens = own(melody, np.concatenate([walks(8, 2, 5), walks(8, 8, 6)]))
    effects = measure_effects(melody, tokens, {"any": np.full(melody.latent_size, 0.2)})
    real = measure(tokens, melody.representation)["note-density"]
    assert effects.standard_deviation[0] == pytest.approx(real.std())
    assert effects.change[0, 0] == pytest.approx(effects.difference[0, 0] / real.std())
    assert np.isnan(effects.change[0, effects.columns.index("c-major")])  # all on white keys: no deviation to count in
    json.dumps(effect_records(effects), allow_nan=False)


@pytest.mark.parametrize("name", sorted(models()))
def test_the_models_in_the_box_carry_vectors_that_move_what_they_are_named_after(name: str):
    """By at least a tenth of a standard deviation for two in three, and never by as much the other way."""
    composer = load(name)
    vectors, report = composer.attributes(), read_report(PRETRAINED / name / ATTRIBUTES)
    columns = list(attribute_units(composer.representation))
    assert set(vectors) == set(report["attributes"]) and report["columns"] == columns
    own = [report["attributes"][n]["effect"]["change"][columns.index(n)] for n in columns if n in vectors]
    assert len(own) >= 7 and min(own) > -0.1
    assert sum(change > 0.1 for change in own) >= 2 / 3 * len(own)
    for n, vector in vectors.items():
        assert np.linalg.norm(vector) == pytest.approx(report["attributes"][n]["length"], rel=1e-3)
