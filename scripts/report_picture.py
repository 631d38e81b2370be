"""A picture of a report for the README: its head, light and dark, as Chromium shows it.

    python scripts/report_picture.py runs/quickstart/report.html docs/report.png

Needs the dev extra (playwright) and Chromium on the PATH.
"""

import argparse
import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1280, 1000


def take(report: Path, picture: Path, colour: str, section: str) -> None:
    """Write a PNG of a report.

    Args:
        report: the page.
        picture: where the PNG goes.
        colour: `light` or `dark`.
        section: id of the section that it begins with; empty: the head of the page.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("No Chromium found: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=colour)  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(report.resolve().as_uri() + (f"#{section}" if section else ""))
        page.screenshot(path=picture)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--colour", choices=("light", "dark"), default="light")
    parser.add_argument("--section", default="", help="id of a section, e.g. traces")
    given = parser.parse_args()
    take(given.report, given.picture, given.colour, given.section)


if __name__ == "__main__":
    main()
