"""Cut a text into the sentences that are spoken, encoded and rendered one at a time.

The boundaries are found by ``sentencex`` (MIT, kept by Wikimedia, some 300 languages, no
dependencies), which rather joins two sentences than cuts one in the middle; ``pysbd`` was the
other candidate and has had no release since 2021.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import sentencex

MAX_CHARS: Final = 300
"""A longer sentence is cut at a comma or a space: its first frame would come too late."""

SENTENCE_PAUSE: Final = 0.25
PARAGRAPH_PAUSE: Final = 0.6
CLAUSE_PAUSE: Final = 0.1

_SPOKEN: Final = re.compile(r"[^\W_]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SPACE: Final = re.compile(r"\s+")
_CLAUSE_END: Final = re.compile(r"[,;:\u2013\u2014\u3001\uff0c\uff1b]\s*")

# What sentencex takes for the end of a sentence: letters of an acronym, French titles before a
# name, French hours and months before a number.
_ACRONYM: Final = re.compile(r"(?:^|[\s.\-(\u2019'])[^\W\d_]\.$")
_TITLE: Final = re.compile(r"(?<!\w)(?:Mmes?|Mlles?|MM?|Drs?|Pre?|Me|Mgr|Ste?|[Bb]d|J\.-C)\.\s+$")
_UNIT: Final = re.compile(r"(?<!\w)(?:h|janv|févr|avr|juil|sept|oct|nov|déc)\.\s+$", re.IGNORECASE)


@dataclass(frozen=True)
class Sentence:
    """One unit of speech.

    Attributes:
        text: what is said, on one line.
        pause: silence after it, in seconds.
    """

    text: str
    pause: float


def split_sentences(text: str, language: str = "en") -> list[Sentence]:
    """Cut a text into sentences.

    Args:
        text: any text; pieces without a letter or digit are left out.
        language: ISO 639 code; an unknown one gets the rules of a related language or English.

    Returns:
        The sentences in order, none of them empty or longer than ``MAX_CHARS``; an empty list
        when the text has nothing to say. The last one has no pause.
    """
    sentences: list[Sentence] = []
    for paragraph in re.split(r"\n\s*\n", without_surrogates(text)):
        pieces = [_SPACE.sub(" ", piece).strip() for piece in segments(paragraph, language)]
        spoken = [piece for piece in pieces if _SPOKEN.search(piece)]
        for index, piece in enumerate(spoken):
            last = index == len(spoken) - 1
            *heads, tail = _shorten(piece)
            sentences += [Sentence(head, CLAUSE_PAUSE) for head in heads]
            sentences.append(Sentence(tail, PARAGRAPH_PAUSE if last else SENTENCE_PAUSE))
    if sentences:
        sentences[-1] = Sentence(sentences[-1].text, 0.0)
    return sentences


def segments(text: str, language: str) -> list[str]:
    """A text in sentences, as it is: joined they are the text.

    Args:
        text: one paragraph.
        language: ISO 639 code.
    """
    french = language.split("-")[0].lower() == "fr"
    found: list[str] = []
    for piece in sentencex.segment(language, text):
        if found and _goes_on(found[-1], piece, french):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def _goes_on(head: str, rest: str, french: bool) -> bool:
    """Whether there is no boundary after ``head``, whatever sentencex says."""
    if _ACRONYM.search(head):
        return True
    if not french:
        return False
    return bool(_TITLE.search(head) or (rest[:1].isdigit() and _UNIT.search(head)))


def without_surrogates(text: str) -> str:
    """Halves of surrogate pairs, which are no characters, become replacement characters."""
    return _SURROGATE.sub("\ufffd", text)


def _shorten(sentence: str) -> list[str]:
    """Cut a long sentence at the last clause end, else the last space, that fits."""
    parts: list[str] = []
    rest = sentence
    while len(rest) > MAX_CHARS:
        ends = [match.end() for match in _CLAUSE_END.finditer(rest, 0, MAX_CHARS)]
        cut = ends[-1] if ends else rest.rfind(" ", 0, MAX_CHARS)
        if cut <= 0:
            cut = MAX_CHARS
        head, rest = rest[:cut].strip(), rest[cut:].strip()
        if _SPOKEN.search(head):
            parts.append(head)
    if _SPOKEN.search(rest) or not parts:
        parts.append(rest)
    return parts
