"""What the stage benchmarks share: the bare AEAD, compiled on first use, and a summary of what they compared.

Knows how to compile one module beside the product. Must not know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "bench"
COMPARISONS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begins the summary."""
    config.stash[COMPARISONS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows it, where nothing captures it."""
    if lines := terminalreporter.config.stash[COMPARISONS]:
        terminalreporter.section("comparisons")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def summarize(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to the summary."""
    return request.config.stash[COMPARISONS].append


@pytest.fixture(scope="session")
def bare_aead() -> ModuleType:
    """bare_aead.pyx, compiled into build/bench if it is newer than what stands there."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    source = Extension("bare_aead", [str(HERE / "bare_aead.pyx")], libraries=["crypto"], extra_compile_args=["-O2"])
    modules = cythonize(  # type: ignore[no-untyped-call] # only some of Cython is typed
        [source], build_dir=str(BUILD), language_level=3, quiet=True
    )
    command = build_ext(Distribution({"ext_modules": modules}))
    command.build_temp = command.build_lib = str(BUILD)
    command.ensure_finalized()
    command.run()
    spec = spec_from_file_location("bare_aead", command.get_ext_fullpath("bare_aead"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
