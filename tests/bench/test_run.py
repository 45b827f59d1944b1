"""Every round has all contenders, and begins with another one."""

from __future__ import annotations

from bench.contenders import CONTENDERS
from bench.run import rotated


def test_rounds_begin_with_another_contender_and_have_them_all() -> None:
    rounds = [rotated(CONTENDERS, number) for number in range(len(CONTENDERS) + 1)]
    assert [one[0] for one in rounds] == [*CONTENDERS, CONTENDERS[0]]
    assert {tuple(sorted(contender.name for contender in one)) for one in rounds} == {
        tuple(sorted(contender.name for contender in CONTENDERS))
    }
