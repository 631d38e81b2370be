"""Embedding of data, script and style sheet in one HTML file, with a content security policy that allows only them."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# `</` and `<!--` could end the data's script element, U+2028 and U+2029 are line breaks in older JavaScript, and `&`
# matters to XML parsers.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


END_OF_TITLE = "· distill report</title>"
"""In the head of every page (`base.html.jinja`); `is_report` looks for it."""
HEAD_BYTES = 1 << 16


def is_report(path: Path) -> bool:
    """Return whether a file is a page that distill wrote, by its first bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    return head.startswith(b"<!doctype html>") and END_OF_TITLE.encode() in head


def embedded_json(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES).encode("utf-8", "replace").decode("utf-8")


def asset(name: str) -> str:
    """Return the text of a file of this package."""
    return (HERE / name).read_text(encoding="utf-8")


SCRIPTS = ("search.js", "reader.js", "formulas.js", "address.js", "lists.js", "browser.js", "page.js", "start.js")
"""In the order of the page: `start.js` runs what the others define."""
KATEX = "katex/katex.min.js"
FORMULA = re.compile(r"\\[A-Za-z(\[]|\$[^$]+\$")
"""Matches every text with a formula, and some others."""


def scripts(with_formulas: bool) -> str:
    """Return the page's script."""
    # KaTeX gets an empty global object and a silent console instead of the page's own.
    silent = "{log() {}, warn() {}, error() {}}"
    katex = f"const katex = ((self, console) => {{\n{asset(KATEX)}\nreturn self.katex;\n}})({{}}, {silent});\n"
    return '"use strict";\n' + (katex if with_formulas else "") + "".join(asset(name) for name in SCRIPTS)


def styles(with_formulas: bool) -> str:
    """Return the page's style sheet."""
    return (asset("katex/katex.css") if with_formulas else "") + asset("report.css")


def policy(script: str, style: str) -> str:
    """Return a content security policy that allows only this script and style sheet, and no network access."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
