"""Sentences for the training speech, written for this project: free of anybody's rights.

A fixed list for each language covers rare sounds; a small grammar makes as many more as wanted.
"""

from __future__ import annotations

import numpy as np

ENGLISH = tuple(
    """The boat left the harbour before sunrise.|Please bring a warm blanket for the baby.
My brother plays the piano every evening.|We found a small purple shell on the beach.
Who put the blue book above the window?|Five boys jumped over the muddy puddle.
Could you show me the way to the station?|She poured a cup of coffee and opened the letter.
Our team moved to a new office last month.|A happy crowd waited for the famous singer.
You should choose the food that you like.|Paper boats float down the quiet river.
I would love to hear about your journey.|The judge asked a very simple question.
Fresh bread smells wonderful in the morning.|He thought about the problem for an hour.
Maybe we could meet on Wednesday afternoon.|The moon was full and the road was empty.
Hello, how may I help you today?|Your parcel will arrive between two and four o'clock.
That was a good example of a bad idea.|Put the apples and bananas in the brown bag.
The museum opens at half past eight.|We saw a fox jump through the thick fog.
Thank you very much for your patience.|I have moved your appointment to Thursday.
Bob and Pam will both be home by five.|They chose a pure white marble for the floor.
Vivid flowers grew around the village fountain.|The ship sailed south past the sharp rocks.
No one knows who owns the yellow house.|Each child should wash both hands before lunch.
Open the door and let the warm air in.|The price of oil rose above the average.
My mother made marmalade for the whole family.|Even five very brave wives arrived above the cave.
Whoever knew the truth would never tell.|Look how the cook took a good book.
Few new shoes suit you, do they?|Measure the pleasure of a casual vision.
Mop up the map, Pip, then pump the pipe.|Ah, how calm the far barn was after dark.""".replace(
        "\n", "|"
    ).split("|")
)
FRENCH = tuple(
    """Bonjour, comment puis-je vous aider aujourd'hui ?|Le bateau quitte le port avant l'aube.
Ma petite soeur aime beaucoup la musique.|Nous avons vu un beau papillon bleu.
Pourriez-vous m'indiquer le chemin de la gare ?|Il fait froid, mais le ciel est pur.
Un bon pain chaud sent merveilleusement bon.|Vous avez une nouvelle voiture rouge.
La lune brille au-dessus de la rue vide.|Mon ami habite pres du vieux pont.
Tu as vu ou il a mis les pommes ?|Merci beaucoup pour votre patience.""".replace("\n", "|").split(
        "|"
    )
)
_ENGLISH_CLAUSES = (
    [
        "my neighbour",
        "the young pilot",
        "a clever fox",
        "our old friend",
        "the woman in blue",
        "every student",
        "the baker",
        "a quiet man",
        "the first visitor",
        "your uncle",
        "the whole village",
        "a famous painter",
        "somebody I know",
        "the captain",
        "two small boys",
        "the new doctor",
    ],
    [
        "bought",
        "found",
        "moved",
        "opened",
        "watched",
        "forgot",
        "measured",
        "brought",
        "painted",
        "loved",
        "fixed",
        "showed us",
        "threw away",
        "put down",
        "asked about",
        "paid for",
        "removed",
        "chose",
        "wrote about",
        "washed",
    ],
    [
        "a bowl of soup",
        "the heavy box",
        "five yellow lamps",
        "some fresh bread",
        "the wooden bridge",
        "a map of Rome",
        "an open window",
        "the broken piano",
        "a very big umbrella",
        "both answers",
        "the silver watch",
        "a purple shoe",
        "warm apple juice",
        "the garden chair",
        "a cheap phone",
        "every empty bottle",
        "the morning paper",
    ],
    [
        "before lunch",
        "on the way home",
        "near the harbour",
        "last Wednesday",
        "without a word",
        "in the warm room",
        "for the third time",
        "above the river",
        "this morning",
        "by the village pump",
        "through the thick fog",
        "when it was over",
        "at half past four",
        "with a smile",
        "because of the weather",
        "over the moon",
    ],
)
_FRENCH_CLAUSES = (
    [
        "ma voisine",
        "le jeune pilote",
        "un renard habile",
        "notre vieil ami",
        "la femme en bleu",
        "chaque étudiant",
        "le boulanger",
        "un homme tranquille",
        "la première visiteuse",
        "mon oncle",
        "tout le village",
        "un peintre célèbre",
        "la capitaine",
        "le nouveau médecin",
        "Paul",
        "son beau-père",
        "une bonne équipe",
        "le facteur",
        "l'ambassadrice",
        "ce gros chien",
    ],
    [
        "a acheté",
        "a trouvé",
        "a bougé",
        "a ouvert",
        "regardait",
        "a oublié",
        "mesurait",
        "a rapporté",
        "peignait",
        "aimait bien",
        "a réparé",
        "nous a montré",
        "jetait",
        "a posé",
        "a payé",
        "a enlevé",
        "choisira",
        "lavait",
        "emportera",
        "a promis",
    ],
    [
        "un bol de soupe",
        "la lourde boîte",
        "cinq lampes jaunes",
        "du pain frais",
        "le pont de bois",
        "une carte de Rome",
        "une fenêtre ouverte",
        "le piano cassé",
        "un grand parapluie",
        "les deux réponses",
        "la montre en argent",
        "une chaussure pourpre",
        "du jus de pomme",
        "la chaise du jardin",
        "un téléphone pas cher",
        "chaque bouteille vide",
        "le journal du matin",
        "beaucoup de fromage",
        "un peu de beurre",
        "des habits trop larges",
    ],
    [
        "avant le repas",
        "sur le chemin du retour",
        "près du port",
        "mercredi dernier",
        "sans un mot",
        "dans la chambre chaude",
        "pour la troisième fois",
        "au-dessus de la rivière",
        "ce matin",
        "à la pompe du village",
        "malgré la brume",
        "quand tout fut fini",
        "à quatre heures et demie",
        "avec un sourire",
        "à cause de la pluie",
        "au mois d'août",
    ],
)
"""Only for training: what is held out in French are sentences of the fixed list."""


def sentence(rng: np.random.Generator, language: str, held_out: bool) -> str:
    """One sentence; those for evaluation are never those for training.

    Args:
        rng: source of chance.
        language: "en" or "fr".
        held_out: for evaluation: every fifth of the fixed ones, other clauses of the English
            grammar.
    """
    if (language == "fr" and held_out) or rng.random() < 0.45:
        pool = FRENCH if language == "fr" else ENGLISH
        mine = [s for i, s in enumerate(pool) if (i % 5 == 4) == held_out]
        return str(rng.choice(mine)).strip()
    parts = []
    for words in _FRENCH_CLAUSES if language == "fr" else _ENGLISH_CLAUSES:
        mine = [w for i, w in enumerate(words) if (i % 4 == 3) == held_out or language == "fr"]
        parts.append(str(rng.choice(mine)))
    text = " ".join(parts)
    return text[0].upper() + text[1:] + "."
