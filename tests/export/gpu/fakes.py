"""TensorRT and Polygraphy as far as this project calls them, on ONNX Runtime.

The calls and their parameters are Polygraphy's own (a test holds that against the installed
package); engines refuse what real ones refuse: sizes outside the active profile, another
TensorRT, wrong names and types, graphs with uint8 outside a cast.
"""

from __future__ import annotations

import json
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


class PolygraphyException(Exception):  # noqa: N818 -- its real name
    pass


class ShapeTuple:
    def __init__(self, min: tuple, opt: tuple, max: tuple) -> None:
        self.min, self.opt, self.max = min, opt, max


class Profile(OrderedDict):
    def add(self, name: str, min: tuple, opt: tuple, max: tuple) -> Profile:
        self[name] = ShapeTuple(min, opt, max)
        return self


class CreateConfig:
    def __init__(
        self, tf32: bool | None = None, *, profiles: list[Profile], load_timing_cache: str | None
    ) -> None:
        self.tf32, self.profiles, self.load_timing_cache = tf32, profiles, load_timing_cache


class NetworkFromOnnxPath:
    def __init__(self, path: str, *, strongly_typed: bool | None = None) -> None:
        self.path, self.strongly_typed = path, strongly_typed


def check_parsable(graph: onnx.GraphProto) -> None:
    """What TensorRT's parser refuses of uint8: anything but a cast from or to it."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    bytes_ = {name for name, kind in kinds.items() if kind == onnx.TensorProto.UINT8}
    for node in graph.node:
        if node.op_type != "Cast" and bytes_.intersection((*node.input, *node.output)):
            raise PolygraphyException(f"Could not parse: {node.op_type} of UINT8")


class FakeTensorRT:
    """The modules ``tensorrt`` and ``polygraphy.backend.trt``, and what happens to them.

    Attributes:
        builds: profiles of each engine that was built, as (min, opt, max) batches.
        configs: the builder configurations.
        spoil: changes an engine's output: (model's first input, profile, array) -> array.
        refuse: name of an input whose model cannot be built.
    """

    def __init__(self, version: str = "10.14.1.48") -> None:
        self.version = version
        self.builds: list[list[tuple[int, int, int]]] = []
        self.configs: list[CreateConfig] = []
        self.spoil: Any = None
        self.refuse: str | None = None
        fake = self

        class TrtRunner:
            def __init__(self, engine: Any, optimization_profile: int | None = None) -> None:
                self.engine, self.profile = engine, optimization_profile or 0
                self.active = False

            def __enter__(self) -> TrtRunner:
                self.active = True
                return self

            def __exit__(self, *_: object) -> None:
                self.active = False

            def infer(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                if not self.active:
                    raise PolygraphyException("Must be activated prior to calling infer()")
                return fake._run(self.engine, self.profile, feed_dict)

        self.trt = types.SimpleNamespace(
            Profile=Profile,
            CreateConfig=CreateConfig,
            NetworkFromOnnxPath=NetworkFromOnnxPath,
            engine_bytes_from_network=self._build,
            engine_from_bytes=self._load,
            TrtRunner=TrtRunner,
        )
        self.tensorrt = types.SimpleNamespace(__version__=version)

    def _build(
        self, network: NetworkFromOnnxPath, config: CreateConfig, save_timing_cache: str
    ) -> bytes:
        assert network.strongly_typed, "TensorRT 11 knows no other networks"
        model = onnx.load(network.path)
        check_parsable(model.graph)
        names = [value.name for value in model.graph.input]
        if self.refuse in names:
            raise PolygraphyException(
                "Invalid Engine. Please ensure the engine was built correctly"
            )
        if config.load_timing_cache is not None:
            assert Path(config.load_timing_cache).read_bytes().startswith(b"tactics")
        assert all(list(profile) == names for profile in config.profiles)
        self.configs.append(config)
        ranges = [
            (one[names[0]].min[0], one[names[0]].opt[0], one[names[0]].max[0])
            for one in config.profiles
        ]
        self.builds.append(ranges)
        Path(save_timing_cache).write_bytes(b"tactics of " + self.version.encode())
        head = {"version": self.version, "ranges": ranges}
        return json.dumps(head).encode() + b"\n" + model.SerializeToString()

    def _load(self, serialized_engine: bytes) -> dict[str, Any]:
        head, _, body = serialized_engine.partition(b"\n")
        engine = json.loads(head)
        if engine["version"] != self.version:
            raise PolygraphyException("The engine plan file is not compatible with this version")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        return {**engine, "session": session}

    def _run(
        self, engine: dict[str, Any], profile: int, feed: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        smallest, _, largest = engine["ranges"][profile]
        for name, array in feed.items():
            if not smallest <= len(array) <= largest:
                raise PolygraphyException(f"{name}: {array.shape} is not in profile {profile}")
        session = engine["session"]
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, feed), strict=True))
        if self.spoil is not None:
            first = next(iter(feed))
            outputs = {k: self.spoil(first, profile, v) for k, v in outputs.items()}
        return outputs


SMI = """#!/bin/sh
case "$1" in
  -L) cat {folder}/list ;;
  *) cat {folder}/query ;;
esac
exit $(cat {folder}/status)
"""


def write_smi(
    folder: Path,
    query: str = "NVIDIA L4, 8.9, 23034, 580.65.06\n",
    listing: str = "GPU 0: NVIDIA L4 (UUID: GPU-1)\n",
    status: int = 0,
) -> None:
    """An ``nvidia-smi`` that says this."""
    folder.mkdir(exist_ok=True)
    (folder / "query").write_text(query)
    (folder / "list").write_text(listing)
    (folder / "status").write_text(str(status))
    program = folder / "nvidia-smi"
    program.write_text(SMI.format(folder=folder))
    program.chmod(0o755)
