"""Generates the Python code of proto/ into gen/. Knows protoc's options; run by the build hook and `make proto`.

gen/ovpn/dataplane/v1 gets *_pb2.py, *_pb2.pyi, *_pb2_grpc.py and *_pb2_grpc.pyi. It is never edited
and never committed.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc


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
            f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
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
