"""Pictures of a report of the demo's bundles: its first table, and some charts (docs/report.png, report-charts.png).

    python benchmarks/report_screenshot.py DIRECTORY

DIRECTORY has the bundles of `perceiver-export demo -o DIRECTORY`, and gets the page. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import perceiver_deploy as pd
from perceiver_deploy.api.demo import MAX_DROP_POINTS, SOURCE

DOCS = Path(__file__).parents[1] / "docs"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
WIDTH, SCALE, COLOURS = 1180, 2, 64
CHARTS = ("m0-latency", "m0-roofline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    out = directory / "report.html"
    bundles = [directory / f"{SOURCE}-{precision}" for precision in MAX_DROP_POINTS]
    if not pd.report(bundles, out, iterations=200, warmup=20).passed:
        raise SystemExit("a check failed: no pictures are taken")
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SCALE)
        page.goto(out.resolve().as_uri())
        take(page, 0, bottom(page, "nav") + 20, DOCS / "report.png")
        first, last = (f"#{name}" for name in CHARTS)
        take(page, top(page, first), bottom(page, last), DOCS / "report-charts.png")
        browser.close()


def top(page: Page, selector: str) -> float:
    return float(page.evaluate("s => document.querySelector(s).getBoundingClientRect().top + scrollY", selector))


def bottom(page: Page, selector: str) -> float:
    return float(page.evaluate("s => document.querySelector(s).getBoundingClientRect().bottom + scrollY", selector))


def take(page: Page, start: float, end: float, path: Path) -> None:
    """A stripe of the page as PNG with few colours."""
    clip = {"x": 0.0, "y": start, "width": float(WIDTH), "height": end - start}
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))  # type: ignore[arg-type]  # a typed dict
    taken.convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
