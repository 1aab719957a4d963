from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.replies.sentences import MAX_CHARS, Sentence
from orchestrator.replies.stream import SentenceCutter, stream_sentences

LANGUAGES = st.sampled_from(["en", "fr", "zh", "xx"])
WORDS = st.lists(
    st.sampled_from(
        ["Hello", "Dr.", "3.5", "world.", "why?", "« Oui. »", "and", "et", "“Go.”", "well,", "—",
         "one;", "\n", "\n\n", "1.", "- item", "...", "🎉", "(e.g.", "this)", "J.", "M.", "你好。"]
    ),
    max_size=80,
).map(" ".join)  # fmt: skip


def cut(text: str, language: str = "en", *, size: int = 10_000) -> list[Sentence]:
    cutter = SentenceCutter(language)
    found = []
    for start in range(0, len(text), size):
        found += cutter.feed(text[start : start + size])
    last = cutter.finish()
    return [*found, last] if last else found


def texts(text: str, language: str = "en") -> list[str]:
    return [sentence.text for sentence in cut(text, language)]


def bare(text: str) -> str:
    """Without white space, and the dashes that may have been those of a list."""
    return re.sub(r"[\s-]", "", text)


def test_english() -> None:
    assert texts(
        "I think that Dr. Smith paid 3.14 dollars, as you know. Why? Nobody knows, they say!"
    ) == [
        "I think that Dr. Smith paid 3.14 dollars,",
        "as you know.",
        "Why?",
        "Nobody knows, they say!",
    ]


def test_french() -> None:
    assert texts(
        "Bien sûr, je peux vous aider ! M. Dupont est là. « Très bien. » Ça va ? Oui.", "fr"
    ) == [
        "Bien sûr, je peux vous aider !",
        "M. Dupont est là.",
        "« Très bien. »",
        "Ça va ?",
        "Oui.",
    ]


@pytest.mark.parametrize(
    "sentences",
    [
        ["M. Dupont et Mme. Durand sont là.", "Bien."],
        ["Voici le Dr. Martin.", "Il est né en janv. 1950 à la S.N.C.F. de Paris.", "Bien."],
        ["Le prix est de 3,50 €.", "C'est 12 %.", "Il fait 20 °.", "Bien."],
    ],
)
def test_french_abbreviations_and_units_stay_with_their_sentence(sentences: list[str]) -> None:
    assert texts(" ".join(sentences), "fr") == sentences


def test_the_first_piece_is_short_and_only_the_first() -> None:
    long = (
        "I would like to tell you about the history of the city because it is nice, as you see, "
        "and because it is very long."
    )
    first, second = texts(f"{long} {long}")[:2]
    assert first == "I would like to tell you about the history of the city"
    assert second.startswith("because") and second.endswith("long.")
    assert len(texts("word " * 200)[0]) <= 120


@pytest.mark.parametrize(
    ("text", "language", "first"),
    [
        (
            "You asked: My favourite part of the city is the old market behind the station.",
            "en",
            "You asked: My favourite part of the city is the old market",
        ),
        (
            "Le plus beau quartier de toute la vieille ville est le marché derrière la gare.",
            "fr",
            "Le plus beau quartier de toute la vieille ville est le marché",
        ),
        ("The old market behind the station is nice.", "en", None),  # short enough as it is
        ("One two three four five six seven eight nine ten things to begin with.", "en", None),
    ],
)
def test_a_long_first_sentence_may_end_before_a_preposition(
    text: str, language: str, first: str | None
) -> None:
    assert texts(text, language)[0] == (first or text)
    # Not a later one, of which there is time to hear the end.
    assert texts(f"Oui. {text}", language)[1] == text


def test_lists_and_paragraphs() -> None:
    found = cut("Two things:\n1. The first one\n2. The second one\n\nThat is all.")
    assert [sentence.text for sentence in found] == [
        "Two things:",
        "1. The first one",
        "2. The second one",
        "That is all.",
    ]
    assert found[1].pause < found[2].pause
    assert found[-1].pause == 0


def test_markup_is_not_spoken() -> None:
    text = (
        "# Paris\n\n**Paris** is *nice*, as `they` say.\n- One thing\n* 3 * 4 is 12, snake_case too"
    )
    assert texts(text) == [
        "Paris",
        "Paris is nice, as they say.",
        "One thing",
        "3 * 4 is 12, snake_case too",
    ]


def test_nothing_to_say() -> None:
    assert cut(" ... !? \n\n 🎉") == []
    assert cut("Fine. 🎉 ...") == [Sentence("Fine. 🎉 ...", 0.0)]


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert texts("Well \ud83d then. Yes.") == ["Well \ufffd then.", "Yes."]


@given(st.one_of(st.text(max_size=1500), WORDS), LANGUAGES)
def test_no_letter_is_lost_or_repeated(text: str, language: str) -> None:
    found = texts(text, language)
    assert re.sub(r"[\W_]", "", "".join(found)) == re.sub(r"[\W_]", "", text)
    for sentence in found:
        assert len(sentence) <= MAX_CHARS and re.search(r"[^\W_]", sentence)
        assert sentence == " ".join(sentence.split())


@given(WORDS, LANGUAGES)
def test_nothing_is_lost_but_white_space(text: str, language: str) -> None:
    found = texts(text, language)
    if re.search(r"[^\W_]", text):
        runs = max(map(len, re.findall(r"[\W_]+", text)), default=0)
        assert runs > 40 or bare("".join(found)) == bare(text)
    else:
        assert found == []


@given(st.one_of(st.text(max_size=300), WORDS), LANGUAGES, st.integers(1, 20))
def test_how_the_text_is_cut_on_its_way_makes_no_difference(text, language, size: int) -> None:
    assert cut(text, language, size=size) == cut(text, language)


async def test_a_sentence_does_not_wait_for_the_rest_of_the_text() -> None:
    more, closed = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            yield "One is done. T"
            await more.wait()
            yield "wo too."
        finally:
            closed.set()

    stream = stream_sentences(pieces())
    assert await asyncio.wait_for(anext(stream), 5) == Sentence("One is done.", 0.25)
    more.set()
    assert [sentence async for sentence in stream] == [Sentence("Two too.", 0.0)]
    assert closed.is_set()


@pytest.mark.parametrize("how", ["close", "error"])
async def test_the_source_ends_with_it(how: str) -> None:
    closed = asyncio.Event()

    async def pieces() -> AsyncGenerator[str, None]:
        try:
            yield "One is done. T"
            if how == "error":
                raise ValueError
            await asyncio.sleep(60)
        finally:
            closed.set()

    stream = stream_sentences(pieces())
    await anext(stream)
    if how == "error":
        with pytest.raises(ValueError):
            await anext(stream)
    else:
        await stream.aclose()
    assert closed.is_set()
