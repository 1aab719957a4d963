"""Small drawing vocabulary over Skia: smooth curves, gradients, soft spots.

All coordinates are in the canvas's current units; colours are RGB triples of 0 to 255 with an
alpha of 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import skia

RGB = tuple[float, float, float]
Point = tuple[float, float]


def mix(a: RGB, b: RGB, t: float) -> RGB:
    """Colour between `a` (t = 0) and `b` (t = 1)."""
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def shade(colour: RGB, factor: float) -> RGB:
    """The colour made darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
    return mix(colour, (255.0, 255.0, 255.0), factor - 1)


def argb(colour: RGB, alpha: float = 1.0) -> int:
    """The colour as Skia's packed integer."""
    r, g, b = (max(0, min(255, round(v))) for v in colour)
    return int(skia.ColorSetARGB(max(0, min(255, round(alpha * 255))), r, g, b))


def fill(colour: RGB, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A filling paint; `blur` is the standard deviation of its soft edge."""
    paint = skia.Paint(AntiAlias=True, Color=argb(colour, alpha))
    if blur > 0:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, blur))
    return paint


def stroke(colour: RGB, width: float, alpha: float = 1.0, blur: float = 0.0) -> skia.Paint:
    """A stroking paint with round ends."""
    paint = fill(colour, alpha, blur)
    paint.setStyle(skia.Paint.kStroke_Style)
    paint.setStrokeWidth(width)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    paint.setStrokeJoin(skia.Paint.kRound_Join)
    return paint


def linear(
    start: Point, end: Point, colours: Sequence[RGB], alphas: Sequence[float] | None = None
) -> skia.Paint:
    """A paint with a straight gradient of evenly spaced colours."""
    alphas = alphas or [1.0] * len(colours)
    packed = [argb(c, a) for c, a in zip(colours, alphas, strict=True)]
    shader = skia.GradientShader.MakeLinear([skia.Point(*start), skia.Point(*end)], packed)
    return skia.Paint(AntiAlias=True, Shader=shader)


def radial(
    centre: Point, radius: float, colours: Sequence[RGB], alphas: Sequence[float] | None = None
) -> skia.Paint:
    """A paint with a round gradient of evenly spaced colours, from the centre outwards."""
    alphas = alphas or [1.0] * len(colours)
    packed = [argb(c, a) for c, a in zip(colours, alphas, strict=True)]
    shader = skia.GradientShader.MakeRadial(skia.Point(*centre), radius, packed)
    return skia.Paint(AntiAlias=True, Shader=shader)


def spot(
    canvas: skia.Canvas, centre: Point, rx: float, ry: float, colour: RGB, alpha: float
) -> None:
    """A soft elliptic spot that fades to nothing: blush, highlights, soft shadows."""
    canvas.save()
    canvas.translate(*centre)
    canvas.scale(rx, ry)
    paint = radial((0, 0), 1.0, [colour, colour, colour], [alpha, alpha * 0.45, 0.0])
    canvas.drawCircle(0, 0, 1, paint)
    canvas.restore()


def smooth(points: Sequence[Point], closed: bool = True, tension: float = 1.0) -> skia.Path:
    """The Catmull-Rom curve through `points` as a path of cubic pieces."""
    n = len(points)
    path = skia.Path()
    path.moveTo(*points[0])
    for i in range(n if closed else n - 1):
        before = points[(i - 1) % n] if closed or i > 0 else points[0]
        here, there = points[i], points[(i + 1) % n]
        after = points[(i + 2) % n] if closed or i + 2 < n else points[n - 1]
        k = tension / 6
        path.cubicTo(
            here[0] + (there[0] - before[0]) * k,
            here[1] + (there[1] - before[1]) * k,
            there[0] - (after[0] - here[0]) * k,
            there[1] - (after[1] - here[1]) * k,
            there[0],
            there[1],
        )
    if closed:
        path.close()
    return path


def mirrored(right: Sequence[Point]) -> list[Point]:
    """A closed outline from its right half, given from top to bottom, both ends on the axis."""
    return [*right, *[(-x, y) for x, y in reversed(right[1:-1])]]
