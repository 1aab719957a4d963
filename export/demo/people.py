"""The people drawn by this project: shapes and colours. None of them is anybody.

Lengths are in face units: 1 is the distance from the middle of the nose bridge, which is the
origin, to the chin; x grows to the right of the picture, y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from export.demo.shapes import RGB


@dataclass(frozen=True)
class Person:
    """How one portrait looks. Widths are half widths, in face units."""

    name: str
    title: str
    age: int
    skin: RGB
    skin_shadow: RGB
    blush: RGB
    lip: RGB
    hair: RGB
    hair_light: RGB
    brow: RGB
    iris: RGB
    cloth: RGB
    cloth_under: RGB
    backdrop: tuple[RGB, RGB]
    hair_style: str
    cloth_style: str
    temple: float = 0.80
    cheek: float = 0.84
    jaw: float = 0.66
    chin: float = 0.27
    eye: float = 0.175
    eye_height: float = 0.098
    eye_tilt: float = 0.02
    lash: float = 0.03
    brow_weight: float = 0.047
    nose: float = 0.15
    mouth: float = 0.275
    lip_fullness: float = 1.0
    glasses: bool = False
    earrings: bool = False
    wrinkles: float = 0.0
    stubble: float = 0.0
    neck: float = 0.40


AMARA = Person(
    name="amara", title="Amara", age=28,
    skin=(158, 101, 69), skin_shadow=(104, 58, 42), blush=(190, 84, 66), lip=(150, 62, 66),
    hair=(38, 25, 24), hair_light=(96, 62, 50), brow=(34, 22, 20), iris=(84, 48, 26),
    cloth=(232, 168, 56), cloth_under=(250, 240, 222), backdrop=((214, 232, 228), (146, 186, 186)),
    hair_style="curls", cloth_style="crew",
    temple=0.79, cheek=0.83, jaw=0.66, chin=0.27, eye=0.198, eye_height=0.118, lash=0.04,
    nose=0.17, mouth=0.30, lip_fullness=1.25, earrings=True, neck=0.38,
)  # fmt: skip

HENRIK = Person(
    name="henrik", title="Henrik", age=56,
    skin=(236, 190, 162), skin_shadow=(188, 126, 102), blush=(224, 130, 112), lip=(186, 104, 98),
    hair=(150, 150, 154), hair_light=(214, 214, 218), brow=(116, 110, 108), iris=(86, 124, 156),
    cloth=(46, 66, 104), cloth_under=(240, 243, 248), backdrop=((236, 229, 218), (190, 172, 152)),
    hair_style="short", cloth_style="blazer",
    temple=0.84, cheek=0.86, jaw=0.76, chin=0.34, eye=0.172, eye_height=0.086, eye_tilt=-0.012,
    lash=0.018, brow_weight=0.062, nose=0.175, mouth=0.305, lip_fullness=0.85, glasses=True,
    wrinkles=1.0, stubble=0.22, neck=0.50,
)  # fmt: skip

MEI = Person(
    name="mei", title="Mei", age=35,
    skin=(248, 213, 184), skin_shadow=(214, 152, 122), blush=(240, 136, 122), lip=(206, 86, 92),
    hair=(44, 34, 40), hair_light=(104, 84, 98), brow=(58, 44, 44), iris=(66, 42, 30),
    cloth=(64, 128, 124), cloth_under=(240, 236, 226), backdrop=((246, 226, 218), (216, 170, 164)),
    hair_style="bob", cloth_style="turtleneck",
    temple=0.80, cheek=0.85, jaw=0.67, chin=0.26, eye=0.192, eye_height=0.100, eye_tilt=0.03,
    lash=0.034, brow_weight=0.042, nose=0.135, mouth=0.265, lip_fullness=1.0, neck=0.36,
)  # fmt: skip

PEOPLE: tuple[Person, ...] = (AMARA, HENRIK, MEI)


def person(name: str) -> Person:
    """The person of that name.

    Raises:
        NotFoundError: nobody is called that.
    """
    from orchestrator.errors import NotFoundError

    for one in PEOPLE:
        if one.name == name:
            return one
    names = ", ".join(p.name for p in PEOPLE)
    raise NotFoundError(f"There is no drawn portrait called {name!r}.", remedy=f"one of: {names}")
