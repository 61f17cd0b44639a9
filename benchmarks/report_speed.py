"""How long a browser takes to open the report of a test: the time until the whole page is there, beside that of an empty page in the same run.

    pip install playwright
    python benchmarks/report_speed.py runs/standard/report.html --browser /usr/bin/chromium
    python benchmarks/report_speed.py runs/standard/report.html --browser /usr/bin/chromium --picture docs/images/report.png

The browser is any Chromium; it runs without a window, and any request to a network ends the run. Each time is that of a new tab, the median of several.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from PIL import Image
from playwright.sync_api import Browser, sync_playwright


def seconds(browser: Browser, page: Path) -> float:
    """Until the page has loaded and its script has made the first rows.

    Raises:
        ValueError: when the page asks for anything but itself.
    """
    asked: list[str] = []
    with browser.new_page() as tab:
        tab.on("request", lambda request: asked.append(request.url))
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri(), wait_until="load")
        tab.wait_for_selector("tbody tr, p")
        taken = time.perf_counter() - start
    if strange := [url for url in asked if not url.startswith(("file:", "data:"))]:
        raise ValueError(f"{page} asks for {strange[0]}; a report needs no network.")
    return taken


def draw(browser: Browser, page: Path, picture: Path, height: int) -> None:
    """A picture of the page's beginning, 1280 pixels wide."""
    with browser.new_page(viewport={"width": 1280, "height": height}) as tab:
        tab.goto(page.resolve().as_uri(), wait_until="load")
        tab.screenshot(path=picture)
    Image.open(picture).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)  # a third of the size


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--browser", type=Path, required=True, help="path of a Chromium")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--picture", type=Path, help="write a picture of the page's beginning instead")
    parser.add_argument("--height", type=int, default=1700, help="of the picture in pixels")
    said = parser.parse_args(words)
    with sync_playwright() as player, tempfile.TemporaryDirectory() as folder:
        browser = player.chromium.launch(executable_path=said.browser, args=["--no-sandbox"])
        if said.picture is not None:
            draw(browser, said.report, said.picture, said.height)
            return
        empty = Path(folder) / "empty.html"
        empty.write_text("<!DOCTYPE html><title>empty</title><p>nothing")
        times = [(seconds(browser, empty), seconds(browser, said.report)) for _ in range(said.runs)]
    nothing, whole = (median(each) for each in zip(*times, strict=True))
    samples = said.report.with_name("samples.jsonl")
    answers = f", {len(samples.read_text(encoding='utf-8').splitlines()):,} answers" if samples.is_file() else ""
    print(f"{said.report}: {said.report.stat().st_size / 2**20:.1f} MiB{answers}")
    print(f"an empty page opens in {nothing:.2f} s, the report in {whole:.2f} s ({whole / nothing:.0f} times as long)")


if __name__ == "__main__":
    main()
