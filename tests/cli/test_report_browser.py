"""The report in a real browser: no error in its console, readable on a phone, dark and light."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu_esd.cli import report_page
from tests.test_report import told

SECONDS = 120
PHONE = 390
# The page in a frame as wide as a phone, and what is measured of it.
HARNESS = """<!doctype html><meta name="color-scheme" content="light dark"><body><iframe id="page" srcdoc="%s"
style="width: %dpx; height: 700px; border: 0"></iframe><script>
page.onload = () => {
  const seen = page.contentDocument, texts = [...seen.querySelectorAll("svg text")];
  document.body.dataset.seen = JSON.stringify({
    width: seen.documentElement.scrollWidth,
    words: Math.min(...texts.map((text) => text.getBoundingClientRect().height)),
    right: Math.max(...texts.map((text) => text.getBoundingClientRect().right)),
    back: getComputedStyle(seen.documentElement).backgroundColor,
    fore: getComputedStyle(seen.body).color,
  });
};
</script></body>"""


@dataclass(frozen=True)
class Seen:
    """`facts` as the harness measures them; `errors` are lines of the browser's console."""

    facts: dict[str, float | str]
    errors: list[str]


@pytest.fixture(scope="module")
def browser() -> str:
    """Without one nothing is proven, so in CI that is a failure."""
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("no chromium: apt-get install chromium-headless-shell")
    assert found is not None
    return found


def look(browser: str, tmp_path: Path, page: str, *, dark: bool = False) -> Seen:
    file = tmp_path / "harness.html"
    file.write_text(HARNESS % (html.escape(page), PHONE))
    options = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=5000 "
        f"--user-data-dir={tmp_path}/profile "
        f"--blink-settings=preferredColorScheme={0 if dark else 1} --dump-dom"
    ).split()
    argv = (browser, *options, file.as_uri())
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=SECONDS)
    told = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert told is not None, done.stdout
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(html.unescape(told[1])), errors)


def test_on_a_phone_dark_and_light(browser: str, tmp_path: Path) -> None:
    page = report_page.page(told())
    light, dark = look(browser, tmp_path, page), look(browser, tmp_path, page, dark=True)
    assert light.errors == dark.errors == []
    for seen in (light, dark):
        assert float(seen.facts["width"]) <= PHONE
        assert float(seen.facts["right"]) <= PHONE
        assert float(seen.facts["words"]) > 9
    assert (light.facts["back"], dark.facts["back"]) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    assert light.facts["fore"] != dark.facts["fore"]


def test_a_page_that_asks_the_network_would_be_noticed(browser: str, tmp_path: Path) -> None:
    page = report_page.page(told()).replace("<body>", '<body><img src="https://192.0.2.1/x.png">')
    assert look(browser, tmp_path, page).errors
