"""Keys, and what adding note density does to sparse melodies: facts of three notes, and figure 4 as a command."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import build, write
from smf import file, notes, track

from musicvae.composer import Composer
from musicvae.evaluation.density import Densified, Originals, measure_density, melody_of, sparse_windows
from musicvae.evaluation.results import plain, save_results
from musicvae.model.checkpoint import save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import DatasetSettings
from musicvae.music.key import IN_KEY, NO_KEY, find_keys, key_name, pitch_class_steps
from musicvae.music.representation import Drums, Melody, Trio

torch.set_num_threads(1)

MELODY = Melody()
PAPER = Path(__file__).parent.parent / "paper"
CS4, D4, EB4, E4, FS4, G4, A4, B4, C4 = (2 + pitch for pitch in (61, 62, 63, 64, 66, 67, 69, 71, 60))  # tokens
OFF = 1


def melody(*bar: int, steps: int = 16) -> np.ndarray:
    """One melody (1, steps) from its first tokens."""
    return np.array([list(bar) + [0] * (steps - len(bar))])


def key_of(*pitch_classes: int, weights: dict[int, float] | None = None) -> str:
    """The key of a set of pitch classes, all as long but for those with weights."""
    steps = np.zeros((1, 12))
    steps[0, list(pitch_classes)] = 1
    for pitch_class, weight in (weights or {}).items():
        steps[0, pitch_class] = weight
    return key_name(find_keys(steps)[0])


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_c_major_scale_is_in_c_major_and_every_transposition_in_its_own_key():
    scale = (0, 2, 4, 5, 7, 9, 11)
    assert key_of(*scale) == "C major"
    names = [key_of(*((s + up) % 12 for s in scale)) for up in range(12)]
    assert names == [f"{n} major" for n in ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")]


def test_the_same_notes_that_dwell_on_a_and_e_are_in_the_relative_minor():
    white = (0, 2, 4, 5, 7, 9, 11)
    assert key_of(*white, weights={9: 4, 4: 3}) == "A minor"
    assert key_of(*white, weights={0: 4, 7: 3}) == "C major"


@pytest.mark.parametrize(
    ("pitch_classes", "key"),
    [((9, 11, 0, 2, 4, 5, 8), "A minor"), ((0, 4, 7), "C major"), ((0, 3, 7), "C minor"), ((2, 6, 9), "D major")],
    ids=["harmonic minor", "C E G", "C Eb G", "D F# A"],
)
def test_harmonic_minor_and_triads(pitch_classes, key):
    assert key_of(*pitch_classes) == key


def test_silence_and_all_twelve_alike_have_no_key():
    assert find_keys(np.array([np.zeros(12), np.ones(12)])).tolist() == [NO_KEY, NO_KEY]
    assert key_name(NO_KEY) == "no key"


def test_a_key_and_its_relative_have_the_same_seven_notes():
    assert (IN_KEY.sum(axis=1) == 7).all()
    for tonic in range(12):
        assert (IN_KEY[tonic] == IN_KEY[12 + (tonic + 9) % 12]).all()
    assert np.flatnonzero(IN_KEY[7]).tolist() == [0, 2, 4, 6, 7, 9, 11]  # G major has F#


def test_three_notes_sound_as_long_as_they_are_held():
    """C for 4 steps, D for 2 up to its off, then E to the end; what is held over from before is of unknown pitch."""
    steps = pitch_class_steps(melody(0, 0, C4, 0, 0, 0, D4, 0, OFF, 0, E4))
    assert {i: int(n) for i, n in enumerate(steps[0]) if n} == {0: 4, 2: 2, 4: 6}
    assert pitch_class_steps(melody()).sum() == 0
    assert pitch_class_steps(melody(2), lowest=21)[0, 9] == 16  # the first note of melody-90 is an A


# --- windows ---------------------------------------------------------------------------------------------------------


def test_sparse_windows_have_some_notes_but_fewer_than_four_a_bar():
    two_bars = [melody(*[C4, 0] * n, steps=32)[0] for n in (0, 1, 7, 8, 12)]
    assert sparse_windows(np.stack(two_bars)).tolist() == [False, True, True, False, False]


CHORD = (C4, 0, E4, 0, G4, 0, OFF)  # all as long: C major


def written(*melodies: np.ndarray, over: np.ndarray) -> Densified:
    """What is said of melodies, each written over the same original."""
    originals = Originals(np.repeat(over, len(melodies), axis=0), np.arange(len(melodies)))
    return originals.compare(np.concatenate(melodies), 1.0)


def test_what_is_new_is_counted_and_held_against_the_key_of_the_original():
    """To C E G, in C major, come a second G, B and C#: two of three new notes are in the key, one of two classes."""
    found = written(melody(*CHORD, G4, 0, B4, CS4), over=melody(*CHORD))
    assert found.notes_a_bar.value == 6
    assert found.change_percent.value == 100
    assert (found.new_notes, found.new_classes) == (3, 2)
    assert found.new.in_key.value == pytest.approx(2 / 3)
    assert found.of_new_classes.in_key.value == 1 / 2


