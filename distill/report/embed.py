"""What makes one file of everything: data that no text in it can break out of, and a policy that lets nothing else run.

Enters: JSON-ready data, a script, a style sheet. Leaves: texts to put between tags, and the content security policy.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# In a script element only `</` and `<!--` could end the data, and U+2028 and U+2029 only where it were read as a
# script; none of them is left, and neither is `&`, for readers that take the page for XML.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


END_OF_TITLE = "· distill report</title>"
"""Stands in the head of every page, in `base.html.jinja`."""
HEAD_BYTES = 1 << 16


def is_report(path: Path) -> bool:
    """Tell a page that distill wrote from any other file, by its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    return head.startswith(b"<!doctype html>") and END_OF_TITLE.encode() in head


def embedded_json(value: Any) -> str:
    """The value as JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES).encode("utf-8", "replace").decode("utf-8")


def asset(name: str) -> str:
    """The text of a file of this package."""
    return (HERE / name).read_text(encoding="utf-8")


SCRIPTS = ("search.js", "reader.js", "formulas.js", "address.js", "lists.js", "browser.js", "page.js", "start.js")
"""In the order in which they stand in the page."""
KATEX = "katex/katex.min.js"
FORMULA = re.compile(r"\\[A-Za-z(\[]|\$[^$]+\$")
"""What a text has that holds a formula; much else has it too."""


def scripts(with_formulas: bool) -> str:
    """The script of the page; KaTeX, which draws formulas, is told of no window and of no console."""
    silent = "{log() {}, warn() {}, error() {}}"
    katex = f"const katex = ((self, console) => {{\n{asset(KATEX)}\nreturn self.katex;\n}})({{}}, {silent});\n"
    return '"use strict";\n' + (katex if with_formulas else "") + "".join(asset(name) for name in SCRIPTS)


def styles(with_formulas: bool) -> str:
    """The style sheet of the page."""
    return (asset("katex/katex.css") if with_formulas else "") + asset("report.css")


def policy(script: str, style: str) -> str:
    """A content security policy under which this script and this style sheet work, and nothing is loaded or sent."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
