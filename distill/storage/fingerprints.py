"""Fingerprints of what determines a result, their differences, and hashes of files and folders."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MAX_HASHERS = 16
"""Maximum number of threads that hash a folder's files."""


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of what determines a result."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ, with both values; `None` stands for absent."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if _are_lists_of_objects(before, after):
            before, after = _by_place(before), _by_place(after)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= {f"{key}.{inner}": pair for inner, pair in differences(before, after).items()}
        elif before != after:
            found[key] = (before, after)
    return found


def _by_place(items: Any) -> dict[str, Any]:
    return {str(place): item for place, item in enumerate(items)}


def _are_lists_of_objects(one: Any, other: Any) -> bool:
    """Return whether two lists are best compared item by item."""
    both = isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
    return both and all(isinstance(item, Mapping) for item in (*one, *other))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of a folder's files with their relative names."""
    if path.is_dir():
        return hash_of_hashes(hashes_of(path))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """Return each file's SHA-256 (hex) by its name in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_HASHERS)) as pool:
        return {
            file.relative_to(folder).as_posix(): sha256
            for file, sha256 in zip(files, pool.map(sha256_of, files), strict=True)
        }


def hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of a folder, from those of its files in the order of `hashes_of`."""
    return hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in hashes.items()).encode()).hexdigest()
