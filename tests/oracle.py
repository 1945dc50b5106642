"""The rules of reading MIDI once more, note by note on mido's events, with fractions instead of arrays."""

import io
from collections import defaultdict
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

import mido

HALF = Fraction(1, 2)


class Reading(NamedTuple):
    """What a song should be: notes as (name, program, drum, start, pitch, end, velocity), sorted."""

    notes: list[tuple]
    bars: list[int]  # of each piece
    source_bars: list[int]
    tempos: list[tuple[int, float]]


def read(source: Path | bytes) -> Reading:
    data = source if isinstance(source, bytes) else source.read_bytes()
    file = mido.MidiFile(file=io.BytesIO(data), clip=True, charset="latin-1")
    step = Fraction(4, file.ticks_per_beat)
    notes, metres, tempos, end = [], [], [], 0
    for track in file.tracks:
        tick, name, program, sounding = 0, "", [0] * 16, defaultdict(list)
        mine = []
        for message in track:
            tick += message.time
            end = max(end, tick)
            if message.type == "track_name":
                name = message.name.encode("latin-1").decode("utf-8", "replace")
            elif message.type == "time_signature":
                metres.append((tick * step, message.numerator, message.denominator))
            elif message.type == "set_tempo":
                tempos.append((tick * step, mido.tempo2bpm(message.tempo)))
            elif message.type == "program_change":
                program[message.channel] = message.program
            elif message.type == "note_on" and message.velocity:
                sounding[message.channel, message.note].append((tick, message.velocity, program[message.channel]))
            elif message.type in ("note_on", "note_off") and sounding[message.channel, message.note]:
                start, velocity, number = sounding[message.channel, message.note].pop(0)  # the oldest ends first
                drum = message.channel == 9
                mine.append((number, drum, start * step, message.note, tick * step, velocity))
        notes += [(name, *note) for note in mine]
    return lay_out(notes, metres, tempos, end * step)


def lay_out(notes: list, metres: list, tempos: list, end: Fraction) -> Reading:
    changes = [(Fraction(0), 4, 4)]
    for change in sorted(metres, key=lambda m: m[0]):
        changes = [c for c in changes if c[0] != change[0]] + [change]
    stretches: list[tuple[Fraction, int, int]] = []
    for start, n, d in changes:
        metre = (4, 4) if n == d else (n, d)
        if stretches and stretches[-1][1:] == metre:
            bars = (start - stretches[-1][0]) / (16 * Fraction(n, d))
            if abs(bars - floor(bars + HALF)) < Fraction(1, 32):
                continue
        stretches.append((start, *metre))

    def stretch_of(time: Fraction) -> int:
        return max(i for i, s in enumerate(stretches) if s[0] <= time + HALF)

    position, shift, limit, bars, source_bars, source_bar = 0, {}, {}, [], [], 1
    for i, (start, n, d) in enumerate(stretches):
        following = stretches[i + 1][0] if i + 1 < len(stretches) else None
        if (n, d) == (4, 4):
            if following is None:
                ends = [to_step(note[5], start, note[3]) for note in notes if stretch_of(note[3]) == i]
                last = max(ends, default=0)
                length = max(last, min(floor(end - start + HALF), ceil(Fraction(last, 16)) * 16 + 16 * 16))
            else:
                length = ceil(following - start)
            if count := ceil(Fraction(length, 16)):
                shift[i], limit[i] = position, length
                bars.append(count)
                source_bars.append(source_bar)
                position += 16 * count
        if following is not None:
            source_bar += max(1, ceil((following - start) / (16 * Fraction(n, d))))
    found = []
    for name, program, drum, start, pitch, stop, velocity in notes:
        i = stretch_of(start)
        if i in shift:
            first = floor(start - stretches[i][0] + HALF)
            last = min(max(to_step(stop, stretches[i][0], start), first + 1), max(limit[i], first + 1))
            found.append((name, program, drum, shift[i] + first, pitch, shift[i] + last, velocity))
    at = {0: 120.0}
    for time, bpm in sorted(tempos, key=lambda t: t[0]):
        i = stretch_of(time)
        if i in shift:
            at[shift[i] + floor(time - stretches[i][0] + HALF)] = bpm
        elif later := [j for j in shift if j > i]:
            at[shift[later[0]]] = bpm
    steady = [(s, at[s]) for s in sorted(at) if s < position]
    return Reading(
        sorted(found), bars, source_bars, [t for i, t in enumerate(steady) if i == 0 or t[1] != steady[i - 1][1]]
    )


def to_step(time: Fraction, origin: Fraction, start: Fraction) -> int:
    """The step at which a note that began at `start` ends: at least one after its first."""
    return max(floor(time - origin + HALF), floor(start - origin + HALF) + 1)
