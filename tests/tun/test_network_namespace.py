from __future__ import annotations

from pathlib import Path

import pytest

from dataplane.tun.network_namespace import in_network_namespace


def this_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


@pytest.mark.root
def test_function_runs_in_the_namespace_of_the_path(namespace: str) -> None:
    assert in_network_namespace(namespace, this_namespace) == Path(namespace).stat().st_ino != this_namespace()


@pytest.mark.root
def test_calling_thread_stays_where_it_was(namespace: str) -> None:
    before = this_namespace()
    in_network_namespace(namespace, this_namespace)
    assert this_namespace() == before


def test_empty_path_means_the_namespace_of_the_caller() -> None:
    assert in_network_namespace("", this_namespace) == this_namespace()


@pytest.mark.root
def test_what_the_function_raises_is_raised(namespace: str) -> None:
    with pytest.raises(ZeroDivisionError):
        in_network_namespace(namespace, lambda: 1 // 0)


def test_path_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        in_network_namespace(str(tmp_path / "absent"), this_namespace)


@pytest.mark.root
def test_path_that_is_no_namespace_is_an_error_and_the_function_is_not_called(tmp_path: Path) -> None:
    called = []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        in_network_namespace(str(tmp_path / "file"), lambda: called.append(1))
    assert called == []
