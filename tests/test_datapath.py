"""The choice between the two datapaths, with and without a compiled one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from dataplane import datapath
from dataplane.datapath import DatapathChoice, DatapathUnavailable, choose_datapath
from dataplane.vocabulary import DatapathKind

MODULE = "dataplane.fastpath.packet_path"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled datapath that can be loaded."""
    monkeypatch.setitem(sys.modules, MODULE, ModuleType(MODULE))


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without."""
    monkeypatch.setitem(sys.modules, MODULE, None)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("choice", [DatapathChoice.AUTO, DatapathChoice.COMPILED])
def test_the_compiled_one_is_taken_where_it_can_be_loaded(choice: DatapathChoice) -> None:
    assert choose_datapath(choice) == (DatapathKind.COMPILED, "")


@pytest.mark.usefixtures("compiled")
def test_the_readable_one_runs_where_it_is_asked_for() -> None:
    assert choose_datapath(DatapathChoice.PYTHON) == (DatapathKind.PYTHON, "")


@pytest.mark.usefixtures("not_compiled")
def test_the_readable_one_takes_its_place_and_the_reason_is_given() -> None:
    kind, reason = choose_datapath(DatapathChoice.AUTO)
    assert kind is DatapathKind.PYTHON
    assert MODULE in reason


@pytest.mark.usefixtures("not_compiled")
def test_one_that_was_asked_for_and_is_not_there_is_refused() -> None:
    with pytest.raises(DatapathUnavailable, match=MODULE):
        choose_datapath(DatapathChoice.COMPILED)


@pytest.mark.parametrize("kind", [ImportError, TypeError, ValueError])
def test_one_that_does_not_fit_is_not_there(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    def refuse(name: str) -> ModuleType:
        raise kind(f"{name}: undefined symbol")

    monkeypatch.setattr(datapath, "import_module", refuse)
    reason = f"the compiled datapath cannot be loaded: {MODULE}: undefined symbol"
    assert choose_datapath(DatapathChoice.AUTO) == (DatapathKind.PYTHON, reason)


def test_it_is_there_in_a_tree_that_was_set_up() -> None:
    assert choose_datapath(DatapathChoice.COMPILED) == (DatapathKind.COMPILED, "")
