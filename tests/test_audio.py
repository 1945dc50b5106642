"""Songs as sound: how long, how high, how loud, and that one drum is not another."""

import io
import struct
import wave

import numpy as np
import pytest

from musicvae.music.audio import PEAK, TAIL, Sound, find_fluidsynth, loop_seconds, save_sound, sound, wav_bytes
from musicvae.music.midi import Song
from musicvae.music.representation import DRUM_CLASSES, Drums, Melody, Trio
from musicvae.music.synth import DRUMS, RATE, drum_sound, render


def melody(*events: tuple[int, int], steps: int = 32, tempo: float = 120) -> Song:
    """Events (step, token); 2 + p begins a note of pitch p, 1 ends it."""
    tokens = np.zeros((steps, 1), np.int64)
    for step, token in events:
        tokens[step] = token
    return Melody().to_song(tokens, tempo)


def beat(*hits: tuple[int, str], steps: int = 32) -> Song:
    tokens = np.zeros((steps, 1), np.int64)
    for step, name in hits:
        tokens[step] |= 1 << DRUM_CLASSES.index(name)
    return Drums().to_song(tokens)


def power(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz, and the share of the power at each."""
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    spectrum = np.abs(np.fft.rfft(mono)) ** 2
    return np.fft.rfftfreq(len(mono), 1 / RATE), spectrum / spectrum.sum()


def read_wav(data: bytes) -> tuple[np.ndarray, wave._wave_params]:
    with wave.open(io.BytesIO(data)) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return frames.reshape(-1, file.getnchannels()).T, file.getparams()


def test_two_bars_at_120_last_four_seconds_and_the_tail(tmp_path):
    made = save_sound(melody((0, 62)), tmp_path / "song.wav", "synth")
    samples, params = read_wav((tmp_path / "song.wav").read_bytes())
    assert params[:3] == (2, 2, RATE) and params.nframes == round((4 + TAIL) * RATE)
    assert made.loop_seconds == 4 and made.engine == "own synth"
    assert np.abs(samples).max() > 3000
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


def test_the_file_says_where_the_loop_ends():
    data = wav_bytes(sound(melody((0, 62), tempo=90), "synth"))
    at = data.index(b"smpl")
    loops, first, last = (struct.unpack_from("<I", data, at + 8 + offset)[0] for offset in (28, 44, 48))
    assert (loops, first) == (1, 0) and (last + 1) / RATE == pytest.approx(32 * 60 / 90 / 4, abs=1e-4)


def test_time_follows_the_changes_of_tempo():
    song = melody((0, 62))
    slower = Song(song.notes, song.instruments, song.pieces, ((0, 120.0), (16, 60.0)))
    assert loop_seconds(song) == 4 and loop_seconds(slower) == 2 + 4


@pytest.mark.parametrize(("pitch", "frequency"), [(69, 440.0), (57, 220.0), (88, 1318.51)])
def test_a_note_sounds_at_its_pitch(pitch: int, frequency: float):
    f, share = power(sound(melody((0, 2 + pitch)), "synth").samples)
    assert f[share.argmax()] == pytest.approx(frequency, rel=0.002)


def test_a_bass_sounds_at_its_pitch_too():
    tokens = np.zeros((32, 3), np.int64)
    tokens[0, 1] = 2 + 33
    f, share = power(sound(Trio().to_song(tokens), "synth").samples)
    assert f[share.argmax()] == pytest.approx(55, rel=0.01)


def test_notes_sound_when_they_are_held_and_not_before_or_after():
    samples = sound(melody((8, 62), (12, 1)), "synth").samples
    step = RATE // 8
    loud = [np.abs(samples[:, i * step : (i + 1) * step]).max() > 1e-4 for i in range(32)]
    assert loud == [i in (8, 9, 10, 11, 12) for i in range(32)]  # the release reaches into step 12


def test_no_note_begins_or_ends_with_a_click():
    """A click is a jump; a tone of 262 Hz with its harmonics moves by little from one sample to the next but one."""
    samples = sound(melody((4, 62), (6, 64), (9, 1)), "synth").samples[0]
    bend = np.abs(np.diff(samples, 2))
    inside = bend[round(4.5 * RATE / 8) : round(5.5 * RATE / 8)].max()
    assert bend.max() < 2 * inside
    assert np.abs(samples[-2:]).max() == 0


def test_silence_gives_silence():
    made = sound(melody(), "synth")
    assert made.samples.shape == (2, round((4 + TAIL) * RATE)) and not made.samples.any()


def test_every_drum_of_the_nine_can_be_told_from_the_others():
    """By how its power lies in octaves, and by how long it rings: no two are alike in both."""
    f = np.fft.rfftfreq(1 << 17, 1 / RATE)
    octave = np.floor(np.log2(np.maximum(f, 1)))
    found = {}
    for name in DRUM_CLASSES:
        samples = drum_sound(name)
        spectrum = np.abs(np.fft.rfft(samples, 1 << 17)) ** 2
        bands = np.array([spectrum[octave == o].sum() for o in range(4, 15)]) / spectrum.sum()
        found[name] = bands, np.log2(len(samples) / RATE)
    for i, a in enumerate(DRUM_CLASSES):
        for b in DRUM_CLASSES[:i]:
            colour = np.abs(found[a][0] - found[b][0]).sum() / 2
            ring = abs(found[a][1] - found[b][1])
            assert colour > 0.2 or ring > 1, (a, b, colour, ring)


def test_kick_is_low_hi_hats_are_high_and_toms_rise():
    share = {name: power(drum_sound(name)) for name in DRUM_CLASSES}
    f, kick = share["kick"]
    assert kick[f < 200].sum() > 0.95
    for name in ("closed hi-hat", "open hi-hat", "ride"):
        f, high = share[name]
        assert high[f > 4000].sum() > 0.8, name
    low, mid, high = (share[n][0][share[n][1].argmax()] for n in ("low tom", "mid tom", "high tom"))
    assert 70 < low < 0.8 * mid < 0.64 * high < 200
    assert len(drum_sound("open hi-hat")) > 5 * len(drum_sound("closed hi-hat"))
    assert len(DRUMS) == len(DRUM_CLASSES)


def test_a_closed_hi_hat_silences_the_open_one():
    rings, choked = beat((0, "open hi-hat")), beat((0, "open hi-hat"), (2, "closed hi-hat"))
    later = slice(round(0.4 * RATE), round(0.7 * RATE))  # the closed one has died away by then
    assert np.abs(render(rings, TAIL)[:, later]).max() > 10 * np.abs(render(choked, TAIL)[:, later]).max()


def test_the_loudest_trio_is_not_clipped():
    tokens = np.tile([2 + 72, 2 + 36, 511], (256, 1))
    song = Trio().to_song(tokens)
    assert np.abs(render(song, TAIL)).max() > 1  # it would be
    samples, _ = read_wav(wav_bytes(sound(song, "synth")))
    assert PEAK * 32767 - 2 <= np.abs(samples).max() <= PEAK * 32767 + 1
    assert (np.abs(samples) == np.abs(samples).max()).sum() <= 2


def test_the_same_song_gives_the_same_bytes():
    song = beat((0, "crash"), (4, "snare"), (6, "ride"))
    assert wav_bytes(sound(song, "synth")) == wav_bytes(sound(song, "synth"))


def test_unknown_engines_and_soundfonts_are_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="known are auto, fluidsynth, synth"):
        sound(melody(), "organ")
    monkeypatch.setenv("MUSICVAE_SOUNDFONT", str(tmp_path / "none.sf2"))
    with pytest.raises(ValueError, match="no such file"):
        sound(melody())
    assert sound(melody(), "synth").engine == "own synth"
    monkeypatch.setenv("MUSICVAE_SOUNDFONT", __file__)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="Install both"):
        sound(melody(), "fluidsynth")
    assert sound(melody()).engine == "own synth"


@pytest.mark.skipif(find_fluidsynth() is None, reason="FluidSynth or a soundfont is not installed")
def test_fluidsynth_plays_the_same_music():
    tokens = np.zeros((32, 3), np.int64)
    tokens[::4, 0], tokens[::8, 1], tokens[::4, 2] = 2 + 69, 2 + 45, 1
    made = sound(Trio().to_song(tokens), "fluidsynth")
    assert isinstance(made, Sound) and made.engine.startswith("FluidSynth with")
    assert made.samples.shape == (2, round((4 + TAIL) * RATE))
    assert np.sqrt((made.samples**2).mean()) > 0.01 and np.abs(made.samples).max() <= PEAK
    f, share = power(sound(melody((0, 2 + 69)), "fluidsynth").samples)
    near = np.abs(np.log2(np.maximum(f, 1) / 440) % 1)  # its harmonics of whole octaves are the same note
    assert share[(near < 0.02) | (near > 0.98)].sum() > 0.5
