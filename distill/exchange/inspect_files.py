"""Read the files of an Inspect log, which may come from anyone: bounded, nothing unpacked to the disk, nothing run.

A `.json` log is one object. An `.eval` log is a zip:

    header.json            without samples; missing if the evaluation was killed: then `_journal/start.json`
    samples/<id>_epoch_1.json

Newer versions compress its members with Zstandard (method 93), which Python 3.11's zipfile does not know.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from distill.core.file_kinds import FILE, MISSING, kind_of
from distill.errors import ExchangeError

MAX_JSON_BYTES = 256 << 20
"""Of a `.json` log, which is parsed whole. Nothing but brackets takes 21 times its size in memory."""
MAX_MEMBER_BYTES = 64 << 20
"""Of a member of an `.eval` log, unpacked. An answer of 10 MB stands in it up to five times."""
MAX_EVAL_BYTES = 4 << 30
"""Of all members of an `.eval` log that are read, unpacked. One is in memory at a time."""
MAX_SAMPLES = 500_000

ZSTANDARD = 93
"""Zstandard's number in the zip format (APPNOTE 6.3.8, section 4.4.5)."""
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""Signature to lengths of name and extra field (APPNOTE, section 4.3.7)."""
_SAMPLE = re.compile(r"samples/[^/]{1,400}\.json")
_READ_BYTES = 1 << 20


class InspectFile:
    """One log: its header, and its samples one after the other.

    Raises:
        ExchangeError: there is no such file, it is no log, or it is too large.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = kind_of(path)
        if kind != FILE:
            what = "there is no such file" if kind == MISSING else f"is {kind}"
            raise ExchangeError(f"{path}: {what}. Name a log that Inspect wrote, a .json or an .eval file.")
        if path.suffix not in (".json", ".eval"):
            raise ExchangeError(f"{path}: neither .json nor .eval, so it is no log of Inspect.")
        self._is_zip = path.suffix == ".eval"
        self._num_bytes = 0
        self._log: dict[str, Any] = {}
        if not self._is_zip:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise self._too_large()
            self._log = self._parsed(path.read_bytes(), "")

    def header(self) -> dict[str, Any]:
        """Return the log without its samples."""
        if not self._is_zip:
            return {key: value for key, value in self._log.items() if key != "samples"}
        with self._opened() as archive:
            names = set(archive.namelist())
            for name in ("header.json", "_journal/start.json"):
                if name in names:
                    return self._parsed(self._member(archive, name), name)
        raise ExchangeError(f"{self.path}: has no header.json, so it is no log of Inspect.")

    def samples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each sample with its place in the log, for messages."""
        if not self._is_zip:
            yield from self._listed()
            return
        with self._opened() as archive:
            # A sample that was run again is written again under the same name; the last one counts.
            names = dict.fromkeys(name for name in archive.namelist() if _SAMPLE.fullmatch(name))
            self._check_count(len(names))
            for name in names:
                yield name, self._parsed(self._member(archive, name), name)

    def _listed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        samples = self._log.get("samples") or []
        if not isinstance(samples, list):
            raise ExchangeError(f"{self.path}: samples is not a list. It is no log of Inspect, or a damaged one.")
        self._check_count(len(samples))
        for place, sample in enumerate(samples):
            if not isinstance(sample, dict):
                raise ExchangeError(f"{self.path}: samples.{place} is not an object. The log is damaged.")
            yield f"samples.{place}", sample

    def _check_count(self, num_samples: int) -> None:
        if num_samples > MAX_SAMPLES:
            raise ExchangeError(f"{self.path}: has {num_samples:,} samples, more than the limit of {MAX_SAMPLES:,}.")

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise ExchangeError(f"{self.path}: cannot be opened ({error}). The log is damaged.") from None

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        """Unpack one member in memory, at most `MAX_MEMBER_BYTES`, and no more than a log may have in all."""
        member = archive.getinfo(name)
        limit = min(MAX_MEMBER_BYTES, MAX_EVAL_BYTES - self._num_bytes)
        # The size that is told need not be true, but nothing honest exceeds it.
        if member.file_size > limit:
            raise self._too_large(name)
        try:
            if member.compress_type == ZSTANDARD:
                content = self._zstandard(member, limit)
            else:
                with archive.open(member) as stream:
                    content = stream.read(limit + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error) as error:
            raise ExchangeError(f"{self.path}: {name} cannot be unpacked ({error}). The log is damaged.") from None
        if len(content) > limit:
            raise self._too_large(name)
        self._num_bytes += len(content)
        return content

    def _zstandard(self, member: zipfile.ZipInfo, limit: int) -> bytes:
        import pyarrow as pa

        with self.path.open("rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise zipfile.BadZipFile("no header where the directory says")
            *_, num_name_bytes, num_extra_bytes = _LOCAL_HEADER.unpack(header)
            file.seek(num_name_bytes + num_extra_bytes, 1)
            content = _unpacked(pa.CompressedInputStream(_Part(file, member.compress_size), "zstd"), limit)
        if len(content) <= limit and zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return content

    def _parsed(self, content: bytes, name: str) -> dict[str, Any]:
        place = f"{self.path}: {name}" if name else str(self.path)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ExchangeError(f"{place}: not valid JSON ({str(error)[:200]}). The log is damaged.") from None
        if not isinstance(value, dict):
            raise ExchangeError(f"{place}: not a JSON object. It is no log of Inspect, or a damaged one.")
        return value

    def _too_large(self, name: str = "") -> ExchangeError:
        if not self._is_zip:
            return ExchangeError(
                f"{self.path}: larger than {MAX_JSON_BYTES >> 20} MiB. Convert it: "
                f"`inspect log convert {self.path.name} --to eval --output-dir .`"
            )
        return ExchangeError(
            f"{self.path}: {name} is too large (limits: {MAX_MEMBER_BYTES >> 20} MiB a sample, "
            f"{MAX_EVAL_BYTES >> 20:,} MiB a log). Run fewer samples a log (`inspect eval --limit`)."
        )


class _Part:
    """The next bytes of an open file, as a file of its own."""

    def __init__(self, file: IO[bytes], num_bytes: int) -> None:
        self._file, self._num_left = file, num_bytes
        self.closed = False

    def read(self, num_bytes: int = -1) -> bytes:
        wanted = self._num_left if num_bytes < 0 else min(num_bytes, self._num_left)
        content = self._file.read(wanted)
        self._num_left -= len(content)
        return content

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _unpacked(stream: Any, limit: int) -> bytes:
    """Read a stream to its end, or a little beyond the limit."""
    found = bytearray()
    while len(found) <= limit and (piece := stream.read(_READ_BYTES)):
        found += piece
    return bytes(found)
