"""The shape of the source: files and functions can be read in one go, and every file says what it knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 400
FUNCTION_LINES = 60
SOURCES = [
    path
    for package in ("dataplane", "controlplane_shim", "lab", "demo", "bench", "scripts")
    for path in sorted((ROOT / package).rglob("*.py"))
]
FASTPATH = ROOT / "dataplane/fastpath"
CYTHON_SOURCES = sorted([*FASTPATH.glob("*.pyx"), *FASTPATH.glob("*.pxd")])
CYTHON_FUNCTION = re.compile(r" *(?:cdef|cpdef|def)(?! class| struct| enum| extern)\b[^=]*?(\w+)\(")
CYTHON_IMPORT = re.compile(r"^ *(?:from|import|cimport) +(dataplane[\w.]*)", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_is_short_and_its_functions_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_says_what_it_knows(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring


@pytest.mark.parametrize("path", CYTHON_SOURCES, ids=name_of)
def test_cython_file_is_short_and_its_functions_are(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    assert [name for name, lines in cython_functions(text) if lines > FUNCTION_LINES] == []


@pytest.mark.parametrize("path", CYTHON_SOURCES, ids=name_of)
def test_cython_file_says_what_it_knows(path: Path) -> None:
    assert path.read_text().startswith(("# ", '"""'))


@pytest.mark.parametrize("path", CYTHON_SOURCES, ids=name_of)
def test_the_fast_path_knows_no_control_side(path: Path) -> None:
    """What lint-imports holds for Python; it does not read Cython. reports: what both packet paths tell."""
    known = ("fastpath", "datachannel", "transport", "tun", "messages", "reports", "vocabulary")
    imported = CYTHON_IMPORT.findall(path.read_text())
    assert [name for name in imported if not name.startswith(tuple(f"dataplane.{part}" for part in known))] == []


def test_only_the_worker_and_the_choice_of_a_datapath_name_the_fast_path() -> None:
    daemon = [path for path in SOURCES if path.is_relative_to(ROOT / "dataplane")]
    naming = {name_of(path) for path in daemon if "dataplane.fastpath" in path.read_text()}
    assert naming <= {"dataplane/worker/datapath.py", "dataplane/datapath.py", "dataplane/vocabulary.py"}


def cython_functions(text: str) -> list[tuple[str, int]]:
    """Name and number of lines of each function; it ends where a line is indented no deeper than its first one."""
    lines = text.rstrip().splitlines()
    found = []
    for number, line in enumerate(lines):
        if match := CYTHON_FUNCTION.match(line):
            end = number + 1
            while end < len(lines) and (
                indentation(lines[end]) > indentation(line) or lines[end].strip() in ("", "):")
            ):
                end += 1
            found.append((match[1], len("\n".join(lines[number:end]).rstrip().splitlines())))
    return found


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
