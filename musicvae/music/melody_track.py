"""Which track of a song is the melody: by name, program, register, polyphony and activity.

Basses, percussion and effects are taken only where nothing else plays. Of the rest a name that says so decides;
without one, a linear score. Its weights were fitted by softmax regression, with all names hidden, to one half of the
tunes of four collections whose melody is known: hymns in four parts, songs with piano, and two of melody, bass and
drums. `RARE`, `OFTEN` and the weight of names that say accompaniment were set by hand.
"""

import re
from typing import NamedTuple

import numpy as np

from musicvae.music.midi import STEPS_PER_BAR, Song

BASS_PROGRAMS = range(32, 40)
LOW = 48  # a track whose middle note lies below this C is a bass
RARE = 0.1  # a name counts where the track begins a note in this share of the bars
OFTEN = 0.3  # without a name the melody plays in this share of the bars of the track that plays in most
SOLO_PROGRAMS = {*range(40, 43), *range(52, 55), 56, 59, *range(64, 88), 110}  # strings, voices, winds, leads
SUPPORT_PROGRAMS = {55, *range(88, 104)}  # hits, pads, atmospheres
PERCUSSION_PROGRAMS = {47, *range(112, 128)}  # timpani, percussion, sound effects

MELODY_WORDS = re.compile(
    r"melod|m[ée]lod|\b(?:lead|vocals?|voice|vox|voix|voce|voz|gesang|sing?stimme|chant|canto|cantus|solo|theme|thema|tune"
    r"|sopran[oe]?|sop|sopr|dis[ck]ant|treble|singer|right hand|rechte hand)(?![a-z])"
    r"|voice$|stimme$|主旋律|メロディ|ボーカル|歌",
    re.IGNORECASE,
)
SOUND_NAMES = re.compile(  # of General MIDI: they say how a track sounds, not what it plays
    r"lead \d|\b(?:square|saw\w*|calliope|chiff|charang|voice|fifths|synth) lead|\bsynth (?:voice|vox)|voice oohs"
    r"|solo vox",
    re.IGNORECASE,
)
BASS_WORDS = re.compile(r"bass(?!oon|et)|\b(?:basse|basso|bajo|baixo|tuba)\b|ベース", re.IGNORECASE)
SUPPORT_WORDS = re.compile(
    r"chord|akkord|accord|rhythm|accomp|begleit|harmon(?:y|ie)|backing|backvo|choir|chorus|drone"
    r"|\b(?:pad|arp\w*|comp|left|linke|gauche|riff|sweep)\b",
    re.IGNORECASE,
)
PERCUSSION_WORDS = re.compile(r"drum|percussion|\bkit\b|schlagzeug|batterie|timpani|pauken|ドラム", re.IGNORECASE)


class Choice(NamedTuple):
    """A track, as an index into Song.instruments, and why it was taken; None in a song without such a track."""

    instrument: int | None
    why: str


WEIGHTS = {"register": 2.2, "chords": -1.5, "presence": 0.9, "steps": 0.8, "program": 1.2, "support": -1.0}
WORDS = {  # said of the track taken, where it is ahead of the next best in this
    "register": "higher",
    "chords": "fewer chords",
    "presence": "plays in more bars",
    "steps": "moves more by step",
    "program": "a sound for solos",
    "support": "not named as accompaniment",
}


def choose_melody(song: Song, tracks: list[int]) -> Choice:
    """The melody among some tracks, indices into song.instruments."""
    playing = [i for i in tracks if (song.notes.instrument == i).any()]
    if len(playing) < 2:
        return Choice(playing[0], "the only track that can be one") if playing else Choice(None, "nothing plays")
    score = {i: _score(song, i) for i in playing}
    total = {i: sum(score[i].values()) for i in playing}
    if named := [i for i in playing if _is_named(song, i) and score[i]["presence"] >= RARE * WEIGHTS["presence"]]:
        best = max(named, key=lambda i: (total[i], -i))
        return Choice(best, f'named "{song.instruments[best].name}"')
    pitched = [i for i in playing if not _is_percussion(song, i)]
    other = [i for i in pitched if not _is_bass(song, i)] or [i for i in playing if not _is_bass(song, i)]
    among = other or [i for i in playing if not _is_called_bass(song, i)] or playing
    what = "that are neither bass nor percussion" if other else "where all are low"
    most = max(score[i]["presence"] for i in among)
    among = [i for i in among if score[i]["presence"] >= OFTEN * most]
    best = max(among, key=lambda i: (total[i], -i))
    if len(among) == 1:
        return Choice(best, "the only track, but for bass and percussion, that plays often")
    rival = max((i for i in among if i != best), key=lambda i: (total[i], -i))
    ahead = {name: score[best][name] - score[rival][name] for name in WEIGHTS}
    said = [WORDS[name] for name in sorted(ahead, key=lambda name: -ahead[name])[:2] if ahead[name] > 0.05]
    reason = f"compared with track {rival + 1}: {', '.join(said)}" if said else f"the first, like track {rival + 1}"
    return Choice(best, f"of {len(among)} busy tracks {what}; {reason}")


def _is_named(song: Song, track: int) -> bool:
    name = song.instruments[track].name
    wrong = (SOUND_NAMES, BASS_WORDS, SUPPORT_WORDS, PERCUSSION_WORDS)
    return bool(MELODY_WORDS.search(name)) and not any(words.search(name) for words in wrong)


def _is_called_bass(song: Song, track: int) -> bool:
    player = song.instruments[track]
    return player.program in BASS_PROGRAMS or bool(BASS_WORDS.search(player.name))


def _is_bass(song: Song, track: int) -> bool:
    return _is_called_bass(song, track) or np.median(song.notes.pitch[song.notes.instrument == track]) < LOW


def _is_percussion(song: Song, track: int) -> bool:
    player, pitch = song.instruments[track], song.notes.pitch[song.notes.instrument == track]
    return bool(player.program in PERCUSSION_PROGRAMS or PERCUSSION_WORDS.search(player.name) or np.ptp(pitch) == 0)


def _score(song: Song, track: int) -> dict[str, float]:
    """What each feature, a number of about -2 to 2, adds to the score of a track that plays."""
    mine, player = np.flatnonzero(song.notes.instrument == track), song.instruments[track]
    start, pitch = song.notes.start[mine], song.notes.pitch[mine]
    line = pitch[np.append(start[1:] != start[:-1], True)]  # sorted by start and pitch: the highest at each onset
    interval = np.abs(np.diff(line))
    values = {
        "register": np.clip((np.median(line) - 66) / 12, -2, 1),
        "chords": min(len(pitch) / len(line) - 1, 2),
        "presence": len(np.unique(start // STEPS_PER_BAR)) / max(song.bars, 1),
        "steps": np.mean((interval > 0) & (interval <= 2)) if len(interval) else 0,
        "program": (player.program in SOLO_PROGRAMS) - (player.program in SUPPORT_PROGRAMS),
        "support": bool(SUPPORT_WORDS.search(player.name)),
    }
    return {name: weight * float(values[name]) for name, weight in WEIGHTS.items()}
