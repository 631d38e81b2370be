"""Words that readers stumble over are in no page, no help text, no recipe and no message."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLAIN = {
    r"\boverrul\w+": "override",
    r"\bof like length\b": "of similar length",
    r"\bgone on (with|from)\b|\bgoing on with what\b": "resumed",
    r"\bwhole story\b": "details",
    r"(?<![.\"`{])\bmend(s|ed)?\b(?!\s*[:=]|`|\"|\)| or | \|)": "fix",
}
"""What not to write -> what to write."""
FILES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "README.md", "docs/*.md", "recipes/*.yaml", "distill/*.py",
         "distill/*.jinja", "distill/report/*.js"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split()
]  # fmt: skip


@pytest.mark.parametrize("words", PLAIN)
def test_hard_words_are_not_used(words):
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(words, line, re.IGNORECASE)
    ]
    assert found == [], f"write {PLAIN[words]!r}"


def test_the_files_are_there():
    assert len(FILES) > 50 or not (ROOT / ".git").exists()
