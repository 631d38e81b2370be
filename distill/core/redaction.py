"""Remove local paths, internal addresses and secrets from texts that leave this machine.

A path becomes a file name. Hosts, and anything that looks like a key, become placeholders:

    "/home/me/.cache/huggingface/hub/models--org--name/snapshots/12ab…/config.json"  ->  "org/name/config.json"
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.secrets import KEYS, MIN_SECRET_CHARS, environment_secrets, may_hold_key

REDACTED = "[redacted]"
_PATH = re.compile(r"(?:(?<=file:)|(?<![\w:/.~<]))/[^\s'\"`:,;<>|(){}\[\]]+")
_SNAPSHOT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/[^/]+")


def scrub(value: Any) -> Any:
    """Return a JSON-ready value without local paths, server addresses and secrets."""
    if isinstance(value, Mapping):
        return {
            scrub_text(key) if isinstance(key, str) else key: _hide_hosts(inner) if key == "base_urls" else scrub(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub(inner) for inner in value]
    return scrub_text(value) if isinstance(value, str) else value


def scrub_text(text: str) -> str:
    """Return a text without local paths and secrets."""
    return redact(_PATH.sub(lambda found: local_name(found[0]), text))


def local_name(path: str) -> str:
    """Return the last part of a local path, or the Hub id that it is a copy of. Return any other text unchanged."""
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
    """Replace secrets from the environment, and anything that looks like a key."""
    for secret in secrets():  # longest first, so that one which contains another is replaced whole
        text = text.replace(secret, REDACTED)
    return KEYS.sub(REDACTED, text) if may_hold_key(text) else text


def secrets() -> list[str]:
    """Return the Hub's token and the values of environment variables with names of secrets, longest first."""
    from huggingface_hub import get_token

    found = {*environment_secrets(), get_token() or ""}
    return sorted((value for value in found if len(value) >= MIN_SECRET_CHARS), key=lambda v: (-len(v), v))


def _hide_hosts(urls: Any) -> Any:
    """Replace server addresses by unreachable ones that a recipe still accepts."""
    if not isinstance(urls, list):
        return scrub(urls)
    return [f"http://server-{number}.invalid/v1" for number in range(1, len(urls) + 1)]