def test_a_note_moved_is_new_and_a_note_kept_is_not():
    found = written(melody(C4, 0, E4, 0, 0, G4), over=melody(*CHORD))
    assert (found.new_notes, found.new_classes, found.change_percent.value) == (1, 0, 0)


def test_nothing_new_has_no_share():
    found = written(melody(*CHORD), melody(), over=melody(*CHORD))
    assert found.new_notes == 0 and np.isnan(found.new.in_key.value)
    assert plain(found)["new"]["in_key"] == {"value": None, "low": None, "high": None}
    assert found.same_key.value == 1, "of the windows that still have a key"


def test_the_tonal_centre_has_both_modes_and_the_key_only_its_own():
    """Eb over C E G is in C minor, which has the same tonic; F# is in neither."""
    found = written(melody(*CHORD, EB4, FS4), over=melody(*CHORD))
    assert found.new.in_key.value == 0
    assert found.new.in_tonal_centre.value == 1 / 2


def test_windows_that_change_their_mode_keep_their_tonic():
    minor, other = melody(C4, 0, EB4, 0, G4, 0, OFF), melody(D4, 0, FS4, 0, A4, 0, OFF)
    found = written(melody(*CHORD), minor, other, over=minor)
    assert found.same_key.value == pytest.approx(1 / 3)
    assert found.same_tonic.value == pytest.approx(2 / 3)


def test_the_notes_of_others_are_held_against_a_key_that_is_not_theirs():
    scales = np.concatenate([melody(*(C4 + up + s for s in (0, 2, 4, 5, 7, 9, 11, 12))) for up in range(12)])
    originals = Originals(scales, np.arange(12))
    assert originals.fit(scales >= 2, scales).in_key.value == 1
    assert 0.4 < originals.fit_of_others().in_key.value < 0.9


def test_nothing_hangs_on_the_key_itself():
    """A window and its transpositions say the same, which is why melody-90 needs no pitch of its own."""
    before, after = melody(*CHORD), melody(*CHORD, EB4, FS4, 0, B4)
    everywhere = [
        written(np.where(after >= 2, after + up, after), over=np.where(before >= 2, before + up, before))
        for up in range(-5, 7)
    ]
    assert all(plain(found) == plain(everywhere[0]) for found in everywhere)


@pytest.mark.parametrize("melodies", [melody(), np.zeros((0, 16), int)], ids=["silence", "none"])
def test_melodies_without_a_key_are_refused(melodies):
    with pytest.raises(ValueError, match="windows have no key"):
        Originals(melodies, np.arange(len(melodies)))


# --- the vector in the latent space ----------------------------------------------------------------------------------


def tiny(kind=MELODY, steps=16, bars=1, name="tiny") -> Composer:
    torch.manual_seed(0)
    sizes = {"encoder_units": 8, "conductor_units": 8, "condition_size": 8, "decoder_units": 8}
    model = MusicVAE(ModelConfig(kind.vocab_sizes, steps, bars, latent_size=6, encoder_layers=1, **sizes)).eval()
    return Composer(model, RunConfig(name=name, representation=kind.name, model=model.config), kind)


