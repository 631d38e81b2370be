"""Selection of the files to publish: safetensors and text only, each checked by name and by content.

Pickles are refused because loading one may run code, unknown files because they may hold anything.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.core.redaction import local_name, scrub
from distill.errors import StoreError
from distill.storage.fingerprints import hash_of_hashes, hashes_of, sha256_of

WEIGHTS = re.compile(r"(model|adapter_model)(-\d{5}-of-\d{5})?\.safetensors")
TEXTS = re.compile(
    r"(config|generation_config|adapter_config|(adapter_)?model\.safetensors\.index"
    r"|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json"
    r"|merges\.txt|vocab\.txt|chat_template\.jinja|additional_chat_templates/[\w.-]+\.jinja"
)
NOT_PUBLISHED = re.compile(r"README\.md|tokenizer\.model")
"""Skipped: peft's own card, and a binary vocabulary that tokenizer.json contains as well."""
PICKLES = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz|distcp|h5|msgpack|zip|tar|gz)")
CARD = "README.md"
FILE_LIST = "distill/files.json"
"""Path -> SHA-256 of what distill has published in a repository; the next push recognises its own files by it."""
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class PublishedFile:
    """One file of a repository."""

    path: str
    """In the repository."""
    source: Path | bytes
    size: int
    """In bytes."""
    sha256: str

    @cached_property
    def git_oid(self) -> str:
        """Return git's blob id, by which the Hub identifies files that it does not store as LFS."""
        digest = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        if isinstance(self.source, bytes):
            digest.update(self.source)
        else:
            with self.source.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()


def text_file(path: str, text: str) -> PublishedFile:
    """Return a file with the given text."""
    content = text.encode(errors="replace")
    return PublishedFile(path, content, len(content), hashlib.sha256(content).hexdigest())


def json_file(path: str, value: Any) -> PublishedFile:
    """Return a JSON file without local paths, server addresses and secrets."""
    return text_file(path, json.dumps(scrub(value), indent=2, allow_nan=False) + "\n")


def stored_file(path: str, source: Path, sha256: str | None = None) -> PublishedFile:
    """Return a local file, to be published unchanged."""
    return PublishedFile(path, source, source.stat().st_size, sha256 or sha256_of(source))


def file_list(files: Iterable[PublishedFile]) -> PublishedFile:
    """Return the file that lists all the others."""
    hashes = {file.path: file.sha256 for file in sorted(files, key=lambda f: f.path)}
    return text_file(FILE_LIST, json.dumps({"schema_version": 1, "files": hashes}, indent=2) + "\n")


def checked_hashes(folder: Path, expected_sha256: str, remake: str) -> dict[str, str]:
    """Return each file's SHA-256 after checking the folder against the manifest.

    Args:
        folder: of an output.
        expected_sha256: from the manifest.
        remake: sentence for the error message: how to make the output again.

    Raises:
        StoreError: the folder is gone or its content has changed since it was made.
    """
    if not folder.is_dir():
        raise StoreError(f"{folder}: is gone, though its stage is complete. {remake}")
    hashes = hashes_of(folder)
    if hash_of_hashes(hashes) != expected_sha256:
        raise StoreError(
            f"{folder}: its content has changed since its stage wrote it (checksum), so it is not published. {remake}"
        )
    return hashes


def model_files(folder: Path, hashes: Mapping[str, str], base: str, inside: str = "") -> list[PublishedFile]:
    """Return what to publish of a folder with a model or an adapter.

    Args:
        folder: as training saved it.
        hashes: SHA-256 by file name.
        base: public name of the base model, which an adapter's config must give.
        inside: prefix in the repository, ending in a slash.

    Raises:
        StoreError: the folder holds a pickle or another unexpected file, or no safetensors weights.
    """
    files = []
    for name, sha256 in hashes.items():
        path = folder / name
        if path.is_symlink():
            raise StoreError(f"{path}: a link, which could lead anywhere. Put the file itself there.")
        if WEIGHTS.fullmatch(name):
            check_safetensors(path)
            files.append(stored_file(inside + name, path, sha256))
        elif TEXTS.fullmatch(name):
            files.append(_text_of(path, inside + name, sha256, base))
        elif not NOT_PUBLISHED.fullmatch(name):
            raise StoreError(_unwanted(path, name))
    if not any(WEIGHTS.fullmatch(name) for name in hashes):
        raise StoreError(
            f"{folder}: holds no safetensors, so there are no weights to publish. "
            "Move the folder away and train again with `distill sft`."
        )
    return files


def checkpoint_files(folder: Path, base: str) -> list[PublishedFile]:
    """Return what to publish of a checkpoint: weights and texts without optimiser state; empty without safetensors."""
    wanted = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    names = {
        path.name: sha256_of(path) for path in wanted if WEIGHTS.fullmatch(path.name) or TEXTS.fullmatch(path.name)
    }
    return model_files(folder, names, base) if any(WEIGHTS.fullmatch(name) for name in names) else []


def check_safetensors(path: Path) -> None:
    """Check the header of a safetensors file: its length, then a JSON object.

    Raises:
        StoreError: the file is not safetensors, whatever its name.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size >= 8 and 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            try:
                if isinstance(json.loads(stream.read(length)), dict):
                    return
            except ValueError:
                pass
    raise StoreError(f"{path}: is not a safetensors file, so it is not published. Remove it or download it again.")


def _text_of(path: Path, name: str, sha256: str, base: str) -> PublishedFile:
    """Return a text file, rewritten only if a config in it names local folders."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise StoreError(f"{path}: is not a text file, so it is not published. Fix or remove it.")
    if path.name in ("config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json"):
        values = _json_object(path, text)
        clean = {key: _without_folders(key, value, base) for key, value in values.items()}
        if clean != values:
            return text_file(name, json.dumps(clean, indent=2) + "\n")
    return stored_file(name, path, sha256)


def _json_object(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: is not a JSON object, so it is not published. Fix or remove it.")
    return value


def _without_folders(key: str, value: Any, base: str) -> Any:
    if key == "base_model_name_or_path":
        return base
    # A leading slash in a chat template does not begin a path.
    return local_name(value) if key != "chat_template" and isinstance(value, str) and value.startswith("/") else value


def _unwanted(path: Path, name: str) -> str:
    what = (
        "a pickle or an archive, which may run code when it is loaded"
        if PICKLES.fullmatch(name)
        else "not part of a student"
    )
    return f"{path}: is {what}, so nothing is published. Move it elsewhere."
