from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.replies.sentences import MAX_CHARS, Sentence, split_sentences


def texts(text: str, language: str = "en") -> list[str]:
    return [sentence.text for sentence in split_sentences(text, language)]


def test_abbreviations_and_numbers_do_not_end_a_sentence() -> None:
    assert texts("Dr. Smith paid 3.14 dollars. Why? Nobody knows!") == [
        "Dr. Smith paid 3.14 dollars.",
        "Why?",
        "Nobody knows!",
    ]


def test_other_languages() -> None:
    assert texts("Bonjour M. Dupont. Comment allez-vous ?", "fr") == [
        "Bonjour M. Dupont.",
        "Comment allez-vous ?",
    ]
    assert texts("你好。世界。", "zh") == ["你好。", "世界。"]


FRENCH = [
    "M. Dupont et Mme. Durand sont là.",
    "Le Dr. Martin habite bd. Foch, à 10 h. 30 en janv. 2024, cf. p. 12.",
    "La S.N.C.F. est née en 1938.",
    "J.-C. Dusse dort.",
    "Il est 10 h.",
    "Le prix est de 3,50 €.",
    "C'est 12 %.",
    "Il fait 20 °.",
    "Oui !",
]


def test_french_abbreviations() -> None:
    assert texts(" ".join(FRENCH), "fr") == FRENCH


def test_pauses_grow_with_the_boundary_and_end_with_the_text() -> None:
    first, second, third = split_sentences("One. Two.\n\nThree.")
    assert 0 < first.pause < second.pause
    assert third == Sentence("Three.", 0.0)


def test_nothing_to_say() -> None:
    assert split_sentences(" \n\n ... !? \n") == []


def test_long_sentences_are_cut_at_a_comma() -> None:
    long = "word " * 40 + "and a comma, " + "word " * 60
    first, *rest = texts(long)
    assert first.endswith("comma,")
    assert all(len(part) <= MAX_CHARS for part in [first, *rest])


@given(st.text(max_size=1500))
def test_no_letter_is_lost_or_added(text: str) -> None:
    said = "".join(texts(text))
    letters = re.sub(r"[\W_]", "", text)
    assert re.sub(r"[\W_]", "", said) == letters
    assert all(0 < len(sentence.text) <= MAX_CHARS for sentence in split_sentences(text))
