"""Compiles dataplane/fastpath/ in place: Cython to C, C to extension modules.

Knows compilers and flags. Must not know what is compiled. Usage: build_fastpath.py [--sanitize] [ROOT]. Ends with 1
and the compiler's words if it cannot.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
from pathlib import Path

PACKAGE = Path("dataplane/fastpath")
FLAGS = ("-O2", "-g1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-sign-compare")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": True,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": False,
    "freethreading_compatible": False,
}


def build(root: Path, *, sanitize: bool = False) -> None:
    """Builds what is out of date. Raises whatever setuptools raises when there is no compiler or no libcrypto."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    work = root / "build" / ("sanitize" if sanitize else "fastpath")
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        extra = list(SANITIZE) if sanitize else []
        extensions = [
            Extension(
                ".".join(source.relative_to(root).with_suffix("").parts),
                [str(source.relative_to(root))],
                libraries=["crypto"],
                define_macros=[("_GNU_SOURCE", "1")],
                extra_compile_args=[*FLAGS, *extra],
                extra_link_args=extra,
            )
            for source in sorted((root / PACKAGE).glob("*.pyx"))
        ]
        modules = cythonize(
            extensions, build_dir=str(work), compiler_directives=DIRECTIVES, include_path=[str(root)], quiet=True
        )
        command = build_ext(Distribution({"ext_modules": modules}))
        command.inplace = True
        command.build_temp = str(work)
        command.ensure_finalized()
        command.run()


def main() -> int:
    """Builds the tree that it stands in, or ROOT."""
    parser = argparse.ArgumentParser(description="Compiles dataplane/fastpath/ in place.")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args()
    build(arguments.root, sanitize=arguments.sanitize)
    return 0


if __name__ == "__main__":
    sys.exit(main())
