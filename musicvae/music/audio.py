"""Song -> sound: a WAV file through FluidSynth where it and a soundfont are found, else through our own synth."""

import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musicvae.files import replacing
from musicvae.music.midi import STEPS_PER_BAR, Piece, Song
from musicvae.music.synth import RATE, render, seconds_at

TAIL = 1.5  # seconds after the last step, in which the last notes ring; the loop ends before
PEAK = 0.9  # of full scale: louder music is turned down as a whole, so nothing is ever clipped
ENGINES = ("auto", "fluidsynth", "synth")
SOUNDFONT = "MUSICVAE_SOUNDFONT"  # environment: a soundfont of one's own
_GAIN = 1.0  # FluidSynth's own default of 0.2 is faint
_FOLDERS = (
    "~/.local/share/soundfonts",
    "~/.local/share/sounds/sf2",
    "/usr/share/soundfonts",
    "/usr/share/sounds/sf2",
    "/usr/local/share/soundfonts",
    "/opt/homebrew/share/soundfonts",
)
_PREFERRED = ("default-gm.sf2", "default.sf2", "fluidr3_gm.sf2", "generaluser")  # the rest by name


class Sound(NamedTuple):
    """Samples (2, n) in float32 within -1 and 1, at `RATE`: the song, then `TAIL` seconds in which its end rings."""

    samples: np.ndarray
    loop_seconds: float  # where the song's last step ends: play up to here to loop it
    engine: str  # "FluidSynth with FluidR3_GM.sf2", or "own synth"


class FluidSynth(NamedTuple):
    """The program and the soundfont that it plays."""

    program: str
    soundfont: Path


def checked_engine(engine: str) -> FluidSynth | None:
    """What will play: FluidSynth, or None for our own synth. Raises ValueError for an unknown engine, for a soundfont
    named by hand that is not there, and for FluidSynth asked for and not found."""
    if engine not in ENGINES:
        raise ValueError(f"no sound engine {engine!r}; known are {', '.join(ENGINES)}")
    found = None if engine == "synth" else find_fluidsynth()
    if engine == "fluidsynth" and found is None:
        raise ValueError(
            "FluidSynth or a soundfont (.sf2) is missing. Install both (Debian: fluidsynth fluid-soundfont-gm), "
            f"or name a soundfont in {SOUNDFONT}, or take the own synth"
        )
    return found


def sound(song: Song, engine: str = "auto", drum_map: str = "current") -> Sound:
    """Song -> Sound. Raises ValueError as `checked_engine` does, and where FluidSynth fails."""
    found = checked_engine(engine)
    samples = render(song, TAIL, drum_map) if found is None else _through_fluidsynth(song, found)
    loudest = float(np.abs(samples).max(initial=0.0))
    if loudest > PEAK:
        samples *= np.float32(PEAK / loudest)
    name = "own synth" if found is None else f"FluidSynth with {found.soundfont.name}"
    return Sound(samples, loop_seconds(song), name)


def loop_seconds(song: Song) -> float:
    """How long the song itself lasts, without the tail."""
    return float(seconds_at(song, np.array(song.steps)))


def save_sound(song: Song, path: str | Path, engine: str = "auto", drum_map: str = "current") -> Sound:
    """Writes a WAV file (44.1 kHz, 16 bit, stereo) that knows its loop points; the Sound says how long and by whom."""
    made, path = sound(song, engine, drum_map), Path(path)
    with replacing(path) as temporary:
        temporary.write_bytes(wav_bytes(made))
    return made


def wav_bytes(made: Sound) -> bytes:
    """The sound as a WAV file with a `smpl` chunk: samplers and editors loop exactly the song."""
    data = np.rint(made.samples.T * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 2, RATE, RATE * 4, 4, 16)
    end = max(round(made.loop_seconds * RATE) - 1, 0)
    loop = struct.pack("<9I", 0, 0, 10**9 // RATE, 60, 0, 0, 0, 1, 0) + struct.pack("<6I", 0, 0, 0, end, 0, 0)
    chunks = b"".join(tag + struct.pack("<I", len(body)) + body for tag, body in
                      ((b"fmt ", form), (b"smpl", loop), (b"data", data)))  # fmt: skip
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def find_fluidsynth() -> FluidSynth | None:
    """The program and a soundfont, if both are here. Raises ValueError if the soundfont named by hand is not."""
    given = os.environ.get(SOUNDFONT)
    if given and not Path(given).is_file():
        raise ValueError(f"{SOUNDFONT} is {given!r}: no such file. Name a soundfont (.sf2), or unset it")
    program = shutil.which("fluidsynth")
    fonts = [Path(given)] if given else _soundfonts()
    return FluidSynth(program, fonts[0]) if program and fonts else None


def _soundfonts() -> list[Path]:
    found = [f for folder in _FOLDERS for f in Path(folder).expanduser().glob("*.sf[23]")]

    def rank(font: Path) -> tuple[int, str]:
        name = font.name.lower()
        return next((i for i, p in enumerate(_PREFERRED) if name.startswith(p)), len(_PREFERRED)), name

    return sorted(found, key=rank)


def _through_fluidsynth(song: Song, found: FluidSynth) -> np.ndarray:
    """The song, and silent bars after it for the tail, as a raw file of floats, which cannot be clipped."""
    loop = loop_seconds(song)
    bar = 60 / song.tempos[-1][1] * 4
    steps = song.steps + STEPS_PER_BAR * (int(TAIL / bar) + 1)
    longer = replace(song, pieces=(Piece(0, steps, 1),))
    with tempfile.TemporaryDirectory(prefix="musicvae-") as folder:
        midi, raw = Path(folder, "song.mid"), Path(folder, "song.raw")
        longer.save(midi)
        words = [found.program, "-n", "-i", "-q", "-r", str(RATE), "-g", str(_GAIN), "-T", "raw", "-O", "float"]
        words += [
            "-E",
            "little",
            "-o",
            "synth.dynamic-sample-loading=1",
            "-F",
            str(raw),
            str(found.soundfont),
            str(midi),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode or not raw.is_file():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"FluidSynth failed on {found.soundfont}: {reason}. The own synth needs neither")
        played = np.fromfile(raw, "<f4").reshape(-1, 2).T
    samples = np.zeros((2, round((loop + TAIL) * RATE)), np.float32)
    kept = min(samples.shape[1], played.shape[1])
    samples[:, :kept] = played[:, :kept]
    fade = round(TAIL * RATE / 4)
    samples[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return samples
