"""The mouth: six parameters, its geometry, and how it is drawn."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import skia
from numpy.typing import NDArray

from export.demo.people import Person
from export.demo.shapes import Point, fill, linear, mix, radial, shade, smooth, spot, stroke

MOUTH_Y = 0.475  # height of the mouth's closing line below the nose bridge, in face units


@dataclass(frozen=True)
class Mouth:
    """Articulation, each from 0 to 1.

    Attributes:
        jaw: how far the jaw hangs.
        wide: corners drawn apart, as in "ee".
        round: lips pushed forward, as in "oo".
        teeth: lips drawn back from teeth that nearly meet, as in "s".
        tongue: tongue raised behind or between the teeth, as in "l" and "th".
        tuck: lower lip under the upper teeth, as in "f".
    """

    jaw: float = 0.0
    wide: float = 0.3
    round: float = 0.05
    teeth: float = 0.0
    tongue: float = 0.0
    tuck: float = 0.0

    @classmethod
    def of(cls, values: NDArray[np.float32] | list[float]) -> Mouth:
        """From a row of six numbers, in the order of the attributes."""
        return cls(*(float(v) for v in values))

    def values(self) -> NDArray[np.float32]:
        """F32[6] in the order of the attributes."""
        return np.array(astuple(self), np.float32)


REST = Mouth()


@dataclass(frozen=True)
class Lips:
    """Lengths of one mouth in face units, measured from its closing line."""

    half: float  # half width to the corners
    up: float  # inner edge of the upper lip above the line
    low: float  # inner edge of the lower lip below the line
    upper: float  # thickness of the upper lip
    lower: float  # thickness of the lower lip
    corner: float  # height of the corners (negative is up)


def lips(person: Person, mouth: Mouth) -> Lips:
    """The lengths that `mouth` gives this person's lips."""
    m = mouth
    parted = m.teeth * (1 - 0.8 * m.tuck)
    up = 0.042 * m.jaw + 0.034 * parted + 0.030 * m.tuck
    low = 0.215 * m.jaw * (1 - 0.75 * m.tuck) + 0.030 * parted - 0.004 * m.tuck
    round_ = m.round
    return Lips(
        half=person.mouth * (1 + 0.17 * m.wide - 0.40 * round_ - 0.06 * m.jaw),
        up=up + 0.012 * round_ * min(1.0, m.jaw * 6),
        low=low,
        upper=0.058 * person.lip_fullness * (1 + 0.25 * round_ - 0.12 * m.jaw),
        lower=0.078 * person.lip_fullness * (1 + 0.22 * round_ - 0.10 * m.jaw - 0.35 * m.tuck),
        corner=-0.016 - 0.034 * m.wide + 0.016 * m.jaw + 0.012 * round_,
    )


def opening(person: Person, mouth: Mouth) -> float:
    """Height of the gap between the lips at the middle, in face units: the true value."""
    shape = lips(person, mouth)
    return max(0.0, shape.up + shape.low)


def _arc(half: float, middle: float, corner: float, power: float = 0.62) -> list[Point]:
    """A row of points from the left to the right corner that bulges to `middle`."""
    u = np.linspace(-1, 1, 13)
    y = corner + (middle - corner) * (1 - u**2) ** power
    return [(float(a), float(b)) for a, b in zip(u * half, y, strict=True)]


def _between(top: list[Point], bottom: list[Point]) -> skia.Path:
    path = smooth(top, closed=False)
    lower = list(reversed(bottom))
    path.lineTo(*lower[0])
    path.addPath(smooth(lower, closed=False), skia.Path.kExtend_AddPathMode)
    path.close()
    return path


def _teeth(canvas: skia.Canvas, half: float, top: float, bottom: float, dim: float) -> None:
    """A row of teeth with soft gaps, darker towards the corners of the mouth."""
    ivory = shade((250, 246, 238), dim)
    row = skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(-half, top, half, bottom), 0.05, 0.03)
    side = shade(ivory, 0.72)
    canvas.drawRRect(row, linear((-half, 0), (half, 0), [side, ivory, ivory, ivory, side]))
    gap = stroke(shade(ivory, 0.80), 0.006, 0.7)
    for x in (0.0, 0.062, 0.118, 0.165):
        for sign in (-1, 1):
            canvas.drawLine(sign * x, top, sign * x, bottom, gap)


