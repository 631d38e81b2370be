"""Find keys, tokens and passwords in texts.

Results say where a secret is and of what kind, but never contain it.
"""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

MIN_SECRET_CHARS = 8
MIN_FOUND_CHARS = 16
"""A shorter value from the environment may be an ordinary word that a text contains by chance."""
MIN_RANDOM_CHARS = 32
MIN_RANDOM_BITS = 4.2
"""Entropy per character of a long text that looks random. English has about 4.1 over its letters."""

SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
"""Names of environment variables that hold secrets."""
# A key does not start after a letter or digit, except after a JSON escape inside a text: `\nhf_…`, `\u003dhf_…`.
# `\b` will not do: in Chinese, which has no spaces, it finds no word boundary before `hf_`.
_FRONT = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-fA-F]{4}))"
KEY_KINDS = {
    "a Hugging Face token": _FRONT + r"(?:hf_(?:oauth_)?|api_org_)[A-Za-z0-9]{20,}",
    "an API key (sk-…)": _FRONT + r"sk-[A-Za-z0-9_-]{20,}",
    "a Stripe key": _FRONT + r"[rs]k_live_[A-Za-z0-9]{20,}",
    "a GitHub token": _FRONT + r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "a GitLab token": _FRONT + r"glpat-[A-Za-z0-9_-]{20,}",
    "an AWS access key": _FRONT + r"A(?:KIA|SIA)[0-9A-Z]{16}(?![A-Za-z0-9])",
    "a Google API key": _FRONT + r"AIza[0-9A-Za-z_-]{35}",
    "a Google client's secret": _FRONT + r"GOCSPX-[0-9A-Za-z_-]{24,}",
    "a Slack token": _FRONT + r"(?:xox[abeprs]|xapp)-[A-Za-z0-9-]{10,}",
    "an API key (nvapi-…)": _FRONT + r"nvapi-[A-Za-z0-9_-]{20,}",
    "an API key (gsk_…)": _FRONT + r"gsk_[A-Za-z0-9]{20,}",
    "an API key (xai-…)": _FRONT + r"xai-[A-Za-z0-9]{40,}",
    "an API key (pplx-…)": _FRONT + r"pplx-[A-Za-z0-9]{32,}",
    "an API key (tgp_v1_…)": _FRONT + r"tgp_v1_[A-Za-z0-9_-]{30,}",
    "a Replicate token": _FRONT + r"r8_[A-Za-z0-9]{30,}",
    "an npm token": _FRONT + r"npm_[A-Za-z0-9]{30,}",
    "a PyPI token": _FRONT + r"pypi-AgE[A-Za-z0-9_-]{40,}",
    "a DigitalOcean token": _FRONT + r"do[opr]_v1_[a-f0-9]{40,}",
    "a SendGrid key": _FRONT + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "a JSON web token": _FRONT + r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----",
}
KEYS = re.compile("|".join(f"(?:{pattern})" for pattern in KEY_KINDS.values()))
HERE = "the value of an environment variable that holds a secret"
# Part of the key itself must follow: texts about keys quote only the first line.
_PEM = r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/]{40}"
_ROW_KINDS = {kind: re.compile(pattern) for kind, pattern in {**KEY_KINDS, "a private key": _PEM}.items()}
_BEGINNINGS = {
    **dict.fromkeys(("hf_", "api_org_"), "a Hugging Face token"),
    "sk-": "an API key (sk-…)",
    **dict.fromkeys(("sk_live_", "rk_live_"), "a Stripe key"),
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), "a GitHub token"),
    "glpat-": "a GitLab token",
    **dict.fromkeys(("AKIA", "ASIA"), "an AWS access key"),
    "AIza": "a Google API key",
    "GOCSPX-": "a Google client's secret",
    **dict.fromkeys(("xox", "xapp-"), "a Slack token"),
    "nvapi-": "an API key (nvapi-…)",
    "gsk_": "an API key (gsk_…)",
    "xai-": "an API key (xai-…)",
    "pplx-": "an API key (pplx-…)",
    "tgp_v1_": "an API key (tgp_v1_…)",
    "r8_": "a Replicate token",
    "npm_": "an npm token",
    "pypi-": "a PyPI token",
    **dict.fromkeys(("doo_v1_", "dop_v1_", "dor_v1_"), "a DigitalOcean token"),
    "SG.": "a SendGrid key",
    "eyJ": "a JSON web token",
    "-----BEGIN ": "a private key",
}
"""Prefix -> kind of key. Searching for prefixes first is tens of times faster than the patterns alone."""
_RARE = ("AKIA", "ASIA", "AIza", "SG.", "eyJ", "-----BEGIN ")
_JOINED = (re.compile("_[A-Za-z0-9_]{20}"), re.compile("-[A-Za-z0-9_-]{10}"))
"""Each known key has a rare prefix, or a long run after `_` or `-`. A text without either needs no further search."""
_HIDDEN = re.compile(r"\\(?=[_.-])|[\u00ad\u200b-\u200d\u2060\ufeff]")
"""Invisible characters within a key: the backslash of LaTeX's and Markdown's `\\_`, and zero-width characters."""
MIN_KEY_BITS = 3.0
"""Entropy per character of a key. `xxxxxxxx` has none; 20 random letters and digits have 3.7 or more."""
JWT_EXAMPLE = ".eyJzdWIiOiIxMjM0NTY3ODkwI"
"""Payload of the example token of jwt.io and of texts about RFC 7519 (`{"sub": "1234567890"…`)."""
_BEARER = re.compile(r"\b(?:bearer|basic)\s+(?=\S*[0-9])[A-Za-z0-9._~+/-]{16,}=*", re.IGNORECASE)
_LOGIN = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@:]*:[^\s/@]+|[^\s/@:]{16,})@")
"""An address with user and password, or with a user name so long that it must be a token."""
_NAMED_SECRET = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|access[_-]?key|private[_-]?key|secret(?:[_-]?key)?|passwords?|passwd|authorization|"
    r"credentials?|(?:access|api|auth|bearer|hub|hf|id|refresh|session)[_-]?token)|token",
    re.IGNORECASE,
)
# Excludes hyphens, dots and slashes, which join the parts of long model names.
_WORD = re.compile(rf"[A-Za-z0-9_+]{{{MIN_RANDOM_CHARS},}}")
_NAMES = frozenset({"source", "student", "teacher", "repo", "dataset", "chat_template", "revision", "student_revision"})
"""Recipe keys whose values are names, paths and hashes."""


