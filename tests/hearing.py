"""A tune as bytes and as it is heard, and how two songs are compared."""

from smf import notes

from musicvae.music.midi import Song

BAR = 1920  # ticks
TUNE = notes((0, 60, 4), (4, 62, 4), (8, 64, 8))  # C D E


def columns(song: Song) -> list[tuple[int, ...]]:
    """(instrument, start, pitch, end, velocity) of each note."""
    return list(zip(*(column.tolist() for column in song.notes)))


def heard(song: Song) -> list[tuple[int, int, int]]:
    """(start, pitch, end) of each note."""
    return [(start, pitch, end) for _, start, pitch, end, _ in columns(song)]


C_D_E = [(0, 60, 4), (4, 62, 8), (8, 64, 16)]


def assert_same(one: Song, other: Song) -> None:
    assert columns(one) == columns(other)
    assert one.instruments == other.instruments
    assert (one.pieces, one.dropped, one.off_grid) == (other.pieces, other.dropped, other.off_grid)
    assert one.tempos == other.tempos
