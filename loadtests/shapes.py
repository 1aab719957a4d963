"""How many users there are at each moment of a run."""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

Shape = Literal["steady", "ramp", "spike", "soak"]
SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)

_BASE: Final = 1 / 3


def users_at(shape: Shape, moment: float, seconds: float, users: int) -> int | None:
    """Users at a moment; None when the run is over.

    Args:
        shape: ``steady`` and ``soak``: all, all the time (a soak is judged by its memory too);
            ``ramp``: from one to all in steps of equal length; ``spike``: a third of them, three
            times as many in the middle fifth, a third again.
        moment: seconds since the start.
        seconds: of the whole run.
        users: most of them.
    """
    if moment >= seconds:
        return None
    if shape == "ramp":
        return min(users, 1 + math.floor(users * moment / seconds))
    if shape == "spike":
        low = max(1, round(users * _BASE))
        return users if 0.4 * seconds <= moment < 0.6 * seconds else low
    return users
