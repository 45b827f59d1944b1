"""Generates the Python code of proto/ into gen/. Knows protoc's options; run by the build hook and `make proto`.

gen/ovpn/dataplane/v1 gets *_pb2.py, *_pb2.pyi, *_pb2_grpc.py and *_pb2_grpc.pyi. It is never edited
and never committed.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final

from grpc_tools import protoc

PLUGIN: Final = "protoc-gen-mypy_grpc"


def find_plugin() -> str:
    """Path of the plugin: pip puts an isolated build's on PATH, a venv has it beside its Python.

    Raises RuntimeError if it is in neither place.
    """
    found = shutil.which(PLUGIN) or shutil.which(PLUGIN, path=str(Path(sys.executable).parent))
    if found is None:
        raise RuntimeError(f"{PLUGIN} is missing; it comes with mypy-protobuf")
    return found


def generate(root: Path) -> Path:
    """Regenerates gen/ under `root`; returns its path. Raises RuntimeError if protoc refuses a file."""
    source = root / "proto"
    target = root / "gen"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    protos = sorted(str(path) for path in source.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={source}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--plugin={PLUGIN}={find_plugin()}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_grpc_out={target}",
            *protos,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc failed with status {status}; its messages stand above")
    return target


if __name__ == "__main__":
    print(generate(Path(__file__).resolve().parent.parent))
