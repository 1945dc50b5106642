"""Songs -> windows: the rules once more, one window and one step at a time."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicvae.music.cutting import cut
from musicvae.music.midi import Instrument, MidiError, Piece, Song, sorted_notes
from musicvae.music.representation import Drums, Melody, Representation, Trio, representation
from musicvae.music.windows import MAX_PAIRS, MAX_WINDOWS, TooManyWindows, find_windows

PIANO, BASS, KIT = Instrument("piano", 0, False), Instrument("bass", 33, False), Instrument("kit", 0, True)
KINDS = [Melody(), representation("melody-90"), Drums(), Trio(), representation("trio-90")]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)


def song(*notes: tuple[int, ...], players=(PIANO,), bars=2, pieces=None) -> Song:
    """A song of (start, pitch, end) or (start, pitch, end, index of the player)."""
    rows = [(note[3] if len(note) > 3 else 0, note[0], note[1], note[2], 80) for note in notes]
    return Song(sorted_notes(*np.array(rows).reshape(-1, 5).T), players, pieces or (Piece(0, bars * 16, 1),))


# --- the rules, as plainly as possible -----------------------------------------------------------------------------


def plain_windows(song: Song, kind: Representation, bars: int) -> list[tuple]:
    """(instrument, bar, tokens) of every window, sorted."""
    melody = kind if isinstance(kind, Melody) else getattr(kind, "melody", Melody())
    pitched = [i for i, p in enumerate(song.instruments) if not p.is_drum]
    line = {i: melody.to_tokens(song, i)[:, 0].tolist() for i in pitched}
    drums = Drums().to_tokens(song)[:, 0].tolist() if any(p.is_drum for p in song.instruments) else None
    found = []
    for piece in song.pieces:
        for bar in range(piece.start // 16, piece.end // 16 - bars + 1):
            at = slice(bar * 16, (bar + bars) * 16)
            hits = drums[at] if drums and not too_silent([t > 0 for t in drums[at]]) else None
            lines = {i: cleaned(line[i][at]) for i in pitched}
            lines = {i: tokens for i, tokens in lines.items() if not too_silent(sounding(tokens))}
            if isinstance(kind, Melody):
                found += [(i, bar, [[t] for t in tokens]) for i, tokens in lines.items()]
            elif isinstance(kind, Drums) and hits:
                found.append((-1, bar, [[t] for t in hits]))
            elif isinstance(kind, Trio) and hits:
                leads = [i for i in lines if song.instruments[i].program <= 31]
                basses = [i for i in lines if 32 <= song.instruments[i].program <= 39]
                found += [(i, bar, [list(t) for t in zip(lines[i], lines[j], hits)]) for i in leads for j in basses]
    return sorted(found)


def cleaned(tokens: list[int]) -> list[int]:
    """What stands before the first onset belongs to a note that began earlier: nothing."""
    first = next((i for i, t in enumerate(tokens) if t >= 2), len(tokens))
    return [0] * first + tokens[first:]


def sounding(tokens: list[int]) -> list[bool]:
    result, on = [], False
    for token in tokens:
        on = token >= 2 or (on and token == 0)
        result.append(on)
    return result


def too_silent(sounds: list[bool]) -> bool:
    return "." * 17 in "".join("#" if s else "." for s in sounds)


def found_windows(songs: list[Song], kind: Representation, bars: int) -> list[list[tuple]]:
    """The same of find_windows, for each song."""
    windows = find_windows(songs, kind, bars)
    result: list[list[tuple]] = [[] for _ in songs]
    for n, *row in zip(*(c.tolist() for c in (windows.song, windows.instrument, windows.bar, windows.tokens))):
        result[n].append(tuple(row))
    order = list(zip(windows.song.tolist(), windows.instrument.tolist(), windows.bar.tolist()))
    assert order == sorted(order)
    return [sorted(r) for r in result]


# --- facts -----------------------------------------------------------------------------------------------------------


def test_a_window_begins_at_every_bar():
    walk = song(*((s, 60 + s % 7, s + 4) for s in range(0, 80, 4)), bars=5)
    windows = find_windows([walk], Melody(), 2)
    assert windows.bar.tolist() == [0, 1, 2, 3] and windows.possible.tolist() == [4]
    assert np.array_equal(windows.tokens[1, :, 0], Melody().to_tokens(walk)[16:48, 0])


@pytest.mark.parametrize("silent, there", [(16, True), (17, False)])
def test_sixteen_silent_steps_pass_and_seventeen_do_not(silent, there):
    gap = song((0, 60, 4), (4 + silent, 62, 32))
    assert len(find_windows([gap], Melody(), 2).bar) == there
    late = song((silent, 60, 32))
    assert len(find_windows([late], Melody(), 2).bar) == there
    early = song((0, 60, 32 - silent))
    assert len(find_windows([early], Melody(), 2).bar) == there
    rolls = song(*((s, 36, s + 1) for s in range(32) if not 5 <= s < 5 + silent), players=(KIT,))
    assert len(find_windows([rolls], Drums(), 2).bar) == there


def test_a_held_note_is_no_silence_but_a_held_drum_is():
    assert len(find_windows([song((0, 60, 32))], Melody(), 2).bar) == 1
    assert len(find_windows([song((0, 36, 32), players=(KIT,))], Drums(), 2).bar) == 0


def test_a_note_held_into_a_window_is_silence_there():
    held = song((8, 60, 40), (33, 62, 48), bars=3)
    windows = find_windows([held], Melody(), 2)
    assert windows.bar.tolist() == [0]  # in the second window the first sound is in its 18th step
    sooner = find_windows([song((8, 60, 24), (30, 62, 48), bars=3)], Melody(), 2)
    assert sooner.tokens[1, :, 0].tolist() == [0] * 14 + [64] + [0] * 17  # and the off at step 8 is gone


def test_no_window_crosses_pieces():
    every = [(s, 60, s + 4) for s in range(0, 96, 4)]
    cut = song(*every, bars=6, pieces=(Piece(0, 48, 1), Piece(48, 96, 9)))
    assert find_windows([cut], Melody(), 2).bar.tolist() == [0, 1, 3, 4]
    assert find_windows([cut], Melody(), 16).bar.tolist() == []


def test_a_trio_is_every_pair_with_the_drums():
    line = [(s, 50, s + 4) for s in range(0, 32, 4)]
    players = (PIANO, PIANO, BASS, BASS, KIT, Instrument("choir", 52, False))
    band = song(*((*n, i) for n in line for i in range(6)), players=players)
    windows = find_windows([band], Trio(), 2)
    assert windows.instrument.tolist() == [0, 0, 1, 1] and windows.tokens.dtype == np.uint16
    assert (
        find_windows([song(*((*n, i) for n in line for i in range(2)), players=(PIANO, BASS))], Trio(), 2).bar.size == 0
    )


def test_nothing_gives_nothing():
    for kind in KINDS:
        windows = find_windows([song(players=()), song()], kind, 2)
        assert windows.tokens.shape == (0, 32, len(kind.vocab_sizes)) and windows.possible.tolist() == [0, 0]


def test_a_far_note_costs_nothing():
    far = song((0, 60, 32), (159_968, 60, 160_000), bars=10_000)
    assert find_windows([far], Melody(), 2).bar.tolist() == [0, 9997, 9998]


@pytest.mark.parametrize("leads, basses, cut", [(16, 16, 0), (17, 16, 16), (3, 100, 44), (20, 20, 144), (300, 1, 44)])
def test_pairs_that_are_not_looked_at_are_counted(leads, basses, cut):
    players = (PIANO,) * leads + (BASS,) * basses + (KIT,)
    band = song(*((s, 40, s + 16, i) for i in range(len(players)) for s in (0, 16)), players=players)
    trio = song(*((s, 40, s + 16, i) for i in range(3) for s in (0, 16)), players=(PIANO, BASS, KIT))
    windows = find_windows([trio, band, trio], Trio(), 2)
    assert windows.cut_pairs.tolist() == [0, cut, 0]
    assert np.bincount(windows.song).tolist() == [1, leads * basses - cut, 1] and leads * basses - cut <= MAX_PAIRS
    for kind in (Melody(), Drums()):
        assert not find_windows([trio, band], kind, 2).cut_pairs.any()


def test_a_song_with_windows_out_of_all_proportion_is_refused():
    rows = [(i, s, 60, s + 16, 90) for i in range(8) for s in range(0, 160_000, 16)]
    monster = Song(sorted_notes(*np.array(rows).T), (PIANO,) * 8, (Piece(0, 160_000, 1),))
    with pytest.raises(TooManyWindows, match=f"{MAX_WINDOWS:,}"):
        find_windows([monster], Melody(), 16)
    rows = [(i, s, 36, s + 16, 90) for i in range(13) for s in range(0, 32_000, 16)]
    band = Song(sorted_notes(*np.array(rows).T), (PIANO,) * 6 + (BASS,) * 6 + (KIT,), (Piece(0, 32_000, 1),))
    with pytest.raises(TooManyWindows):
        find_windows([band], Trio(), 16)


# --- as the plain rules say ------------------------------------------------------------------------------------------


@st.composite
def bands(draw) -> Song:
    players = draw(
        st.lists(st.sampled_from([PIANO, BASS, KIT, Instrument("choir", 52, False)]), min_size=1, max_size=5)
    )
    bars = draw(st.integers(1, 7))
    cut = draw(st.integers(0, bars)) * 16
    pieces = tuple(Piece(a, b, 1) for a, b in ((0, cut), (cut, bars * 16)) if b > a)
    ends = [next(p.end for p in pieces if p.start <= s < p.end) for s in range(bars * 16)]
    rng = random.Random(draw(st.integers(0, 10**9)))
    rows = []
    for i in range(len(players)):
        for _ in range(rng.choice([1, 3, bars, 4 * bars])):
            s = rng.randrange(bars * 16) // rng.choice([1, 4, 16]) * rng.choice([1, 4, 16]) % (bars * 16)
            rows.append((s, rng.choice([20, 36, 38, 60, 64, 110]), min(s + rng.choice([1, 2, 12, 17, 40]), ends[s]), i))
    return song(*rows, players=tuple(players), bars=bars, pieces=pieces)


def test_the_windows_of_a_melody_with_two_basses_stand_in_the_order_of_the_bars():
    players = (KIT, BASS, BASS, PIANO)
    rows = [(s, 40 + i, s + 2, i) for i in range(4) for s in range(0, 96, 4)]
    found = find_windows([song(*rows, players=players, bars=6)], Trio(), 2)
    assert found.bar.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    first_bass = found.tokens[::2, 0, 1]
    assert (first_bass == 2 + 41).all() and (found.tokens[1::2, 0, 1] == 2 + 42).all()


@kinds
@settings(max_examples=40, deadline=None)
@given(songs=st.lists(bands(), min_size=1, max_size=4))
def test_windows_are_as_the_plain_rules_say(kind, songs):
    assert found_windows(songs, kind, 2) == [plain_windows(s, kind, 2) for s in songs]


@kinds
@pytest.mark.parametrize("bars", [2, 16])
def test_windows_of_real_songs_are_as_the_plain_rules_say(kind, bars, real_files):
    songs = []
    for path in random.Random(3).sample(real_files, 30) + [p for p in real_files if "freedoom" in p.parts][::40]:
        try:
            songs.append(Song.read(path))
        except MidiError:
            continue
    songs = [s for s in songs if s.bars < 70]
    found = found_windows(songs, kind, bars)
    assert found == [plain_windows(s, kind, bars) for s in songs]
    assert sum(map(len, found)) > 50


@kinds
@pytest.mark.parametrize("bars", [2, 3])
@settings(max_examples=40, deadline=None)
@given(song=bands())
def test_a_song_is_cut_into_the_windows_of_a_data_set(kind, bars, song):
    found = find_windows([song], kind, bars)
    for instrument, bar, tokens in zip(found.instrument.tolist(), found.bar.tolist(), found.tokens):
        cuts = [
            cut(heard, kind, bars, instrument=None if instrument < 0 else instrument, bar=bar).tokens[0]
            for heard in with_each_bass(song)
        ]
        assert any(np.array_equal(tokens, window) for window in cuts)


def with_each_bass(song: Song) -> list[Song]:
    """The song with one of its basses at a time; the others have the program of a choir."""
    low = [i for i, p in enumerate(song.instruments) if not p.is_drum and p.program == BASS.program]
    choir = Instrument("choir", 52, False)
    return [
        replace(song, instruments=tuple(choir if i in low and i != j else p for i, p in enumerate(song.instruments)))
        for j in low or [-1]
    ]
