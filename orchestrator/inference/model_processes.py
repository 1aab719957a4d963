"""The processes that compute: one Python stub of tritonserver for each model.

Triton does not replace a stub that dies, and stays ready without it; the embedded server
therefore watches them itself.
"""

from __future__ import annotations

import re

import psutil

_INSTANCE = re.compile(r"^(?P<model>.+)_\d+_\d+$")
_NAME = "triton_python_backend_stub"


def model_processes(server_pid: int) -> dict[str, psutil.Process]:
    """Find the process of each model.

    Args:
        server_pid: process id of tritonserver.

    Returns:
        Processes by model name; empty when the server is gone.
    """
    found = {}
    try:
        children = psutil.Process(server_pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return {}
    for child in children:
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if words and words[0].endswith(_NAME):
            names = [match["model"] for match in map(_INSTANCE.match, words) if match]
            found[names[-1] if names else str(child.pid)] = child
    return found


def first_dead(processes: dict[str, psutil.Process]) -> str | None:
    """Name of a model whose process has ended, or None.

    Args:
        processes: from :func:`model_processes`.
    """
    for model, process in processes.items():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return model
        except psutil.NoSuchProcess:
            return model
    return None
