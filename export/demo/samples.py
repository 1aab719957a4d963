"""The drawn faces in ``export/samples/verify.npz``, on which networks are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.demo.head import Pose
from export.demo.mouth import REST, Mouth
from export.demo.people import AMARA, HENRIK, MEI
from export.demo.portrait import CROP, found_box, render_box


def faces() -> NDArray[np.uint8]:
    """Three drawn faces as the product crops them, and clothes: what is no face must agree too.

    Returns:
        U8[4, 256, 256, 3], BGR.
    """
    open_mouth = Mouth(jaw=0.7, wide=0.5, teeth=0.4)
    poses = (
        (AMARA, REST, Pose()),
        (HENRIK, open_mouth, Pose(yaw=0.3, roll=1.5)),
        (MEI, Mouth(jaw=0.3, round=0.8), Pose(pitch=0.4, blink=1.0)),
    )
    crops = [render_box(*drawn, found_box(drawn[0], drawn[2])) for drawn in poses]
    clothes = render_box(AMARA, REST, Pose(), (380.0, 500.0, 600.0, 720.0), CROP, CROP)
    return np.stack([*crops, clothes])


def redraw(path: Path) -> None:
    """Put the faces into a sample, whose speech stays as it is."""
    with np.load(path) as data:
        rest = {name: data[name] for name in data.files if name != "crops"}
    np.savez_compressed(path, crops=faces(), **rest)
