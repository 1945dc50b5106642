"""The rules of reading MIDI once more, note by note on mido's events, with fractions instead of arrays."""

import io
from collections import defaultdict
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple

import mido

from musicvae.music.text import decoded

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
    metres, tempos, names, ends, channel_events = [], [], [], [], []
    for number, track in enumerate(file.tracks):
        tick, name = 0, ""
        for place, message in enumerate(track):
            tick += message.time
            if message.type == "track_name":
                name = decoded(message.name.encode("latin-1"))
            elif message.type == "time_signature":
                metres.append((tick * step, message.numerator, message.denominator))
            elif message.type == "set_tempo":
                tempos.append((tick * step, mido.tempo2bpm(message.tempo)))
            elif not message.is_meta and hasattr(message, "channel"):
                channel_events.append((tick, number, place, message))
        names.append(name)
        ends.append(tick)
    notes = []
    for (tick, number, place, on), end in sounding(channel_events, ends):
        program, drum = sound_of(on.channel, tick, number, place, channel_events)
        notes.append(
            (names[number], program, drum, tick * step, on.note, (tick if end is None else end) * step, on.velocity)
        )
    return lay_out(notes, metres, tempos, max(ends) * step)


def sound_of(channel: int, tick: int, track: int, place: int, events: list) -> tuple[int, bool]:
    """Program and kind of a channel of the whole file at a note."""
    program, drum = 0, channel == 9
    for when, where, order, message in sorted(events, key=lambda e: e[:3]):
        before = when < tick or (when == tick and (where != track or order < place))
        if message.channel == channel and before and message.type == "program_change":
            program = message.program
        if message.channel == channel and before and message.type == "control_change" and message.control == 0:
            drum = message.value in (120, 126, 127) or (channel == 9 and message.value != 121)
    return program, drum


def sounding(events: list, ends: list[int]) -> list[tuple[tuple, int | None]]:
    """Each note-on with the tick of its end; None for a drum hit that has none."""
    kinds = ("note_on", "note_off")
    of_pitch = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event[3].type in kinds:
            of_pitch[event[3].channel, event[3].note][event[1]].append(event)
    found = []
    for tracks in of_pitch.values():
        rest = []
        for of_track in tracks.values():
            pairs, left, stray = oldest_first(of_track)
            found += [] if left else pairs
            rest += of_track if left else stray
        rest.sort(key=lambda e: (e[0], starts(e[3]), e[1], e[2]))
        pairs, left, _ = oldest_first(rest)
        if not left:
            found += pairs
            continue
        for i, event in enumerate(rest):
            if starts(event[3]):
                later = [e[0] for e in rest[i + 1 :] if e[0] > event[0] or not starts(e[3])]
                drum = sound_of(event[3].channel, *event[:3], events)[1]
                found.append((event, None if drum else max(later[0] if later else ends[event[1]], event[0])))
    return found


def starts(message) -> bool:
    return message.type == "note_on" and message.velocity > 0


def oldest_first(events: list) -> tuple[list, list, list]:
    pairs, waiting, stray = [], [], []
    for event in events:
        if starts(event[3]):
            waiting.append(event)
        elif waiting:
            pairs.append((waiting.pop(0), event[0]))
        else:
            stray.append(event)
    return pairs, waiting, stray


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
