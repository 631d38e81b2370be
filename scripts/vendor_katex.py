"""Get KaTeX, which draws the formulas of a report, into the package, so that a page needs no network.

Writes `distill/report/katex/`: the script, the style sheet with its fonts as `data:` addresses, and the licence. The
archive is checked by SHA-256 before anything is taken from it. For another version change `VERSION` and
`ARCHIVE_SHA256`, run this, then the tests in tests/report.

    python scripts/vendor_katex.py

Needs npm.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.19.1"
ARCHIVE_SHA256 = "24da5a599eb2fcede2e270b99a6ff48bca816beecc95feeb84e8cccbd1bb34fd"
TARGET = Path(__file__).parents[1] / "distill" / "report" / "katex"
FONTS = (
    "AMS-Regular",
    "Caligraphic-Regular",
    "Main-Bold",
    "Main-Italic",
    "Main-Regular",
    "Math-BoldItalic",
    "Math-Italic",
    "Script-Regular",
    "Size1-Regular",
    "Size2-Regular",
    "Size3-Regular",
    "Size4-Regular",
)
"""Letters in sans-serif, typewriter and Fraktur are left to the reader's own fonts: they are rare and take 150 kB."""


def main() -> None:
    """Download, check, write."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(Path(scratch))
        with tarfile.open(archive) as package:
            files = {name: read(package, name) for name in ("dist/katex.min.js", "dist/katex.min.css", "LICENSE")}
            fonts = {name: read(package, f"dist/fonts/KaTeX_{name}.woff2") for name in FONTS}
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "katex.min.js").write_bytes(files["dist/katex.min.js"])
    (TARGET / "katex.css").write_text(style(files["dist/katex.min.css"].decode(), fonts), encoding="utf-8")
    (TARGET / "LICENSE").write_bytes(files["LICENSE"])
    print(f"KaTeX {VERSION}: {sum(file.stat().st_size for file in TARGET.iterdir()):,} bytes in {TARGET}")


def download(folder: Path) -> Path:
    """The package's archive, as npm has it."""
    subprocess.run(["npm", "pack", f"katex@{VERSION}", "--silent"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = folder / f"katex-{VERSION}.tgz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        sys.exit(f"katex {VERSION}: the archive's SHA-256 is {found}, not {ARCHIVE_SHA256}. Nothing was changed.")
    return archive


def read(package: tarfile.TarFile, name: str) -> bytes:
    """A file of the package."""
    stream = package.extractfile(f"package/{name}")
    if stream is None:
        sys.exit(f"katex {VERSION} has no file {name}.")
    return stream.read()


def style(css: str, fonts: dict[str, bytes]) -> str:
    """The style sheet with the chosen fonts in it and no address that leads out of the page."""

    def embedded(rule: re.Match[str]) -> str:
        name = re.search(r"fonts/KaTeX_([\w-]+)\.woff2", rule[0])
        if name is None or name[1] not in fonts:
            return ""
        data = base64.b64encode(fonts[name[1]]).decode()
        return re.sub(r"src:[^}]+", f'src:url(data:font/woff2;base64,{data}) format("woff2")', rule[0])

    css = re.sub(r"@font-face\{[^}]+\}", embedded, css)
    if re.search(r"url\((?!data:)", css):
        sys.exit(f"katex {VERSION}: its style sheet loads something else than fonts. Look at it first.")
    return css + "\n"


if __name__ == "__main__":
    main()
