"""Background, shoulders and clothes. Drawn in face units around the resting head."""

from __future__ import annotations

import skia

from export.demo.people import Person
from export.demo.shapes import (
    Point,
    argb,
    fill,
    linear,
    mirrored,
    mix,
    radial,
    shade,
    smooth,
    spot,
    stroke,
)

BODY_RISE = -0.13  # the body was drawn for a longer neck


def draw_backdrop(canvas: skia.Canvas, person: Person) -> None:
    """A wall in soft light with blurred shapes, wide enough for 16:9."""
    light, dark = person.backdrop
    canvas.drawColor(argb(dark))
    wall = skia.Rect.MakeLTRB(-6, -4, 6, 4)
    canvas.drawRect(wall, radial((-1.0, -1.1), 5.4, [shade(light, 1.25), light, dark]))
    for x, y, r, alpha in (
        (-3.3, -1.5, 0.85, 0.22),
        (3.2, 0.4, 1.15, 0.16),
        (-2.6, 1.4, 0.60, 0.14),
        (2.5, -1.9, 0.50, 0.20),
        (4.2, -0.9, 0.45, 0.18),
    ):
        canvas.drawCircle(x, y, r, fill((255, 255, 255), alpha, 0.10))
    shelf = mix(dark, (60, 50, 50), 0.22)
    canvas.drawRect(skia.Rect.MakeLTRB(2.05, -0.78, 6, -0.70), fill(shelf, 0.35, 0.05))
    for i, tall in enumerate((0.62, 0.50, 0.70, 0.56, 0.44, 0.66)):
        x = 2.35 + i * 0.20
        tone = mix(shelf, light, (0.15, 0.55, 0.30, 0.7, 0.4, 0.2)[i])
        book = skia.Rect.MakeLTRB(x, -0.78 - tall, x + 0.16, -0.78)
        canvas.drawRect(book, fill(tone, 0.45, 0.05))
    _plant(canvas, light, dark)


def _plant(
    canvas: skia.Canvas, light: tuple[float, float, float], dark: tuple[float, float, float]
) -> None:
    green = mix((92, 140, 104), dark, 0.35)
    for x, y, angle, size in (
        (-3.6, 1.1, -62, 1.25),
        (-3.35, 1.2, -95, 1.35),
        (-3.9, 1.3, -128, 1.2),
        (-3.1, 1.45, -38, 0.9),
    ):
        canvas.save()
        canvas.translate(x, y)
        canvas.rotate(angle)
        leaf = smooth([(0, 0), (size * 0.5, -0.24), (size, 0), (size * 0.5, 0.24)])
        canvas.drawPath(leaf, fill(green, 0.50, 0.06))
        canvas.drawLine(0.1, 0, size * 0.9, 0, stroke(mix(green, light, 0.5), 0.03, 0.4, 0.03))
        canvas.restore()


def draw_neck(canvas: skia.Canvas, person: Person) -> None:
    """The neck, with the shadow that the head throws on it."""
    n = person.neck
    right: list[Point] = [
        (0, 0.5),
        (n, 0.55),
        (n * 0.97, 1.1),
        (n * 1.18, 1.48),
        (n * 1.9, 1.72),
        (0, 2.1),
    ]
    path = smooth(mirrored(right))
    tones = [shade(person.skin, 0.97), mix(person.skin, person.skin_shadow, 0.45)]
    canvas.drawPath(path, linear((-n, 0), (n, 0.3), tones))
    canvas.save()
    canvas.clipPath(path, skia.ClipOp.kIntersect, True)
    spot(canvas, (0.04, 0.98), n * 1.9, 0.46, shade(person.skin_shadow, 0.80), 0.85)
    for sign in (-1, 1):
        bone = [(sign * 0.10, 1.80), (sign * 0.40, 1.70), (sign * 0.74, 1.69)]
        canvas.drawPath(smooth(bone, False), stroke(person.skin_shadow, 0.03, 0.45, 0.015))
    canvas.restore()


def draw_clothes(canvas: skia.Canvas, person: Person, lift: float) -> None:
    """Shoulders and what covers them; `lift` is the rise of a breath, in face units."""
    canvas.save()
    canvas.translate(0, -lift)
    canvas.translate(0, 2.4)
    canvas.scale(1 + lift * 0.35, 1 + lift * 0.2)
    canvas.translate(0, -2.4)
    if person.cloth_style == "blazer":
        _blazer(canvas, person)
    elif person.cloth_style == "turtleneck":
        _shoulders(canvas, person, 1.52, person.neck * 1.16)
        _collar(canvas, person)
    else:
        _shoulders(canvas, person, 1.66, person.neck * 1.75)
        n = person.neck * 1.75
        band = [(-n, 1.59), (-n * 0.64, 1.865), (0, 1.975), (n * 0.64, 1.865), (n, 1.59)]
        canvas.drawPath(smooth(band, False), stroke(shade(person.cloth, 0.86), 0.085))
        canvas.drawPath(smooth(band, False), stroke(shade(person.cloth, 1.18), 0.012, 0.6))
    canvas.restore()


