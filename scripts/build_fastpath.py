"""Compiles dataplane/fastpath/ in place: Cython to C, C to extension modules.

Knows compilers and flags. Must not know what is compiled. Run by the build hook, by `make` and by sanitize.py; what
is up to date is not compiled again, and two builds of one tree wait for each other.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = Path("dataplane/fastpath")
WORK: Final = Path("build/fastpath")
DIRECTIVES: Final = {
    "language_level": "3",
    "boundscheck": True,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": False,
    "freethreading_compatible": False,
}
# The three that are off are Cython's: it makes parameters and helpers that nobody uses, and mixes signs in comparisons.
WARNINGS: Final = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-sign-compare")
HARDENED: Final = ("-O2", "-g1", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong")
# Their runtime is not linked: it is in the Python that sanitize.py makes.
SANITIZERS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZED: Final = ("-O1", "-g", "-U_FORTIFY_SOURCE", "-fno-omit-frame-pointer", *SANITIZERS)
PROBES: Final = {
    "a C compiler (Debian: gcc, libc6-dev)": "#include <stdint.h>",
    "Python's headers (Debian: python3-dev)": "#include <Python.h>",
    "libcrypto's headers (Debian: libssl-dev)": "#include <openssl/evp.h>",
}


class ToolsMissing(Exception):
    """Nothing can be compiled on this machine; names what is missing."""


def build(root: Path, *, sanitize: bool = False) -> None:
    """Compiles what is out of date, with AddressSanitizer and UBSan if so asked.

    Raises ToolsMissing and, if the compiler refuses the code, what Cython or setuptools raise.
    """
    _look_for_tools()
    from Cython.Build import cythonize
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with chdir(root), _alone():
        modules = cythonize(  # type: ignore[no-untyped-call] # only some of Cython is typed
            _extensions(sanitize=sanitize),
            build_dir=str(WORK),
            compiler_directives=DIRECTIVES,
            include_path=["."],
            force=_is_older_than_this_file(WORK.rglob("*.c")),
            quiet=True,
        )
        command = build_ext(Distribution({"ext_modules": modules}))
        command.inplace = True
        command.build_temp = command.build_lib = str(WORK)
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
        _remove_modules_without_source()


def module_pattern() -> str:
    """Which files in the tree are modules that the running Python can load, for fnmatch."""
    return f"{PACKAGE}/*{sysconfig.get_config_var('EXT_SUFFIX')}"


def _look_for_tools() -> None:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    for tool, source in PROBES.items():
        command = [*compiler, f"-I{sysconfig.get_path('include')}", "-fsyntax-only", "-x", "c", "-"]
        try:
            found = subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0
        except OSError:
            found = False
        if not found:
            raise ToolsMissing(tool)


def _extensions(*, sanitize: bool) -> list[Any]:
    from setuptools import Extension

    return [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            libraries=["crypto"],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=[*WARNINGS, *(SANITIZED if sanitize else HARDENED)],
            extra_link_args=["-Wl,-z,relro,-z,now"],
        )
        for source in sorted(PACKAGE.glob("*.pyx"))
    ]


@contextmanager
def _alone() -> Iterator[None]:
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_older_than_this_file(files: Iterator[Path]) -> bool:
    """Whether one of them was made before the flags were last changed."""
    return any(path.stat().st_mtime < Path(__file__).stat().st_mtime for path in files)


def _remove_modules_without_source() -> None:
    for module in PACKAGE.glob("*.so"):
        if not (PACKAGE / f"{module.name.partition('.')[0]}.pyx").exists():
            module.unlink()


def main() -> int:
    """Builds the tree that it stands in, or ROOT; 1 if tools are missing."""
    parser = argparse.ArgumentParser(description="Compiles dataplane/fastpath/ in place.")
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UBSan")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args()
    try:
        build(arguments.root, sanitize=arguments.sanitize)
    except ToolsMissing as error:
        print(f"cannot compile {PACKAGE}: {error} not found", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