@pytest.mark.parametrize("kind", [MELODY, Melody("melody-90", 21, 108), Trio()], ids=lambda kind: kind.name)
def test_an_amount_of_zero_is_the_reconstruction_and_others_are_further_along_the_vector(kind):
    composer, streams = tiny(kind), len(kind.vocab_sizes)
    tokens = np.repeat(melody(40, 0, 44, 0, 47)[:, :, None], streams, axis=2).repeat(3, axis=0)
    vector = np.array([3.0, -2, 1, 0, 2, -1])
    report = measure_density(composer, tokens, vector, np.arange(3), amounts=(0, 1), temperature=0.5, seed=4)
    mu, written = composer.encode_tokens(tokens).mu, []
    originals = Originals(tokens[..., 0], np.arange(3), seed=4)
    for amount, found in zip((0.0, 1.0), report.amounts):
        written.append(composer.decode_tokens(mu + np.float32(amount) * vector.astype(np.float32), 0.5, 4))
        assert plain(found) == plain(originals.compare(written[-1][..., 0], amount))
    assert (written[0] != written[1]).any()
    assert (report.windows, report.groups, report.notes_a_bar.value) == (3, 3, 3)


def test_drums_have_no_key():
    with pytest.raises(ValueError, match="plays drums, which have no key"):
        melody_of(tiny(Drums()), np.zeros((1, 16, 1), int))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Windows of 16 bars: 6 songs of two notes a bar, 6 of eight."""
    folder, rng = tmp_path_factory.mktemp("density"), np.random.default_rng(0)
    for n in range(12):
        pitches, every = rng.integers(55, 80, 272), 8 if n % 2 else 2
        line = notes(*((s, int(pitches[s]), every) for s in range(0, 272, every)))
        write(folder / "in", {f"{n}.mid": file(track(*line))})
    return build([folder / "in"], DatasetSettings("melody", 16), folder / "out").folder


def figure4():
    spec = importlib.util.spec_from_file_location("figure4", PAPER / "figure4.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figure_4_from_the_command_to_the_files(data, tmp_path, capsys):
    composer = tiny(steps=256, bars=16, name="melody-16")
    save_run(tmp_path / "run", composer.model, composer.config)
    settings = ["--split", "train", "--windows", "4", "--vector", "note-density", "--amounts", "0", "1"]
    figure4().main([str(data), str(tmp_path / "run"), "--out", str(tmp_path / "figure4.png"), *settings])
    results = json.loads((tmp_path / "figure4.json").read_text())
    assert (tmp_path / "figure4.png").read_bytes()[:4] == b"\x89PNG"
    (model,) = results["models"]
    assert model["report"]["windows"] == 4
    assert model["report"]["notes_a_bar"]["value"] == 2
    assert model["vector"]["how"] == "quartiles"
    assert [a["amount"] for a in model["report"]["amounts"]] == [0, 1]
    assert results["paper"] == {"change_percent": 398.7, "in_tonal_centre_percent": 99.7}
    assert "melody-16: 4 windows with 2.00 notes a bar" in capsys.readouterr().out


def test_a_data_set_without_the_extremes_of_the_paper_says_so(data, tmp_path):
    composer = tiny(steps=256, bars=16)
    save_run(tmp_path / "run", composer.model, composer.config)
    with pytest.raises(SystemExit, match=r"error: .*no vector 'busy'.*--vector note-density"):
        figure4().main([str(data), str(tmp_path / "run"), "--split", "train", "--out", str(tmp_path / "f.png")])


def test_results_that_cannot_be_written_leave_nothing_behind(tmp_path):
    class Broken:
        def savefig(self, *_, **__):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_results(tmp_path / "a.png", Broken(), {})
    assert list(tmp_path.iterdir()) == []
