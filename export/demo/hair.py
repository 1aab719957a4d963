"""Hair in three styles, each in two layers: behind the body and over the face."""

from __future__ import annotations

import math

import skia

from export.demo.people import Person
from export.demo.shapes import Point, linear, mirrored, radial, shade, smooth, spot, stroke


def draw_back(canvas: skia.Canvas, person: Person) -> None:
    """The hair that lies behind neck and face."""
    p = person
    if p.hair_style == "curls":
        dark = shade(p.hair, 0.85)
        for x, y, r in _curls():
            canvas.drawCircle(x, y, r, radial((x - r * 0.3, y - r * 0.4), r * 1.5, [p.hair, dark]))
        _curl_lights(canvas, p, _curls())
    elif p.hair_style == "bob":
        right: list[Point] = [
            (0, -1.66),
            (0.55, -1.57),
            (0.93, -1.18),
            (1.06, -0.55),
            (1.08, 0.15),
            (1.02, 0.72),
            (0.86, 0.96),
            (0.52, 1.00),
            (0, 0.9),
        ]
        tones = [shade(p.hair, 1.10), p.hair, shade(p.hair, 0.66)]
        canvas.drawPath(smooth(mirrored(right)), linear((0, -1.5), (0, 1.0), tones))
    else:
        right = [(0, -1.52), (0.5, -1.45), (0.86, -1.08), (0.93, -0.5), (0.86, 0.05), (0, 0.2)]
        canvas.drawPath(
            smooth(mirrored(right)), linear((0, -1.5), (0, 0), [p.hair, shade(p.hair, 0.7)])
        )


def draw_front(canvas: skia.Canvas, person: Person, face: skia.Path) -> None:
    """The hair that frames the face, with its soft shadow on the skin."""
    if person.hair_style == "curls":
        _front_curls(canvas, person, face)
    elif person.hair_style == "bob":
        _front_bob(canvas, person, face)
    else:
        _front_short(canvas, person, face)


def _curls() -> list[tuple[float, float, float]]:
    """Circles of a round head of curls: x, y, radius; always the same."""
    spots = []
    for ring, (radius, count, size) in enumerate(
        ((1.18, 23, 0.27), (0.98, 18, 0.32), (0.7, 12, 0.42))
    ):
        for i in range(count):
            angle = math.radians(148 + 244 * i / (count - 1))
            wobble = 1 + 0.045 * math.sin(i * 2.4 + ring * 1.3)
            x = radius * wobble * math.cos(angle)
            y = -0.52 + radius * wobble * 1.02 * math.sin(angle)
            spots.append((x, y, size * (1 + 0.12 * math.sin(i * 1.7 + ring))))
    return spots


def _strands(
    canvas: skia.Canvas, person: Person, lines: list[list[Point]], width: float, alpha: float
) -> None:
    for i, line in enumerate(lines):
        tone = person.hair_light if i % 2 == 0 else shade(person.hair, 0.6)
        canvas.drawPath(smooth(line, False), stroke(tone, width, alpha))


def _front_curls(canvas: skia.Canvas, p: Person, face: skia.Path) -> None:
    row = []
    for i in range(13):
        angle = math.radians(171 + 198 * i / 12)
        edge = 1 + 0.035 * math.sin(i * 2.1)
        row.append((0.83 * edge * math.cos(angle), -0.62 + 0.63 * edge * math.sin(angle), 0.185))
    canvas.save()
    canvas.clipPath(face, skia.ClipOp.kIntersect, True)
    for x, y, r in row:
        spot(canvas, (x, y + 0.09), r * 1.45, r * 1.45, p.skin_shadow, 0.55)
    canvas.restore()
    crown = [(x, y - 0.22, r * 1.2) for x, y, r in row[1:-1]]
    for x, y, r in [*crown, *row]:
        dark = shade(p.hair, 0.80)
        canvas.drawCircle(x, y, r, radial((x - r * 0.35, y - r * 0.45), r * 1.4, [p.hair, dark]))
    _curl_lights(canvas, p, [*crown, *row])


def _curl_lights(canvas: skia.Canvas, p: Person, curls: list[tuple[float, float, float]]) -> None:
    outer, inner = stroke(p.hair_light, 0.022, 0.50), stroke(p.hair_light, 0.016, 0.32)
    for i, (x, y, r) in enumerate(curls):
        arc = skia.Rect.MakeLTRB(x - r * 0.62, y - r * 0.62, x + r * 0.62, y + r * 0.62)
        canvas.drawArc(arc, 190 + 40 * math.sin(i), 120, False, outer)
        small = skia.Rect.MakeLTRB(x - r * 0.30, y - r * 0.30, x + r * 0.34, y + r * 0.34)
        canvas.drawArc(small, 20 + 60 * math.sin(i * 2), 170, False, inner)