def environment_secrets(min_chars: int = MIN_SECRET_CHARS) -> list[str]:
    """Return the values of environment variables with names of secrets, longest first."""
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    return sorted((value for value in found if len(value) >= min_chars), key=lambda value: (-len(value), value))


def may_hold_key(text: str) -> bool:
    """Return whether a text is worth a search for keys: tens of times faster than `KEYS`, which cannot match if not."""
    return any(rare in text for rare in _RARE) or any(pattern.search(text) for pattern in _JOINED)


class SecretFinder:
    """A scanner for secrets in large numbers of rows: fast, and with few false alarms.

    Args:
        values: known secrets, as the environment holds them. Those shorter than `MIN_FOUND_CHARS` are searched for only
            if they mix letters with digits or signs, and only as whole words; others are ordinary words.
    """

    def __init__(self, values: Iterable[str]) -> None:
        values = list(values)
        long = [value for value in values if len(value) >= MIN_FOUND_CHARS]
        self._values = list(dict.fromkeys(form for value in long for form in (value, *_written(value))))
        short = [value for value in values if MIN_SECRET_CHARS <= len(value) < MIN_FOUND_CHARS and _is_mixed(value)]
        self._short = {value: re.compile(rf"(?<!\w){re.escape(value)}(?!\w)") for value in short}

    def kind_in(self, text: str) -> str | None:
        """Return the kind of the first secret in a text, never the secret itself; `None` if there is none."""
        plain = _HIDDEN.sub("", text)
        return self._kind_in(text) or (self._kind_in(plain) if plain != text else None)

    def _kind_in(self, text: str) -> str | None:
        if any(value in text for value in self._values):
            return HERE
        if any(value in text and pattern.search(text) for value, pattern in self._short.items()):
            return HERE
        if not may_hold_key(text):
            return None
        return next((kind for beginning, kind in _BEGINNINGS.items() if _holds_key(text, beginning, kind)), None)


def _written(value: str) -> tuple[str, ...]:
    """Return a secret as JSON and URLs encode it."""
    quoted = json.dumps(value)[1:-1]
    return quoted, json.dumps(quoted)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], quote(value, safe="")


def _holds_key(text: str, beginning: str, kind: str) -> bool:
    at = text.find(beginning)
    while at >= 0:
        found = _ROW_KINDS[kind].match(text, at)
        if found and _is_drawn(found[0]):
            return True
        at = text.find(beginning, at + len(beginning))
    return False


def _is_mixed(value: str) -> bool:
    return any(char.isalpha() for char in value) and not value.isalpha()


def _is_drawn(key: str) -> bool:
    """Return whether a key looks random, and not like a placeholder (`sk-xxxxxxxx`), a name or an example."""
    # A name may look like a key too: `sk-learn-based-pipelines`.
    if key.startswith("-----"):
        return True
    body = re.sub(r"^(?:github_pat_|[A-Za-z]{2,5}[_-])", "", key)
    counts = Counter(body).values()
    bits = -sum(n / len(body) * math.log2(n / len(body)) for n in counts)
    kinds = sum(any(test(char) for char in body) for test in (str.isupper, str.islower, str.isdigit))
    return kinds >= 2 and bits >= MIN_KEY_BITS and not body.endswith("EXAMPLE") and JWT_EXAMPLE not in key


def secrets_in_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, kind) for each line with a secret of a known form, or with one that the environment holds."""
    here = environment_secrets(MIN_FOUND_CHARS)
    for number, line in enumerate(text.splitlines(), start=1):
        kind = next((kind for kind, pattern in KEY_KINDS.items() if re.search(pattern, line)), None)
        if kind is None and _BEARER.search(line):
            kind = "a login for a server (Authorization)"
        if kind is None and _LOGIN.search(line):
            kind = "a login in an address"
        if kind is None and any(secret in line for secret in here):
            kind = HERE
        if kind is not None:
            yield number, kind


def hide_logins(text: str) -> str:
    """Mask the user and password of each address in a text."""
    return _LOGIN.sub(r"\1***@", text)


def secrets_in_tree(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (place, kind) for values that are secret by their key's name, or long and random."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            named = isinstance(key, str) and _NAMED_SECRET.fullmatch(key)
            if named and isinstance(inner, str | int | float) and not isinstance(inner, bool) and str(inner):
                yield (*at, key), f"a secret under the name {key!r}"
            else:
                yield from secrets_in_tree(inner, (*at, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from secrets_in_tree(inner, (*at, number))
    elif isinstance(value, str) and not (at and at[-1] in _NAMES) and any(map(_looks_random, _WORD.findall(value))):
        yield at, "a long random text, as keys are"


def _looks_random(word: str) -> bool:
    kinds = sum(any(test(char) for char in word) for test in (str.isupper, str.islower, str.isdigit))
    counts = Counter(word).values()
    bits = -sum(n / len(word) * math.log2(n / len(word)) for n in counts)
    return kinds == 3 and bits >= MIN_RANDOM_BITS
