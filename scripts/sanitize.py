"""Runs Python on a build of the project that AddressSanitizer and UBSan watch: sanitize.py -m pytest tests/fastpath.

Knows how such a build and the Python for it are made, and where the sanitizers write. Must not know what is run. All of
it is in build/sanitize: a copy of the tree, and a virtual environment whose `python` has the sanitizers linked in. So
all that is started as `sys.executable` is watched (daemon, shim, workers), and no other program is (OpenVPN, ping).

Ends with the status of what was run, or with 1 if a sanitizer found something in any of its processes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

from build_fastpath import PACKAGE, build

ROOT: Final = Path(__file__).resolve().parent.parent
PLACE: Final = ROOT / "build/sanitize"
TREE: Final = PLACE / "tree"
ENVIRONMENT: Final = PLACE / "venv"
FINDINGS: Final = PLACE / "findings"
LEFT_OUT: Final = (".git", ".venv", "build", "dist", "__pycache__", ".hypothesis", ".*_cache", "*.so")
PROGRAMS: Final = ("ovpn-dataplane", "ovpn-shim")

RUNTIME: Final = "asan_with_fuzzer.so"
"""AddressSanitizer, UBSan and libFuzzer in one library. It comes with atheris, whose fuzzing needs exactly this one."""

# Python's own main(), linked anew, since the runtime must be loaded before anything else. The options stand in it, for
# an environment is not always handed on. Python frees little at its end, so leaks tell nothing; an abort is how the
# package ends on an access out of bounds (span.pxd).
PYTHON: Final = f"""
#include <Python.h>
const char *__asan_default_options(void) {{
    return "log_path={FINDINGS}/fault:detect_leaks=0:handle_abort=1:detect_stack_use_after_return=1";
}}
const char *__ubsan_default_options(void) {{ return "log_path={FINDINGS}/fault:print_stacktrace=1"; }}
int main(int argc, char **argv) {{ return Py_BytesMain(argc, argv); }}
"""

# A module that is compiled with the others, with the two kinds of fault that must be found in them.
FAULTY: Final = PACKAGE / "faulty.pyx"
FAULTS: Final = """
from libc.stdlib cimport free, malloc
def overrun(int size):
    cdef char* place = <char*>malloc(size)
    place[size] = 1
    free(place)
def shift(int bits):
    return 1 << bits
"""
FAULT_CALLS: Final = ("overrun(16)", "shift(32)")


def main() -> int:
    """Prepares the place, shows that a fault is found there, and runs the arguments."""
    copy_tree()
    make_environment()
    (TREE / FAULTY).write_text(FAULTS)
    build(TREE, sanitize=True)
    (TREE / FAULTY).unlink()
    prove_that_faults_are_found()
    status = run(*sys.argv[1:])
    for finding in findings():
        print(finding.read_text(errors="replace"), file=sys.stderr)
    if findings():
        print(f"the sanitizers ended {len(findings())} processes; see above and {FINDINGS}", file=sys.stderr)
        return 1
    return status


def copy_tree() -> None:
    """Replaces the copy but for what was compiled there, which is compiled again only where it is out of date."""
    compiled = TREE / "build"
    kept = PLACE / "kept"
    if compiled.exists():
        compiled.rename(kept)
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(ROOT, TREE, ignore=shutil.ignore_patterns(*LEFT_OUT))
    if kept.exists():
        kept.rename(compiled)


def make_environment() -> None:
    """A virtual environment with our `python`, the packages of the one that runs this, and the copy of the project."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, symlinks=True)
    python = ENVIRONMENT / "bin/python"
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        python.with_name(name).unlink()
    packages = Path(sysconfig.get_path("purelib"))
    link_python(python, packages)
    inner = ENVIRONMENT / packages.relative_to(sys.prefix)
    (inner / "project.pth").write_text("\n".join(map(str, (TREE, TREE / "gen", packages))) + "\n")
    for name in PROGRAMS:
        _, _, text = (Path(sys.prefix) / "bin" / name).read_text().partition("\n")
        program = ENVIRONMENT / "bin" / name
        program.write_text(f"#!{python}\n{text}")
        program.chmod(0o755)


def link_python(path: Path, packages: Path) -> None:
    """Compiles Python's main program, with the runtime of the sanitizers before all other libraries."""
    source = [f"-I{sysconfig.get_path('include')}", "-x", "c", "-"]
    libraries = [f"-L{packages}", f"-Wl,-rpath,{packages},--no-as-needed", f"-l:{RUNTIME}"]
    libraries += [f"-lpython{sysconfig.get_config_var('LDVERSION')}"]
    subprocess.run(["gcc", "-o", str(path), *source, *libraries], input=PYTHON, text=True, check=True)


def prove_that_faults_are_found() -> None:
    """Commits each fault in a process like those that are watched. Raises RuntimeError if one is not found."""
    for call in FAULT_CALLS:
        shutil.rmtree(FINDINGS, ignore_errors=True)
        FINDINGS.mkdir()
        run("-c", f"from {'.'.join(FAULTY.with_suffix('').parts)} import *; {call}", quiet=True)
        if not findings():
            raise RuntimeError(f"{call} was not found: the sanitizers do not work here")
    for finding in findings():
        finding.unlink()


def run(*arguments: str, quiet: bool = False) -> int:
    """Runs our Python in the copy; gives its exit status."""
    command = [str(ENVIRONMENT / "bin/python"), *arguments]
    output = subprocess.DEVNULL if quiet else None
    # Each object of Python is a block of its own then, with its own borders.
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    return subprocess.run(command, cwd=TREE, env=environment, stderr=output, check=False).returncode


def findings() -> list[Path]:
    """What the sanitizers wrote, a file for each process with a fault."""
    return sorted(FINDINGS.iterdir())


if __name__ == "__main__":
    sys.exit(main())
