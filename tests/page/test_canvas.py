"""A panel as SVG: it takes colours, font and ids from the page, and what it is told to write stays text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from stages.page.canvas import COLOURS, SERIES, drawing, panel, series, series_mark

LABEL = '$x_{</text><script>alert("#010101")</script>名'


def drawn(key: str = "toy", heading: str = "Heading") -> str:
    with drawing() as (figure, axes):
        for number in range(len(SERIES)):
            axes.errorbar([number], [number], xerr=[0.2], yerr=[0.3], **series(number))
        axes.fill_between([0, 1], [0, 1], color=COLOURS["line"])
        axes.annotate(LABEL, (0, 0))
        axes.set_xlabel("tokens")
        return panel(figure, key, heading, "what <is> shown").svg


def test_every_colour_is_one_of_the_page() -> None:
    svg = drawn()
    colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)
    assert {f"var(--{name})" for name in SERIES} <= set(colours)
    assert all(colour == "none" or re.fullmatch(r"var\(--[\w-]+\)", colour) for colour in colours)


def test_it_is_well_formed_and_names_itself() -> None:
    root = ElementTree.fromstring(drawn(heading="a < b"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "toy-title toy-desc"
    assert [(child.tag, child.text) for child in root[:2]] == [("title", "a < b"), ("desc", "what <is> shown")]
    assert LABEL in [element.text for element in root.iter("text")]


def test_ids_are_its_own_and_every_reference_is_met() -> None:
    svg = drawn("one")
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("one-") for name in ids)
    used = {*re.findall(r'href="#([^"]+)"', svg), *re.findall(r"url\(#([^)]+)\)", svg)}
    assert used
    assert used <= set(ids)


def test_neither_font_nor_address_nor_style_for_the_whole_page() -> None:
    svg = drawn()
    assert "font-size" in svg
    for text in ("DejaVu", "font-family", "http", "<style", "<metadata", "xlink"):
        assert text not in svg


def test_equal_data_give_equal_bytes() -> None:
    assert drawn() == drawn()


def test_shapes_and_colours_tell_runs_apart() -> None:
    looks = {(str(series(number)["color"]), str(series(number)["marker"])) for number in range(6)}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 6
    assert series_mark(7, "eighth") == series_mark(1, "eighth")
