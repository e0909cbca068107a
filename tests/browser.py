"""A page in a real browser without a window: what a script says of it there."""

import html
import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


def asked(page: str, script: str, folder: Path, width: int = 400, dark: bool = False) -> dict:
    """What the function body `script` returns of `page`, shown in a frame of `width` pixels.

    Args:
        page: The page's HTML.
        script: JavaScript; `window` and `document` are the page's.
        folder: An empty folder for the browser.
        width: Of the page, in CSS pixels.
        dark: Whether the user prefers dark pages.
    """
    harness = folder / "harness.html"
    harness.write_text(
        f'<!doctype html><pre id="said"></pre><iframe style="width:{width}px;height:900px;border:0"'
        f' srcdoc="{html.escape(page)}"></iframe><script>onload = () => {{'
        "const window = document.querySelector('iframe').contentWindow;"
        f"const said = ((window, document) => {{{script}}})(window, window.document);"
        "document.getElementById('said').textContent = encodeURIComponent(JSON.stringify(said));"
        "}</script>",
        encoding="utf-8",
    )
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
        *("--virtual-time-budget=2000", f"--user-data-dir={folder / 'profile'}"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        harness.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = done.stdout.partition('<pre id="said">')[2].partition("</pre>")[0]
    assert said, done.stderr[-2000:]
    return json.loads(unquote(said))


CONTRAST = """
    const light = text => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
            .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    document.querySelectorAll('[hidden]').forEach(each => { each.hidden = false; });
    const paper = light(window.getComputedStyle(document.body).backgroundColor);
    const ink = light(window.getComputedStyle(document.querySelector('h1')).color);
    const quiet = light(window.getComputedStyle(document.querySelector('.lead')).color);
    const contrast = x => (Math.max(x, paper) + 0.05) / (Math.min(x, paper) + 0.05);
    return {paper, ink: contrast(ink), quiet: contrast(quiet),
            width: document.documentElement.scrollWidth,
            widest: Math.max(...[...document.querySelectorAll('body *')]
                .filter(each => !each.parentElement.closest('pre, [style*="overflow-x"], svg'))
                .map(each => each.getBoundingClientRect().right)),
            requests: window.performance.getEntriesByType('resource').map(each => each.name)};
"""


def is_readable(page: str, folder: Path, dark: bool) -> None:
    """Asserts that a page is legible on a phone, light or dark, and fetches nothing."""
    said = asked(page, CONTRAST, folder, width=400, dark=dark)
    assert (said["paper"] < 0.2) is dark
    assert said["ink"] > 7
    assert said["quiet"] > 4.5
    assert said["width"] <= 400
    assert said["widest"] <= 400
    assert said["requests"] == []
