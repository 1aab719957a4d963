"""A drawn person as pictures: whole frames, or only the face crop that the networks see."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import skia
from numpy.typing import NDArray

from export.demo import hair, head, scene
from export.demo.head import Pose
from export.demo.mouth import REST, Mouth, draw_mouth, lips
from export.demo.people import Person

WIDTH, HEIGHT = 1280, 720
UNIT = 148.0  # pixels of one face unit in a whole frame
ORIGIN = (640.0, 366.0)  # where the middle of the resting nose bridge lies
CROP = 256
CHIN_DROP = 0.060  # how far a fully open jaw lowers the chin
PIVOT_Y = 1.25  # the head tilts about the top of the neck

Box = tuple[float, float, float, float]
Image = NDArray[np.uint8]


def _matrix(pose: Pose) -> skia.Matrix:
    """From the head's face units to those of the frame."""
    matrix = skia.Matrix()
    matrix.setRotate(pose.roll, 0, PIVOT_Y)
    matrix.postTranslate(pose.dx, pose.dy - 0.012 * pose.breath)
    return matrix


def face_box(person: Person, pose: Pose = head.Pose()) -> Box:  # noqa: B008 - frozen
    """The face box that MuseTalk's geometry gives, in pixels of the frame, without margin.

    Nose bridge in the vertical centre, chin at the bottom, the widest points of the contour at
    the sides; from the drawing itself, not from a detector.

    Returns:
        x0, y0, x1, y1.
    """
    matrix = _matrix(pose)
    bridge = matrix.mapXY(0, 0)
    chin = matrix.mapXY(0, 1.01)
    left, right = matrix.mapXY(-person.cheek, -0.1), matrix.mapXY(person.cheek, -0.1)
    half = chin.fY - bridge.fY
    ox, oy = ORIGIN
    return (
        ox + left.fX * UNIT,
        oy + (bridge.fY - half) * UNIT,
        ox + right.fX * UNIT,
        oy + chin.fY * UNIT,
    )


# What the product's landmarks find on the drawings, against the true box, in pixels:
# x0, y0, x1, y1.
_FOUND = {"amara": (3, -17, -3, -3), "henrik": (3, -22, -1, 1), "mei": (4, -10, -2, -7)}


def found_box(person: Person, pose: Pose = head.Pose(), margin: float = 10.0) -> Box:  # noqa: B008
    """The box that orchestrator.avatars finds, with margin: what training must look like."""
    shift = _FOUND[person.name]
    x0, y0, x1, y1 = (a + b for a, b in zip(face_box(person, pose), shift, strict=True))
    return (x0, y0, x1, y1 + margin)


def crop_box(person: Person, pose: Pose = head.Pose(), margin: float = 10.0) -> Box:  # noqa: B008
    """`face_box` with MuseTalk's extra margin below the chin."""
    x0, y0, x1, y1 = face_box(person, pose)
    return (x0, y0, x1, y1 + margin)


@lru_cache(maxsize=8)
def _backdrop(person: Person) -> skia.Image:
    """The background never moves: drawn once for each person, in the frame's own pixels."""
    surface = skia.Surface(WIDTH, HEIGHT)
    with surface as canvas:
        canvas.translate(*ORIGIN)
        canvas.scale(UNIT, UNIT)
        scene.draw_backdrop(canvas, person)
    return surface.makeImageSnapshot()


def draw(canvas: skia.Canvas, person: Person, mouth: Mouth, pose: Pose) -> None:
    """Draw everything; the canvas is in face units of the frame."""
    lift = 0.026 * pose.breath
    ox, oy = ORIGIN
    frame = skia.Rect.MakeLTRB(-ox / UNIT, -oy / UNIT, (WIDTH - ox) / UNIT, (HEIGHT - oy) / UNIT)
    canvas.drawImageRect(_backdrop(person), frame, skia.SamplingOptions(skia.FilterMode.kLinear))
    matrix = _matrix(pose)
    canvas.save()
    canvas.concat(matrix)
    hair.draw_back(canvas, person)
    canvas.restore()
    canvas.save()
    canvas.translate(0, scene.BODY_RISE)
    scene.draw_neck(canvas, person)
    scene.draw_clothes(canvas, person, lift)
    canvas.restore()
    canvas.save()
    canvas.concat(matrix)
    drop = CHIN_DROP * mouth.jaw
    contour = head.draw_skin(canvas, person, drop, pose.yaw)
    canvas.save()
    canvas.clipPath(contour, skia.ClipOp.kIntersect, True)
    canvas.translate(pose.yaw * 0.045, pose.pitch * 0.022)
    draw_mouth(canvas, person, mouth)
    canvas.translate(pose.yaw * 0.012, pose.pitch * 0.010)
    head.draw_nose(canvas, person)
    canvas.restore()
    canvas.save()
    canvas.translate(pose.yaw * 0.045, pose.pitch * 0.022)
    head.draw_eyes(canvas, person, pose)
    canvas.restore()
    hair.draw_front(canvas, person, contour)
    if person.earrings:
        head.draw_earrings(canvas, person)
    canvas.restore()


def render(person: Person, mouth: Mouth = REST, pose: Pose = head.Pose()) -> Image:  # noqa: B008
    """One whole frame.

    Returns:
        U8[720, 1280, 3], BGR.
    """
    return render_box(person, mouth, pose, (0.0, 0.0, float(WIDTH), float(HEIGHT)), WIDTH, HEIGHT)


def render_box(
    person: Person, mouth: Mouth, pose: Pose, box: Box, width: int = CROP, height: int = CROP
) -> Image:
    """Part of the frame, drawn directly at the wanted size.

    Args:
        person: who.
        mouth: articulation.
        pose: head and eyes.
        box: x0, y0, x1, y1 in pixels of the whole frame.
        width: of the result, pixels.
        height: of the result, pixels.

    Returns:
        U8[height, width, 3], BGR.
    """
    pixels = np.empty((height, width, 4), np.uint8)
    surface = skia.Surface.MakeRasterDirect(
        skia.ImageInfo.Make(width, height, skia.kBGRA_8888_ColorType, skia.kOpaque_AlphaType),
        pixels,
    )
    canvas = surface.getCanvas()
    x0, y0, x1, y1 = box
    canvas.scale(width / (x1 - x0), height / (y1 - y0))
    canvas.translate(ORIGIN[0] - x0, ORIGIN[1] - y0)
    canvas.scale(UNIT, UNIT)
    draw(canvas, person, mouth, pose)
    del canvas, surface
    return np.ascontiguousarray(pixels[:, :, :3])


def mouth_point(pose: Pose, box: Box) -> tuple[float, float]:
    """Where the middle of the mouth lies inside the 256x256 crop of `box`, in its pixels."""
    point = _matrix(pose).mapXY(pose.yaw * 0.045, 0.475 + pose.pitch * 0.022)
    x0, y0, x1, y1 = box
    return (
        (ORIGIN[0] + point.fX * UNIT - x0) / (x1 - x0) * CROP,
        (ORIGIN[1] + point.fY * UNIT - y0) / (y1 - y0) * CROP,
    )


__all__ = [
    "CROP",
    "Mouth",
    "Pose",
    "crop_box",
    "face_box",
    "lips",
    "mouth_point",
    "render",
    "render_box",
]
