"""The head: skin, ears, nose, eyes, brows, glasses. Drawn in face units."""

from __future__ import annotations

from dataclasses import dataclass

import skia

from export.demo.people import Person
from export.demo.shapes import (
    Point,
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

EYE_Y = -0.30
EYE_X = 0.365


@dataclass(frozen=True)
class Pose:
    """Where the head is and what the eyes do.

    Attributes:
        dx, dy: shift of the head in face units.
        roll: tilt in degrees.
        yaw, pitch: turn and nod, about -1 to 1, drawn as parallax of the features.
        blink: 0 open, 1 shut.
        gaze_x, gaze_y: where the eyes look, about -1 to 1.
        breath: 0 to 1, lifts shoulders and chest.
        brows: raised brows, about -1 to 1.
    """

    dx: float = 0.0
    dy: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    breath: float = 0.0
    brows: float = 0.0


def outline(person: Person, drop: float) -> skia.Path:
    """The contour of the face with the chin lowered by `drop`."""
    p = person
    right: list[Point] = [
        (0, -1.34),
        (p.temple * 0.62, -1.22),
        (p.temple * 0.97, -0.78),
        (p.cheek, -0.28),
        (p.cheek * 0.975, 0.12),
        ((p.jaw + p.cheek) / 2, 0.42 + drop * 0.3),
        (p.jaw * 0.90, 0.66 + drop * 0.7),
        (p.chin * 1.62, 0.86 + drop),
        (p.chin * 0.78, 0.975 + drop),
        (0, 1.01 + drop),
    ]
    return smooth(mirrored(right))


def draw_skin(canvas: skia.Canvas, person: Person, drop: float, yaw: float) -> skia.Path:
    """Ears and shaded face; returns the contour for clipping."""
    p = person
    for sign in (-1.0, 1.0):
        x = sign * (p.cheek * 0.985) - yaw * 0.02
        ear = skia.Rect.MakeLTRB(x - 0.10, -0.32, x + 0.10, 0.20)
        tone = shade(p.skin, 0.90 if sign > 0 else 0.97)
        canvas.drawOval(ear, linear((x - 0.1, 0), (x + 0.1, 0), [tone, mix(tone, p.blush, 0.35)]))
        inner = skia.Rect.MakeLTRB(x - 0.035, -0.20, x + 0.065, 0.08)
        canvas.drawOval(inner, fill(p.skin_shadow, 0.35, 0.015))
    face = outline(p, drop)
    light, dark = shade(p.skin, 1.07), mix(p.skin, p.skin_shadow, 0.28)
    canvas.drawPath(face, linear((-p.cheek, -0.6), (p.cheek, 0.7), [light, p.skin, dark]))
    canvas.save()
    canvas.clipPath(face, skia.ClipOp.kIntersect, True)
    # form shadow: sides of the face, under the cheekbones, and beneath the chin's edge
    spot(canvas, (p.cheek * 1.06, 0.30), 0.42, 0.95, p.skin_shadow, 0.50)
    spot(canvas, (-p.cheek * 1.12, 0.35), 0.34, 0.90, p.skin_shadow, 0.32)
    spot(canvas, (0, 1.16 + drop), 0.85, 0.24, p.skin_shadow, 0.55)
    spot(canvas, (0, -1.22), 1.0, 0.42, p.skin_shadow, 0.35)
    shift = yaw * 0.05
    for sign in (-1.0, 1.0):
        spot(canvas, (sign * 0.47 + shift, 0.16), 0.27, 0.20, p.blush, 0.34)
    spot(canvas, (-0.44 + shift, 0.0), 0.22, 0.13, shade(p.skin, 1.30), 0.42)
    spot(canvas, (-0.10 + shift, -0.86), 0.46, 0.24, shade(p.skin, 1.25), 0.38)
    spot(canvas, (shift * 0.9, 0.83 + drop), 0.17, 0.10, shade(p.skin, 1.22), 0.40)
    if p.stubble > 0:
        spot(canvas, (0, 0.72 + drop), 0.82, 0.50, (92, 84, 86), p.stubble)
        spot(canvas, (shift, 0.335), 0.34, 0.10, (92, 84, 86), p.stubble * 0.8)
    if p.wrinkles > 0:
        _wrinkles(canvas, p, shift, drop)
    canvas.restore()
    return face


def _wrinkles(canvas: skia.Canvas, p: Person, shift: float, drop: float) -> None:
    soft = stroke(p.skin_shadow, 0.016, 0.42 * p.wrinkles, 0.008)
    for y, half in ((-0.98, 0.30), (-0.87, 0.36)):
        canvas.drawPath(
            smooth([(-half, y + 0.015), (0, y - 0.012), (half, y + 0.015)], False), soft
        )
    for sign in (-1, 1):
        fold = [
            (sign * 0.215 + shift, 0.20),
            (sign * 0.31 + shift, 0.33),
            (sign * 0.365 + shift * 0.8, 0.47 + drop * 0.5),
        ]
        # Broad and soft: a thin line is lost in the latents, and would go when speech begins.
        canvas.drawPath(smooth(fold, False), stroke(p.skin_shadow, 0.05, 0.24 * p.wrinkles, 0.03))
        for dy in (-0.02, 0.03):
            crow = [
                (sign * 0.60 + shift, EYE_Y + dy),
                (sign * 0.685 + shift, EYE_Y + dy * 2.6 - 0.01),
            ]
            canvas.drawPath(smooth(crow, False), stroke(p.skin_shadow, 0.010, 0.35, 0.005))
        bag = [
            (sign * 0.24 + shift, EYE_Y + 0.135),
            (sign * 0.37 + shift, EYE_Y + 0.175),
            (sign * 0.51 + shift, EYE_Y + 0.13),
        ]
        canvas.drawPath(smooth(bag, False), stroke(p.skin_shadow, 0.014, 0.35, 0.008))


def draw_nose(canvas: skia.Canvas, person: Person) -> None:
    """Bridge, tip and nostrils by shading more than by line."""
    p, n = person, person.nose
    dark = p.skin_shadow
    spot(canvas, (0.085, -0.06), 0.060, 0.26, dark, 0.42)
    spot(canvas, (-0.095, -0.18), 0.045, 0.16, dark, 0.26)
    spot(canvas, (-0.012, -0.06), 0.036, 0.26, shade(p.skin, 1.35), 0.50)
    spot(canvas, (0.01, 0.225), n * 1.15, 0.065, dark, 0.50)
    for sign in (-1, 1):
        wing = [
            (sign * n * 0.80, 0.085),
            (sign * n * 1.04, 0.150),
            (sign * n * 0.90, 0.205),
            (sign * n * 0.62, 0.200),
        ]
        canvas.drawPath(smooth(wing, False), stroke(shade(dark, 0.92), 0.015, 0.60, 0.006))
        canvas.save()
        canvas.translate(sign * n * 0.48, 0.195)
        canvas.rotate(sign * -18)
        nostril = skia.Rect.MakeLTRB(-n * 0.24, -0.019, n * 0.24, 0.019)
        canvas.drawOval(nostril, fill(shade(dark, 0.50), 0.75, 0.007))
        canvas.restore()
    base = [(-n * 0.36, 0.212), (0, 0.232), (n * 0.36, 0.212)]
    canvas.drawPath(smooth(base, False), stroke(shade(dark, 0.8), 0.012, 0.50, 0.005))
    spot(canvas, (-0.02, 0.115), n * 0.42, 0.062, shade(p.skin, 1.45), 0.65)


def _eye(canvas: skia.Canvas, p: Person, sign: float, pose: Pose) -> None:
    w, tilt = p.eye, p.eye_tilt
    opened = 1 - pose.blink
    h = p.eye_height * opened
    lid = p.eye_height * 0.42 * pose.blink  # a shut eye closes below its middle
    inner, outer = (-w * sign, 0.022 + lid * 0.6), (w * sign, -tilt + lid * 0.6)
    top = [
        inner,
        (-w * 0.62 * sign, -h * 0.70 + lid),
        (-w * 0.05 * sign, -h * 1.02 + lid),
        (w * 0.60 * sign, -h * 0.78 - tilt * 0.6 + lid),
        outer,
    ]
    low = [
        inner,
        (-w * 0.35 * sign, p.eye_height * 0.44 * opened + lid),
        (w * 0.25 * sign, p.eye_height * 0.52 * opened + lid),
        (w * 0.75 * sign, p.eye_height * 0.30 * opened - tilt * 0.5 + lid),
        outer,
    ]
    spot(canvas, (0, -0.05), w * 1.35, p.eye_height * 1.9, p.skin_shadow, 0.36)
    if opened > 0.08:
        path = smooth(top, False)
        path.addPath(smooth(list(reversed(low)), False), skia.Path.kExtend_AddPathMode)
        path.close()
        canvas.save()
        canvas.clipPath(path, skia.ClipOp.kIntersect, True)
        white = (250, 249, 246)
        canvas.drawPath(path, linear((0, -0.1), (0, 0.06), [shade(white, 0.80), white]))
        ix, iy = pose.gaze_x * w * 0.34, -p.eye_height * 0.18 + pose.gaze_y * 0.03
        r = p.eye_height * 0.90
        canvas.drawCircle(ix, iy, r, fill(shade(p.iris, 0.42)))
        iris = radial((ix, iy + r * 0.35), r, [shade(p.iris, 1.38), p.iris, shade(p.iris, 0.62)])
        canvas.drawCircle(ix, iy, r * 0.90, iris)
        canvas.drawCircle(ix, iy, r * 0.46, fill((14, 10, 12)))
        canvas.drawCircle(ix - r * 0.30, iy - r * 0.34, r * 0.24, fill((255, 255, 255), 0.95))
        canvas.drawCircle(ix + r * 0.34, iy + r * 0.36, r * 0.12, fill((255, 255, 255), 0.5))
        canvas.drawPath(smooth(top, False), stroke((40, 24, 26), 0.06, 0.30, 0.018))
        canvas.restore()
        tear = mix(p.blush, (255, 225, 215), 0.3)
        canvas.drawCircle(inner[0] + sign * 0.012, inner[1] - 0.004, 0.013, fill(tear, 0.8))
    rim = mix(shade(p.brow, 0.55), (24, 14, 16), 0.5)
    canvas.drawPath(smooth(low, False), stroke(shade(p.skin_shadow, 0.75), 0.011, 0.55))
    lash = smooth(top, False)
    tip = (w * 1.16 * sign, -tilt - p.lash * 0.9 + lid * 0.9)
    wing = [(x, y - p.lash * (0.15 + 0.55 * max(0.0, sign * x / w))) for x, y in top[:-1]]
    lash.addPath(smooth([outer, tip, *reversed(wing)], False), skia.Path.kExtend_AddPathMode)
    lash.close()
    canvas.drawPath(lash, fill(rim))
    canvas.drawPath(smooth(top, False), stroke(rim, 0.014 + p.lash * 0.25))
    crease = [
        (-w * 0.80 * sign, -h * 0.62 - 0.050 + lid * 0.4),
        (0.0, -p.eye_height * (0.45 + 0.58 * opened) - 0.052),
        (w * 0.95 * sign, -h * 0.55 - tilt - 0.045 + lid * 0.4),
    ]
    canvas.drawPath(smooth(crease, False), stroke(p.skin_shadow, 0.014, 0.65, 0.004))


def draw_eyes(canvas: skia.Canvas, person: Person, pose: Pose) -> None:
    """Both eyes and brows, with glasses where the person wears them."""
    p = person
    for sign in (-1.0, 1.0):
        canvas.save()
        canvas.translate(sign * EYE_X, EYE_Y)
        _eye(canvas, p, sign, pose)
        canvas.restore()
        y = EYE_Y - p.eye_height - 0.185 - 0.035 * pose.brows
        t = p.brow_weight
        brow = [
            (sign * 0.155, y + 0.055),
            (sign * 0.165, y + 0.055 - t),
            (sign * 0.38, y - 0.022 - t * 0.72),
            (sign * 0.555, y + 0.012 - t * 0.15),
            (sign * 0.605, y + 0.062),
            (sign * 0.52, y + 0.035),
            (sign * 0.37, y + 0.018),
        ]
        path = smooth(brow, True, 0.8)
        canvas.drawPath(path, fill(p.brow, 0.55, 0.012))
        canvas.drawPath(path, fill(p.brow, 0.72))
    if p.glasses:
        _glasses(canvas, p)


def _glasses(canvas: skia.Canvas, p: Person) -> None:
    frame = (52, 44, 48)
    for sign in (-1, 1):
        cx = sign * (EYE_X + 0.005)
        lens = skia.RRect.MakeRectXY(
            skia.Rect.MakeLTRB(cx - 0.255, EYE_Y - 0.165, cx + 0.255, EYE_Y + 0.195), 0.14, 0.14
        )
        canvas.drawRRect(lens, fill((235, 242, 250), 0.10))
        canvas.save()
        canvas.clipRRect(lens, skia.ClipOp.kIntersect, True)
        glint = skia.Path()
        glint.addPoly(
            [
                skia.Point(cx - 0.22, EYE_Y + 0.20),
                skia.Point(cx - 0.02, EYE_Y - 0.17),
                skia.Point(cx + 0.07, EYE_Y - 0.17),
                skia.Point(cx - 0.13, EYE_Y + 0.20),
            ],
            True,
        )
        canvas.drawPath(glint, fill((255, 255, 255), 0.13))
        canvas.restore()
        shadow = stroke(p.skin_shadow, 0.03, 0.30, 0.02)
        canvas.save()
        canvas.translate(0.01, 0.022)
        canvas.drawRRect(lens, shadow)
        canvas.restore()
        canvas.drawRRect(lens, stroke(frame, 0.030))
        canvas.drawLine(
            cx + sign * 0.255,
            EYE_Y - 0.05,
            sign * p.cheek * 1.0,
            EYE_Y - 0.075,
            stroke(frame, 0.034),
        )
    bridge = smooth([(-0.115, EYE_Y - 0.03), (0, EYE_Y - 0.065), (0.115, EYE_Y - 0.03)], False)
    canvas.drawPath(bridge, stroke(frame, 0.030))


def draw_earrings(canvas: skia.Canvas, person: Person) -> None:
    """Small golden hoops below the ears."""
    for sign in (-1, 1):
        x = sign * person.cheek * 1.04
        hoop = skia.Rect.MakeLTRB(x - 0.075, 0.16, x + 0.075, 0.34)
        canvas.drawOval(hoop, stroke((196, 146, 54), 0.028))
        canvas.drawArc(hoop, 150, 110, False, stroke((255, 226, 150), 0.014, 0.9))
