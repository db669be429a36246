"""The drawing of `tldr ratio simulate`."""

from __future__ import annotations

import pytest

from stages.cli._trajectory import HEIGHT, WIDEST, columns, draw, sparkline


def rows(shares: list[float]) -> list[dict[str, float]]:
    last = len(shares) - 1
    return [
        {"system1": share, "tokens": 7000.0 - 5000.0 * number / last, "accuracy": 0.76 - 0.1 * number / last}
        for number, share in enumerate(shares)
    ]


def test_the_height_of_a_column_is_the_share() -> None:
    lines = draw(rows([0.0, 0.25, 0.5, 1.0]), 80, plain=False)
    drawn = [line[9 : 9 + 4 * WIDEST].ljust(4 * WIDEST) for line in lines[1 : HEIGHT + 1]]
    heights = ["".join(line[column] for line in drawn).count("█") for column in range(0, 4 * WIDEST, WIDEST)]
    assert heights == [0, 2, 4, 8]
    assert "0.00 to 1.00" in lines[HEIGHT]
    assert "7000 to 2000" in lines[HEIGHT + 1] and "0.760 to 0.660" in lines[HEIGHT + 2]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("num", [2, 13, 60, 1000])
@pytest.mark.parametrize("plain", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, num: int, plain: bool) -> None:
    lines = draw(rows([0.1 + 0.8 * (number % 7) / 6 for number in range(num)]), width, plain)
    assert max(len(line) for line in lines if not line.startswith("Each column")) <= width
    assert all(line.isascii() for line in lines) is plain


def test_more_updates_than_columns_are_averaged_and_said_to_be() -> None:
    assert columns([1.0, 3.0, 5.0, 7.0, 9.0], 3) == [2.0, 6.0, 9.0]
    assert columns([1.0, 2.0], 100) == [1.0] * WIDEST + [2.0] * WIDEST
    assert draw(rows([0.5] * 1000), 80, plain=True)[-1].startswith("Each column is the mean of up to")
    assert not draw(rows([0.5] * 20), 80, plain=True)[-1].startswith("Each")


def test_a_line_of_bars_spans_its_own_range() -> None:
    assert sparkline([1.0, 2.0, 3.0], " abcd") == "acd"
    assert sparkline([5.0, 5.0], " abcd") == "bb"
