"""The page in a real browser without a network: light, dark and as wide as a phone."""

from __future__ import annotations

import html
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--proxy-server=127.0.0.1:9",  # nobody listens there: whatever is asked for over a network fails
)
DARK = "--blink-settings=preferredColorScheme=0"
SERIES = {"light": {"base": "0072b2", "candidate": "d55e00"}, "dark": {"base": "56b4e9", "candidate": "ff9a4d"}}
PHONE = 390  # CSS pixels; the browser's own window cannot be so narrow, a frame can
FRAME = """<!doctype html><title>frame</title><body style="margin:0"><iframe id="phone" srcdoc="{page}"
style="width:{width}px;height:{height}px;border:0"></iframe><script>
phone.onload = () => {{
  const found = phone.contentDocument, root = found.documentElement
  for (const details of found.querySelectorAll("details")) details.open = true
  const boxes = [...found.querySelectorAll(".wide")]
  document.body.dataset.measured = [root.clientWidth, root.scrollWidth, root.scrollHeight,
    boxes.filter(box => box.scrollWidth > box.clientWidth).length, found.fonts.size].join(" ")
}}</script>"""


def browse(folder: Path, page: Path, *arguments: str) -> str:
    profile = folder / "profile"
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, check=True)
    shutil.rmtree(profile, ignore_errors=True)
    return answer.stdout


def screenshot(folder: Path, page: Path, width: int, height: int, *arguments: str) -> np.ndarray:
    """RGB, shape (height, width, 3)."""
    from PIL import Image

    path = folder / "page.png"
    browse(folder, page, f"--screenshot={path}", f"--window-size={width},{height}", *arguments)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(image: np.ndarray, colour: str) -> int:
    return int((image == np.frombuffer(bytes.fromhex(colour), np.uint8)).all(axis=-1).sum())


@pytest.fixture
def phone(page: str, tmp_path: Path) -> Path:
    path = tmp_path / "phone.html"
    path.write_text(FRAME.format(page=html.escape(page), width=PHONE, height=9000), encoding="utf-8")
    return path


def test_figures_are_drawn_in_the_colours_of_the_scheme(page_file: Path, tmp_path: Path) -> None:
    images = {
        "light": screenshot(tmp_path, page_file, 1280, 5000),
        "dark": screenshot(tmp_path, page_file, 1280, 5000, DARK),
    }
    for scheme, image in images.items():
        for other, colours in SERIES.items():
            for name, colour in colours.items():
                assert (count(image, colour) > 500) == (scheme == other), f"{name} of {other} in {scheme}"
    corners = {scheme: image[0, 0].mean() for scheme, image in images.items()}
    assert corners["light"] > 230
    assert corners["dark"] < 40


def test_a_phone_scrolls_down_only(phone: Path, tmp_path: Path) -> None:
    answer = browse(tmp_path, phone, "--dump-dom")
    client, scroll, height, num_scrolling, _ = answer.split('data-measured="')[1].split('"')[0].split()
    assert (client, scroll) == (str(PHONE), str(PHONE))
    assert int(height) > 3000
    assert int(num_scrolling) > 0  # the wide tables scroll, each in a box of its own


def test_a_phone_shows_the_figures(phone: Path, tmp_path: Path) -> None:
    image = screenshot(tmp_path, phone, 500, 9000)
    for colour in SERIES["light"].values():
        assert count(image, colour) > 300