def _front_bob(canvas: skia.Canvas, p: Person, face: skia.Path) -> None:
    # a side parting: a big sweep to the right of the picture, a smaller one to the left
    sweep: list[Point] = [
        (-0.24, -1.60),
        (0.30, -1.62),
        (0.78, -1.36),
        (1.02, -0.80),
        (1.07, -0.10),
        (1.05, 0.55),
        (0.94, 0.88),
        (0.80, 0.80),
        (0.84, 0.40),
        (0.855, -0.10),
        (0.78, -0.55),
        (0.48, -0.92),
        (0.05, -1.18),
    ]
    small: list[Point] = [
        (-0.20, -1.61),
        (-0.58, -1.50),
        (-0.93, -1.12),
        (-1.06, -0.50),
        (-1.07, 0.20),
        (-1.02, 0.72),
        (-0.90, 0.90),
        (-0.79, 0.78),
        (-0.83, 0.35),
        (-0.84, -0.15),
        (-0.79, -0.58),
        (-0.60, -0.92),
        (-0.36, -1.20),
    ]
    canvas.save()
    canvas.clipPath(face, skia.ClipOp.kIntersect, True)
    canvas.translate(0, 0.06)
    for half in (sweep, small):
        canvas.drawPath(smooth(half), stroke(p.skin_shadow, 0.13, 0.55, 0.055))
    canvas.restore()
    for half, side in ((sweep, 1), (small, -1)):
        tones = [shade(p.hair, 1.08), shade(p.hair, 1.16), p.hair, shade(p.hair, 0.72)]
        path = smooth(half)
        canvas.drawPath(path, linear((side * 0.1, -1.6), (side * 0.95, 0.85), tones))
        canvas.save()
        canvas.clipPath(path, skia.ClipOp.kIntersect, True)
        lines = []
        for i in range(9):
            t = i / 8
            lines.append(
                [
                    (-0.22, -1.60 + t * 0.05),
                    (side * (0.30 + 0.42 * t) - 0.08, -1.40 + 0.26 * (1 - t)),
                    (side * (0.78 + 0.24 * t), -0.75 + 0.12 * (1 - t)),
                    (side * (0.85 + 0.20 * t), 0.10),
                    (side * (0.82 + 0.16 * t), 0.86),
                ]
            )
        _strands(canvas, p, lines, 0.020, 0.26)
        spot(canvas, (side * 0.72, -0.92), 0.42, 0.16, p.hair_light, 0.55)
        canvas.restore()


def _front_short(canvas: skia.Canvas, p: Person, face: skia.Path) -> None:
    top: list[Point] = [
        (-0.88, -0.30),
        (-0.93, -0.72),
        (-0.84, -1.16),
        (-0.52, -1.50),
        (-0.02, -1.62),
        (0.46, -1.56),
        (0.82, -1.22),
        (0.93, -0.74),
        (0.88, -0.30),
        (0.81, -0.36),
        (0.79, -0.72),
        (0.66, -0.96),
        (0.36, -1.08),
        (-0.02, -1.17),
        (-0.36, -1.12),
        (-0.60, -0.99),
        (-0.77, -0.76),
        (-0.81, -0.36),
    ]
    path = smooth(top)
    canvas.save()
    canvas.clipPath(face, skia.ClipOp.kIntersect, True)
    canvas.translate(0, 0.05)
    canvas.drawPath(path, stroke(p.skin_shadow, 0.10, 0.50, 0.05))
    canvas.restore()
    tones = [shade(p.hair, 1.22), p.hair, shade(p.hair, 0.74)]
    canvas.drawPath(path, linear((-0.4, -1.6), (0.6, -0.3), tones))
    canvas.save()
    canvas.clipPath(path, skia.ClipOp.kIntersect, True)
    lines = []
    for i in range(22):
        t = i / 21
        root = (-0.66 + 1.32 * t, -1.02 - 0.16 * math.sin(math.pi * t))
        lines.append(
            [
                root,
                (root[0] * 1.02 - 0.10, root[1] - 0.22),
                (root[0] * 0.95 - 0.16 + 0.2 * t, root[1] - 0.46),
            ]
        )
    for sign in (-1, 1):
        for i in range(8):
            x = sign * (0.80 + 0.018 * i)
            lines.append([(x, -0.98 + i * 0.02), (x * 1.02, -0.66), (x, -0.34)])
    _strands(canvas, p, lines, 0.022, 0.42)
    spot(canvas, (-0.25, -1.40), 0.48, 0.16, p.hair_light, 0.6)
    canvas.restore()
