"""Names in MIDI files -> text that can be printed: files do not say how they are encoded."""

import re
import unicodedata

ACCENTED = re.compile(
    r"[A-Za-z][^\x00-\x7f](?![^\x00-\x7f])"
)  # one other letter after a Latin one: an accent, no kanji


def decoded(data: bytes) -> str:
    """The text of a meta event: UTF-8, else UTF-16 if its mark stands first, else Shift-JIS, else Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return printable(data.decode("utf-16", errors="replace"))
    for encoding in ("utf-8", "shift_jis"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or not ACCENTED.search(text):
            return printable(text)
    return printable(data.decode("latin-1"))


def printable(text: str) -> str:
    """The text without what a terminal would obey (escapes, other control characters) and without spaces around it."""
    if text.isascii() and text.isprintable():
        return text.strip()
    kept = (c if unicodedata.category(c)[0] != "C" else " " if c in "\t\r\n" else "" for c in text)
    return "".join(kept).strip()