def draw_mouth(canvas: skia.Canvas, person: Person, mouth: Mouth) -> None:
    """Draw lips and what is between them; the canvas is in face units."""
    s = lips(person, mouth)
    canvas.save()
    canvas.translate(0, MOUTH_Y)
    lip_dark = mix(shade(person.lip, 0.62), person.skin_shadow, 0.15)
    inner_half = s.half * 0.93
    inner_top = _arc(inner_half, -s.up, s.corner)
    inner_low = _arc(inner_half, s.low, s.corner)
    # soft shadow below the lower lip and at the corners seats the mouth in the face
    spot(canvas, (0, s.low + s.lower + 0.035), s.half * 0.72, 0.05, person.skin_shadow, 0.38)
    for sign in (-1, 1):
        spot(canvas, (sign * (s.half + 0.012), s.corner), 0.045, 0.04, person.skin_shadow, 0.5)
    is_open = s.up + s.low > 0.006
    if is_open:
        _draw_inside(canvas, s, mouth, _between(inner_top, inner_low))
    bow = -s.up - s.upper
    outer_top: list[Point] = [
        (-s.half, s.corner),
        (-s.half * 0.62, s.corner * 0.55 + bow * 0.55),
        (-s.half * 0.24, bow * 1.02),
        (0, bow * 0.86 - 0.004),
        (s.half * 0.24, bow * 1.02),
        (s.half * 0.62, s.corner * 0.55 + bow * 0.55),
        (s.half, s.corner),
    ]
    upper = _between(outer_top, [(-s.half, s.corner), *inner_top, (s.half, s.corner)])
    bottom = s.low + s.lower
    canvas.drawPath(
        upper, linear((0, bow), (0, -s.up + 0.01), [person.lip, shade(person.lip, 0.74)])
    )
    outer_low = _arc(s.half, bottom, s.corner, 0.72)
    low_top = [(-s.half, s.corner), *inner_low, (s.half, s.corner)]
    lower = _between(low_top, outer_low)
    tones = [shade(person.lip, 0.86), shade(person.lip, 1.10), shade(person.lip, 0.92)]
    canvas.drawPath(lower, linear((0, s.low), (0, bottom), tones))
    shine = shade(person.lip, 1.55)
    spot(
        canvas, (-s.half * 0.12, s.low + s.lower * 0.42), s.half * 0.34, s.lower * 0.24, shine, 0.5
    )
    if is_open:
        line = stroke(lip_dark, 0.008, 0.55)
        canvas.drawPath(smooth(inner_top, closed=False), line)
        if mouth.tuck > 0.3:
            canvas.drawPath(smooth(inner_low, closed=False), line)
    else:
        dip = [(x, y + 0.010 * (1 - abs(x) / s.half * 2.2)) for x, y in inner_top]
        canvas.drawPath(smooth(dip, closed=False), stroke(lip_dark, 0.016, 0.95))
    canvas.restore()


def _draw_inside(canvas: skia.Canvas, s: Lips, mouth: Mouth, inside: skia.Path) -> None:
    """Cavity, teeth and tongue, clipped to the gap between the lips."""
    canvas.save()
    canvas.clipPath(inside, skia.ClipOp.kIntersect, True)
    depth = max(0.05, s.low)
    canvas.drawPath(
        inside,
        linear((0, -s.up), (0, s.low), [(44, 12, 16), (74, 20, 26), (112, 38, 42)]),
    )
    edge = 0.024 * (1 - mouth.tuck)  # the upper teeth hang from the skull and do not move
    low_teeth = 0.034 + 0.175 * mouth.jaw
    if mouth.tuck < 0.6:
        _teeth(canvas, s.half * 0.66, low_teeth, low_teeth + 0.12, 0.90)
    tongue = (206, 98, 100)
    rise = mouth.tongue
    top = depth * (0.62 - 0.62 * rise) + 0.012 * (1 - rise)
    if mouth.jaw > 0.12 or rise > 0.3:
        width = s.half * (0.60 - 0.12 * rise)
        body = skia.Rect.MakeLTRB(-width, top, width, top + depth * 1.6 + 0.1)
        canvas.drawOval(
            body, radial((0, top + 0.03), width, [shade(tongue, 1.14), shade(tongue, 0.8)])
        )
        crease = stroke(shade(tongue, 0.72), 0.012, 0.5, 0.006)
        canvas.drawLine(0, top + 0.03, 0, top + depth, crease)
    _teeth(canvas, s.half * 0.78, -0.09, edge * (1 - 0.55 * mouth.round), 1.0)
    # the lip throws a shadow on the teeth
    canvas.drawRect(
        skia.Rect.MakeLTRB(-s.half, -s.up - 0.02, s.half, -s.up + 0.028),
        linear((0, -s.up), (0, -s.up + 0.028), [(30, 8, 10), (30, 8, 10)], [0.55, 0.0]),
    )
    canvas.restore()
    if mouth.tongue > 0.75 and mouth.teeth < 0.75 and mouth.jaw < 0.4:
        tip = skia.Rect.MakeLTRB(-s.half * 0.4, edge - 0.006, s.half * 0.4, s.low + 0.02)
        canvas.save()
        canvas.clipPath(inside, skia.ClipOp.kIntersect, True)
        canvas.drawOval(tip, fill(shade(tongue, 1.08), min(1.0, (mouth.tongue - 0.75) * 5)))
        canvas.restore()
