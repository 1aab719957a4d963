"""Sentences out of a text that is still being written.

A boundary is decided when the first letter after it arrives, from the characters up to that
letter alone: how the text is cut into pieces on its way here makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from orchestrator.replies.sentences import (
    CLAUSE_PAUSE,
    MAX_CHARS,
    PARAGRAPH_PAUSE,
    SENTENCE_PAUSE,
    Sentence,
    segments,
    without_surrogates,
)

_RUN: Final = 40
"""Longest run of characters that nobody speaks, as rows of dots; more are left out."""

_LONGEST: Final = MAX_CHARS - _RUN
_FIRST_LONGEST: Final = 120
_CLAUSE_WORDS: Final = 4
_CONJUNCTION_WORDS: Final = 6
_PREPOSITION_WORDS: Final = 10

_CLAUSE_END: Final = re.compile(r"[,;:\u2013\u2014]\s+|[\u3001\uff0c\uff1b\uff1a]\s*")
_OPENING: Final = re.compile(
    r"(?<=\s)[\"'\u00ab\u2018\u201a\u201c\u201e([{*`#\u00a1\u00bf\u2013\u2014-]\W*$"
)
_MARKUP: Final = re.compile(
    r"\*\*|__|`+|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)|^\s*(?:#{1,6}|[-*\u2022])\s+"
)
_WORD: Final = re.compile(r"[^\W_]+")
_LIST_MARKER: Final = re.compile(r"\W*(?:\d{1,3}|[^\W\d_])\W*")
_CONJUNCTIONS: Final = {
    "en": frozenset(("and", "but", "because", "so", "which", "while", "although", "when", "or")),
    "fr": frozenset(("et", "mais", "parce", "car", "donc", "qui", "quand", "lorsque", "ou")),
}
# Only those that begin a phrase of their own, where a speaker may breathe: not "of", "to", "for".
_PREPOSITIONS: Final = {
    "en": frozenset(
        [
            "after",
            "before",
            "behind",
            "between",
            "during",
            "near",
            "over",
            "since",
            "through",
            "under",
            "until",
            "where",
            "with",
            "without",
        ]
    ),
    "fr": frozenset(
        [
            "après",
            "avant",
            "avec",
            "chez",
            "depuis",
            "derrière",
            "devant",
            "entre",
            "où",
            "pendant",
            "sans",
            "sous",
        ]
    ),
}


async def stream_sentences(
    pieces: AsyncGenerator[str, None], language: str = "en"
) -> AsyncGenerator[Sentence, None]:
    """Cut a text into sentences while it comes.

    The first one may end at a clause, so that speech starts early. Nothing is lost or said
    twice, but for white space, Markdown, and runs of more than 40 characters that nobody can
    speak.

    Args:
        pieces: the text in any pieces; closed with this generator.
        language: ISO 639 code.

    Yields:
        Sentences that have a letter or digit and at most ``MAX_CHARS`` characters. The last one
        has no pause. Nothing, when the text has nothing to say.
    """
    cutter = SentenceCutter(language)
    async with aclosing(pieces):
        async for piece in pieces:
            for sentence in cutter.feed(piece):
                yield sentence
        if (last := cutter.finish()) is not None:
            yield last


class SentenceCutter:
    """The same without waiting: fed with text, it returns what is complete.

    Args:
        language: ISO 639 code; an unknown one gets the rules of a related language or English.
    """

    def __init__(self, language: str = "en") -> None:
        self._language = language
        base = language.split("-")[0].lower()
        self._conjunctions = _CONJUNCTIONS.get(base, frozenset())
        self._prepositions = _PREPOSITIONS.get(base, frozenset())
        self._text = ""
        # Length of the text up to its last letter or digit.
        self._spoken = 0
        self._first = True

    def feed(self, piece: str) -> list[Sentence]:
        """Add text; returns the sentences that it completed."""
        done: list[Sentence] = []
        for char in without_surrogates(piece):
            if char.isspace():
                self._add_space(char)
            elif char.isalnum():
                done += self._add_letter(char)
            elif len(self._text) - self._spoken < _RUN:
                self._text += char
        return done

    def finish(self) -> Sentence | None:
        """The rest, when no more text comes; None when nothing of it can be said."""
        text, spoken = self._text, self._spoken
        self._text, self._spoken = "", 0
        return Sentence(_plain(text), 0.0) if spoken else None

    def _add_space(self, char: str) -> None:
        """White space is kept as one space, one line end, or two: a paragraph's."""
        if not self._text or self._text.endswith("\n\n"):
            return
        if not self._text[-1].isspace():
            self._text += "\n" if char == "\n" else " "
        elif char == "\n":
            self._text = self._text.removesuffix(" ") + "\n"

    def _add_letter(self, char: str) -> list[Sentence]:
        """A letter shows whether the characters before it were a boundary."""
        done: list[Sentence] = []
        if self._spoken and (found := self._boundary(char)) is not None:
            done.append(self._cut(*found))
        self._text += char
        self._spoken = len(self._text)
        while len(self._text) > (longest := _FIRST_LONGEST if self._first else _LONGEST):
            done.append(self._cut(self._last_resort(longest), CLAUSE_PAUSE))
        return done

    def _boundary(self, char: str) -> tuple[int, float] | None:
        """Where the text is to be cut before a letter, and the pause there."""
        gap = self._text[self._spoken :]
        if not gap or _LIST_MARKER.fullmatch(self._text):
            return None
        for mark, pause in (("\n\n", PARAGRAPH_PAUSE), ("\n", SENTENCE_PAUSE)):
            if mark in gap:
                return self._spoken + gap.index(mark) + len(mark), pause
        if not gap.isspace():
            *heads, _ = segments(self._text + char, self._language)
            if (cut := sum(map(len, heads))) > self._spoken:
                # A quotation that has only begun looks to sentencex like one that ends here.
                if opening := _OPENING.search(self._text, self._spoken, cut):
                    cut = opening.start()
                return cut, SENTENCE_PAUSE
        return self._clause(gap) if self._first else None

    def _clause(self, gap: str) -> tuple[int, float] | None:
        """Where the first sentence can be cut, so that speech starts early."""
        words = list(_WORD.finditer(self._text))
        if len(words) >= _CLAUSE_WORDS and (end := _CLAUSE_END.search(gap)):
            return self._spoken + end.end(), CLAUSE_PAUSE
        last = words[-1]
        word, before = last.group().lower(), self._text[: last.start()]
        if gap.isspace() and before.endswith(" "):
            conjunction = len(words) > _CONJUNCTION_WORDS and word in self._conjunctions
            preposition = len(words) > _PREPOSITION_WORDS and word in self._prepositions
            if conjunction or preposition:
                return last.start(), CLAUSE_PAUSE
        return None

    def _last_resort(self, longest: int) -> int:
        """Where a text that is too long is cut: after a clause, else a word, else anywhere."""
        ends = [match.end() for match in _CLAUSE_END.finditer(self._text, 0, longest)]
        for cut in (*reversed(ends), self._text.rfind(" ", 0, longest) + 1):
            if _WORD.search(self._text, 0, cut):
                return cut
        return longest

    def _cut(self, position: int, pause: float) -> Sentence:
        head, self._text = self._text[:position], self._text[position:].lstrip()
        self._spoken = max((word.end() for word in _WORD.finditer(self._text)), default=0)
        self._first = False
        return Sentence(_plain(head), pause)


def _plain(text: str) -> str:
    """A sentence on one line, without the Markdown that models write though told not to."""
    return " ".join(_MARKUP.sub("", text).split())
