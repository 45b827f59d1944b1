from __future__ import annotations

import sys

import pytest

from dataplane.vocabulary import DatapathKind
from dataplane.worker.datapath import load_datapath


def test_parts_of_a_datapath_are_of_one_implementation(datapath_kind: DatapathKind) -> None:
    datapath = load_datapath(datapath_kind)
    parts = [datapath.data_channel, datapath.peer, datapath.data_key, datapath.packet_path]
    is_compiled = {part.__module__.startswith("dataplane.fastpath.") for part in parts}
    assert is_compiled == {datapath_kind is DatapathKind.COMPILED}


def test_datapath_that_was_not_built_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dataplane.fastpath.packet_path", None)
    with pytest.raises(ImportError):
        load_datapath(DatapathKind.COMPILED)
