"""What Locust runs for ``make load`` (loadtests/load.py): users, shape, objectives.

The environment variables ``MUSETALK_LOAD_*`` carry the options, because users need addresses of
more than one server: ``URL``, ``GRPC``, ``TRITON``; ``MIX``, ``SHAPE``, ``USERS``, ``SECONDS``;
``ON_TIME``, ``FIRST_FRAME``, ``FAILURES``; ``THINK``, ``SPEAKING``; ``OUTPUT``.
"""

from __future__ import annotations

import os
from typing import Any

from locust import LoadTestShape, User, events
from locust.env import Environment

import loadtests.users  # noqa: F401 -- gRPC has to be made cooperative first
from loadtests.figures import Objectives, judge
from loadtests.shapes import Shape, users_at
from loadtests.users.grpc_speak import GrpcUser
from loadtests.users.http import HttpUser, VideoUser
from loadtests.users.live import LiveUser
from loadtests.users.record import RECORD
from loadtests.users.triton import TritonUser

KINDS: dict[str, type[User]] = {
    "live": LiveUser,
    "triton": TritonUser,
    "grpc": GrpcUser,
    "http": HttpUser,
    "video": VideoUser,
}


def option(name: str, default: str) -> str:
    """An option of ``loadtests.load``."""
    return os.environ.get(f"MUSETALK_LOAD_{name}", default)


MIX = option("MIX", "live").split(",")
CHOSEN: list[type[User]] = []
for part in MIX:
    kind, _, weight = part.partition(":")
    KINDS[kind].weight = int(weight or 1)
    CHOSEN.append(KINDS[kind])


class ChosenShape(LoadTestShape):
    """The shape of the options."""

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """Users now, and how many of them may come in a second."""
        shape: Shape = option("SHAPE", "steady")  # type: ignore[assignment]
        seconds, most = float(option("SECONDS", "60")), int(option("USERS", "2"))
        moment: float = self.get_run_time()  # type: ignore[no-untyped-call]  # Locust's
        users = users_at(shape, moment, seconds, most)
        return None if users is None else (users, float(most), CHOSEN)


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # Locust's hook
def verdict(environment: Environment, **_: Any) -> None:
    """Fail the run when an objective is missed."""
    if LiveUser.process is not None:
        LiveUser.process.close()
    objectives = Objectives(
        float(option("ON_TIME", "0.99")),
        float(option("FIRST_FRAME", "1.5")),
        float(option("FAILURES", "0")),
    )
    found = judge(RECORD.turns, objectives, (part.partition(":")[0] for part in MIX))
    for one in found:
        words = "met" if one.met else "MISSED"
        print(f"{words}: {one.name}: {one.found}, wanted {one.wanted}", flush=True)  # noqa: T201 -- its report
    environment.process_exit_code = 0 if all(one.met for one in found) else 1
