"""Texts as they may leave this machine: no folders of it, no internal addresses, nothing secret.

Enters: JSON-ready values and texts. Leaves: the same with a file's name for its path, with placeholders for hosts and
for whatever looks like a key:

    "/home/me/.cache/huggingface/hub/models--org--name/snapshots/12ab…/config.json"  ->  "org/name/config.json"
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.secrets import KEYS, MIN_SECRET_CHARS, environment_secrets

REDACTED = "[redacted]"
_PATH = re.compile(r"(?:(?<=file:)|(?<![\w:/.~<]))/[^\s'\"`:,;<>|(){}\[\]]+")
_SNAPSHOT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/[^/]+")


def scrub(value: Any) -> Any:
    """A JSON-ready value without local paths, server addresses and secrets."""
    if isinstance(value, Mapping):
        return {
            scrub_text(key) if isinstance(key, str) else key: _hide_hosts(inner) if key == "base_urls" else scrub(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub(inner) for inner in value]
    return scrub_text(value) if isinstance(value, str) else value


def scrub_text(text: str) -> str:
    """A text without local paths and secrets."""
    return redact(_PATH.sub(lambda found: local_name(found[0]), text))


def local_name(path: str) -> str:
    """A path of this machine by its last part, or by the Hub id that it is a copy of; any other text as it is."""
    if found := _SNAPSHOT.search(path):
        return f"{found[1]}/{found[2]}{path[found.end() :]}"
    parts = path.split("/")
    if len(parts) < 3 or not _is_top_folder(parts[1]):
        return path
    return parts[-1] or parts[-2]


@cache
def _is_top_folder(name: str) -> bool:
    return Path("/", name).is_dir()


def redact(text: str) -> str:
    """A text in which whatever is secret in the environment, or looks like a key, is blotted out."""
    for secret in secrets():
        text = text.replace(secret, REDACTED)
    return KEYS.sub(REDACTED, text)


def secrets() -> list[str]:
    """The values of environment variables that are named like secrets, and the Hub's token; longest first."""
    from huggingface_hub import get_token

    found = {*environment_secrets(), get_token() or ""}
    return sorted((value for value in found if len(value) >= MIN_SECRET_CHARS), key=lambda v: (-len(v), v))


def _hide_hosts(urls: Any) -> Any:
    """Addresses that a recipe still accepts, and that lead nowhere."""
    if not isinstance(urls, list):
        return scrub(urls)
    return [f"http://server-{number}.invalid/v1" for number in range(1, len(urls) + 1)]