def _shoulders(canvas: skia.Canvas, p: Person, top: float, opening: float) -> None:
    width = 1.72 + p.neck * 0.6
    right: list[Point] = [
        (0, top + 0.32),
        (opening * 0.62, top + 0.22),
        (opening, top - 0.06),
        (opening + 0.28, top + 0.06),
        (width * 0.74, 1.86),
        (width * 0.96, 2.18),
        (width * 1.04, 2.75),
        (width * 1.06, 3.6),
        (0, 3.7),
    ]
    path = smooth(mirrored(right), True, 0.9)
    tones = [shade(p.cloth, 1.12), p.cloth, shade(p.cloth, 0.74)]
    canvas.drawPath(path, linear((-width, 1.4), (width, 2.9), tones))
    canvas.save()
    canvas.clipPath(path, skia.ClipOp.kIntersect, True)
    for sign in (-1, 1):
        fold = [(sign * width * 0.80, 2.05), (sign * width * 0.70, 2.5), (sign * width * 0.74, 3.2)]
        canvas.drawPath(smooth(fold, False), stroke(shade(p.cloth, 0.60), 0.07, 0.40, 0.04))
        spot(canvas, (sign * width * 0.62, 1.98), 0.55, 0.14, shade(p.cloth, 1.35), 0.35)
    spot(canvas, (0.05, top + 0.35), 0.9, 0.30, shade(p.cloth, 0.5), 0.42)
    canvas.restore()


def _collar(canvas: skia.Canvas, p: Person) -> None:
    n = p.neck * 1.16
    right: list[Point] = [
        (0, 1.34),
        (n * 0.7, 1.30),
        (n, 1.22),
        (n * 1.08, 1.5),
        (n * 1.2, 1.74),
        (0, 1.86),
    ]
    path = smooth(mirrored(right), True, 0.8)
    tones = [shade(p.cloth, 1.06), shade(p.cloth, 1.02), shade(p.cloth, 0.70)]
    canvas.drawPath(path, linear((-n, 1.3), (n, 1.5), tones))
    for i in range(-6, 7):
        x = i / 6.5 * n
        rib = [(x, 1.33 - 0.09 * abs(i / 6.5) ** 2), (x * 1.12, 1.80 - 0.10 * abs(i / 6.5))]
        canvas.drawPath(smooth(rib, False), stroke(shade(p.cloth, 0.72), 0.018, 0.40, 0.006))
    top = [(-n * 0.96, 1.245), (-n * 0.6, 1.315), (0, 1.345), (n * 0.6, 1.315), (n * 0.96, 1.245)]
    canvas.drawPath(smooth(top, False), stroke(shade(p.cloth, 1.22), 0.03, 0.7))


def _blazer(canvas: skia.Canvas, p: Person) -> None:
    # shirt first, then jacket with lapels over it
    shirt = skia.Path()
    n = p.neck
    shirt.addPoly(
        [
            skia.Point(*q)
            for q in ((-n * 1.5, 1.42), (n * 1.5, 1.42), (n * 2.0, 3.6), (-n * 2.0, 3.6))
        ],
        True,
    )
    canvas.save()
    hole = skia.Path()
    hole.addPoly([skia.Point(*q) for q in ((-n * 0.86, 1.2), (n * 0.86, 1.2), (0, 1.98))], True)
    canvas.clipPath(hole, skia.ClipOp.kDifference, True)
    white = p.cloth_under
    canvas.drawPath(shirt, linear((-1, 1.4), (1, 2.4), [white, shade(white, 0.88)]))
    canvas.restore()
    width = 1.98
    for sign in (-1, 1):
        side: list[Point] = [
            (sign * n * 1.10, 1.42),
            (sign * (n * 1.45), 1.40),
            (sign * width * 0.72, 1.76),
            (sign * width * 0.97, 2.06),
            (sign * width * 1.06, 2.7),
            (sign * width * 1.08, 3.6),
            (0, 3.7),
            (sign * 0.02, 2.95),
            (sign * n * 0.66, 2.1),
        ]
        path = smooth(side, True, 0.7)
        lit = 1.14 if sign < 0 else 0.92
        tones = [shade(p.cloth, lit), shade(p.cloth, 0.78)]
        canvas.drawPath(path, linear((sign * 0.2, 1.5), (sign * width, 3.0), tones))
        lapel = skia.Path()
        points = (
            (sign * n * 0.98, 1.40),
            (sign * n * 1.62, 1.62),
            (sign * n * 1.92, 2.02),
            (sign * n * 1.56, 2.08),
            (sign * n * 1.66, 2.22),
            (sign * 0.03, 3.05),
            (sign * n * 0.62, 2.05),
        )
        lapel.addPoly([skia.Point(*q) for q in points], True)
        canvas.drawPath(lapel, stroke((10, 12, 20), 0.05, 0.35, 0.03))
        canvas.drawPath(lapel, fill(shade(p.cloth, lit * 1.04 if sign < 0 else 1.02)))
        canvas.drawPath(lapel, stroke(shade(p.cloth, 0.62), 0.012, 0.8))
        collar = skia.Path()
        wing = (
            (sign * n * 0.98, 1.26),
            (sign * n * 1.16, 1.44),
            (sign * n * 0.80, 1.92),
            (sign * 0.02, 1.88),
            (sign * n * 0.70, 1.52),
        )
        collar.addPoly([skia.Point(*q) for q in wing], True)
        canvas.drawPath(collar, stroke((90, 96, 110), 0.03, 0.35, 0.02))
        canvas.drawPath(collar, fill(white if sign < 0 else shade(white, 0.95)))
        canvas.drawPath(collar, stroke(shade(white, 0.8), 0.010, 0.9))
    tie = skia.Path()
    tie.addPoly(
        [
            skia.Point(*q)
            for q in (
                (-0.10, 1.86),
                (0.10, 1.86),
                (0.08, 2.05),
                (0.16, 3.3),
                (-0.16, 3.3),
                (-0.08, 2.05),
            )
        ],
        True,
    )
    canvas.drawPath(tie, linear((-0.15, 0), (0.15, 0), [(150, 66, 72), (118, 44, 54)]))
    canvas.drawLine(-0.08, 2.05, 0.08, 2.05, stroke((92, 32, 42), 0.014, 0.8))
