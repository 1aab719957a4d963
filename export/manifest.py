"""``manifest.json`` of a repository: what it was built from, how, and with which versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from export.onnx_export import EXTERNAL_DATA
from orchestrator.errors import RepositoryError

FORMAT = 1
_PACKAGES = ("torch", "onnx", "onnxscript", "diffusers", "transformers", "openvino")


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def model_digest(version: Path) -> str:
    """Hash of ``model.onnx`` in a version folder, with its external data where it has some."""
    digest = sha256(version / "model.onnx")
    if (version / EXTERNAL_DATA).exists():
        digest += "+" + sha256(version / EXTERNAL_DATA)
    return digest


def versions() -> dict[str, str]:
    """Versions of the packages that take part in a build."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


@dataclass(frozen=True)
class EngineEntry:
    """The TensorRT engine of a model.

    Attributes:
        key: changes with everything that changes the engine.
        tensorrt: version that built it, the only one that runs it.
        gpu: the GPU it was built on, in words.
        sm: its compute capability.
        mig: profile of its slice; empty for a whole GPU.
        profiles: smallest, best and largest batch of each.
        sha256: of ``model.plan``.
    """

    key: str
    tensorrt: str
    gpu: str
    sm: str
    mig: str
    profiles: list[list[int]]
    sha256: str


@dataclass(frozen=True)
class ModelEntry:
    """One model of the repository.

    Attributes:
        sha256: of ``model.onnx``, as :func:`model_digest` makes it.
        parameters: weights of the network.
        gflop: of one frame (for ``whisper_encoder``: of one 30 s segment).
        served_by: Triton's platform or backend.
        engine: of target ``tensorrt``; None where ONNX Runtime or OpenVINO serves the graph.
    """

    sha256: str
    parameters: int
    gflop: float
    served_by: str = "musetalk_openvino"
    engine: EngineEntry | None = None

    @staticmethod
    def parse(data: dict[str, Any]) -> ModelEntry:
        """From what ``manifest.json`` holds."""
        engine = data.get("engine")
        return ModelEntry(**{**data, "engine": EngineEntry(**engine) if engine else None})


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Attributes:
        created: ISO 8601, UTC.
        target: ``cpu``, ``tensorrt`` or ``onnxruntime``.
        precision: as asked for; ``auto`` is resolved where the model is loaded.
        decoder: ``full`` or ``fast``.
        sources: hashes of the files the build read, by path inside the checkpoint.
        missing: optional models that the checkpoint has no weights for.
        versions: of the packages used.
        models: by name.
        weights_id: short hash of sources and decoder; the key of everything cached that was
            computed with these weights.
    """

    created: str
    target: str
    precision: str
    decoder: str
    sources: dict[str, str]
    missing: list[str]
    versions: dict[str, str]
    weights_id: str
    models: dict[str, ModelEntry] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, repository: Path) -> None:
        """Write ``manifest.json`` into a repository."""
        (repository / "manifest.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    def damaged(self, repository: Path) -> Path | None:
        """The first file of a repository that is missing or not what was built; None if none is.

        Args:
            repository: the folder that this manifest lies in.
        """
        for name, entry in self.models.items():
            version = repository / name / "1"
            graph, plan = version / "model.onnx", version / "model.plan"
            served = graph if entry.engine is None else plan
            for file in (repository / name / "config.pbtxt", served):
                if not file.is_file():
                    return file
            if entry.engine is None and model_digest(version) != entry.sha256:
                return graph
            if entry.engine is not None and sha256(plan) != entry.engine.sha256:
                return plan
        return None

    @staticmethod
    def read(repository: Path) -> Manifest:
        """Read it back.

        Raises:
            RepositoryError: it is missing, or of another format.
        """
        path = repository / "manifest.json"
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            if data["format"] != FORMAT:
                raise RepositoryError(
                    f"{path}: format {data['format']}, this version reads {FORMAT}",
                    remedy="build the repository again",
                )
            data["models"] = {k: ModelEntry.parse(v) for k, v in data["models"].items()}
            return Manifest(**data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RepositoryError(
                f"{path}: {error}", remedy="build the repository with musetalk export build"
            ) from error


def weights_id(sources: dict[str, str], decoder: str) -> str:
    """Short stable name of a set of weights."""
    text = json.dumps([sorted(sources.items()), decoder])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
