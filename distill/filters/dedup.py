"""Deduplication: equal texts by a hash, near-duplicates by MinHash over all their word pieces.

A text's signature of `SIGNATURE_BYTES` bytes can be stored and later estimates the Jaccard similarity of two texts'
pieces. From the signatures of many texts, `near_duplicates` returns for example `{4: 1}`: the text at index 4 repeats
the one at index 1.

rensa's own LSH is not used: it cannot be filled from stored signatures and does not report which text is repeated.
"""

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from distill.filters.shingles import Hashes, batches, flat_shingles, jaccard, mix

SignatureMatrix = Any
"""A numpy array of uint16, (N, NUM_SLOTS): one row per text."""

Member = tuple[int, list[int]]
"""A text's index and the buckets that it shares with other texts."""

SIGNATURE_VERSION = 1
"""Part of the cache key: signatures of different versions are not comparable."""

NUM_SLOTS = 128
"""The standard error of an estimated similarity s is sqrt(s (1 - s) / NUM_SLOTS): 0.027 at 0.9."""

SIGNATURE_BYTES = 2 * NUM_SLOTS
"""Only the low 16 bits of each 32-bit slot are kept, so different slots look equal once in 65,536 times (b-bit MinHash,
https://arxiv.org/abs/0910.3349)."""

MAX_MISSED = 1e-3
"""Share of the pairs exactly at the threshold that banding may miss; it misses fewer of the more similar ones."""

MAX_BUCKET = 256
"""Most earlier texts of a bucket that a text is compared with. Without a limit, thousands of texts from one template,
each just below the threshold, would all be compared with each other."""

MAX_PAIRWISE = 64
"""Up to this many texts are all compared with each other, without banding."""

_SEED = 20_111
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_MULTIPLES = (
    "hundred thousand million billion dozen half halves third thirds quarter quarters once twice thrice double triple"
)
_NUMBER_WORDS = {word: str(value) for value, word in enumerate(_UNITS.split())} | {
    word: str(10 * tens) for tens, word in enumerate(_TENS.split(), 2)
}
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!])(?=\d{3})")
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
    r"|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215e]+"
    rf"|\b(?:{'|'.join([*_NUMBER_WORDS, *_MULTIPLES.split()])})\b"
)


def content_key(*texts: str) -> bytes:
    """Return a 16-byte hash of texts in order; equal keys mean equal texts up to whitespace.

    Consecutive spaces, line breaks and tabs count as one space; leading and trailing ones are ignored.
    """
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        folded = " ".join(text.split()).encode("utf-8", "surrogatepass")
        digest.update(len(folded).to_bytes(8, "little") + folded)
    return digest.digest()


def numbers_of(text: str) -> tuple[str, ...]:
    """Return the numbers in a text, in order: digits with sign and decimals, superscripts, English number words.

    Problems that differ in their numbers are different problems, however much wording they share. `1,000`, `1{,}000`
    and `1000` are the same number, and so are `three` and `3`; `3.0` and `3` differ.
    """
    text = _THOUSANDS.sub("", text.casefold().replace("\N{MINUS SIGN}", "-"))
    return tuple(_NUMBER_WORDS.get(found, found.replace(",", "")) for found in _NUMBER.findall(text))


def number_key(text: str) -> int:
    """Return a 64-bit hash of `numbers_of` a text, for the `keys` of `near_duplicates`."""
    return int.from_bytes(hashlib.blake2b("\n".join(numbers_of(text)).encode(), digest_size=8).digest(), "little")


def signature(text: str) -> bytes:
    """Return a text's signature (`SIGNATURE_BYTES` bytes), the same in every process and on every machine."""
    return bytes(signatures([text])[0].tobytes())


def signatures(texts: Iterable[str]) -> SignatureMatrix:
    """Return the signatures of N texts: (N, NUM_SLOTS). Far cheaper for many short texts than one by one."""
    return np.concatenate([np.empty((0, NUM_SLOTS), dtype="<u2"), *(slots for slots, _, _ in _sketched(texts))])


def similarity(left: bytes, right: bytes) -> float:
    """Estimate the Jaccard similarity of two texts from their signatures, in [0, 1].

    Raises:
        ValueError: a signature has the wrong size.
    """
    pair = as_matrix([left, right])
    return float((pair[0] == pair[1]).mean())


def as_matrix(found: Sequence[bytes]) -> SignatureMatrix:
    """Return N signatures as a matrix, (N, NUM_SLOTS).

    Raises:
        ValueError: a signature has the wrong size.
    """
    wrong = next((len(row) for row in found if len(row) != SIGNATURE_BYTES), None)
    if wrong is not None:
        raise ValueError(
            f"a signature has {wrong} bytes instead of {SIGNATURE_BYTES}: it was not made by `signature` of version "
            f"{SIGNATURE_VERSION}. Compute the signatures again"
        )
    return np.frombuffer(b"".join(found), dtype="<u2").reshape(-1, NUM_SLOTS)


def near_duplicates(
    found: Sequence[bytes] | SignatureMatrix,
    threshold: float,
    keys: Sequence[int] | Hashes | None = None,
    verify: Callable[[int, int], bool] | None = None,
) -> dict[int, int]:
    """Return which texts repeat an earlier one: `{index: index of the earliest kept text that it repeats}`.

    Texts are processed in the given order, which should be that of their identities; one that repeats no kept text is
    kept. Texts are never compared with duplicates, so a chain of small changes does not join distant texts. Up to
    `MAX_PAIRWISE` texts, all pairs are compared; beyond that, pairs that share a band of their signatures (LSH).

    Args:
        found: N signatures, as bytes or as (N, NUM_SLOTS).
        threshold: minimum Jaccard similarity of duplicates, in [0, 1].
        keys: a number below 2**64 per text; texts with different keys are never duplicates (`number_key`).
        verify: `verify(earlier, later)` decides on pairs whose estimate is at most four standard errors below the
            threshold (exact if it compares `shingles` by `jaccard`). Without it the estimate decides.

    Raises:
        ValueError: the threshold is outside [0, 1], a signature has the wrong size, or the number of keys is wrong.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; give the Jaccard similarity of duplicates, in [0, 1]")
    matrix = found if isinstance(found, np.ndarray) else as_matrix(found)
    labels: Hashes = np.zeros(len(matrix), dtype=np.uint64) if keys is None else np.asarray(keys, dtype=np.uint64)
    if len(labels) != len(matrix):
        raise ValueError(f"{len(labels)} keys for {len(matrix)} signatures; give one for each")
    slack = 4 * (threshold * (1 - threshold) / NUM_SLOTS) ** 0.5 if verify else 0.0
    least = (threshold - slack) * NUM_SLOTS  # equal slots that similar texts must have

    kept: dict[int, list[int]] = {}
    repeated: dict[int, int] = {}
    for index, buckets in _members(matrix, labels, threshold, least):
        rivals = sorted({other for bucket in buckets for other in kept.get(bucket, ())})
        if rivals:
            equal_slots = (matrix[rivals] == matrix[index]).sum(axis=1).tolist()
            similar = (other for other, equal in zip(rivals, equal_slots, strict=True) if equal >= least)
            earlier = next((other for other in similar if verify is None or verify(other, index)), None)
            if earlier is not None:
                repeated[index] = earlier
                continue
        for bucket in buckets:
            members_kept = kept.setdefault(bucket, [])
            if len(members_kept) < MAX_BUCKET:
                members_kept.append(index)
    return repeated


def near_duplicate_texts(texts: Sequence[str], threshold: float, keys: Sequence[int] | None = None) -> dict[int, int]:
    """Run `near_duplicates` on texts, by exact similarity. Needs as much memory again as the texts."""
    sketched = list(_sketched(texts))
    matrix = np.concatenate([np.empty((0, NUM_SLOTS), dtype="<u2"), *(slots for slots, _, _ in sketched)])
    hashes = [hashes[start:stop] for _, hashes, offsets in sketched for start, stop in pairwise(offsets.tolist())]

    @cache
    def pieces(index: int) -> frozenset[int]:
        return frozenset(hashes[index].tolist())

    def verify(earlier: int, later: int) -> bool:
        return jaccard(pieces(earlier), pieces(later)) >= threshold

    return near_duplicates(matrix, threshold, keys, verify)


def rows_per_band(threshold: float) -> int:
    """Return the number of slots in a band: the largest with which banding misses at most `MAX_MISSED`.

    Two texts of similarity s share a band of r slots with probability s**r, and none of b bands with (1 - s**r)**b
    (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2).
    """
    fitting = [r for r in range(1, NUM_SLOTS + 1) if (1 - threshold**r) ** (NUM_SLOTS // r) <= MAX_MISSED]
    return max(fitting, default=1)


def _sketched(texts: Iterable[str]) -> Iterator[tuple[SignatureMatrix, Hashes, Hashes]]:
    """Yield for each batch the signatures of its N texts, (N, NUM_SLOTS), all their pieces and each text's offsets."""
    from rensa import RMinHash  # type: ignore[import-untyped]

    for batch in batches(texts):
        hashes, offsets = flat_shingles(batch)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, NUM_SLOTS, _SEED)
        # `array` converts a list of numbers twice as fast as numpy.
        slots = b"".join(array("I", row) for row in matrix.to_rows())
        yield np.frombuffer(slots, dtype=np.uint32).astype("<u2").reshape(-1, NUM_SLOTS), hashes, offsets


def _members(matrix: SignatureMatrix, labels: Hashes, threshold: float, least: float) -> Iterator[Member]:
    """Yield by index each text to compare with others, with the buckets that it shares with them."""
    if len(matrix) <= MAX_PAIRWISE:
        return ((index, [label]) for index, label in enumerate(labels.tolist()))
    return _banded(matrix, labels, rows_per_band(threshold), least)


def _banded(matrix: SignatureMatrix, labels: Hashes, rows: int, least: float) -> Iterator[Member]:
    """Yield `_members` by LSH: a bucket is a key and the same `rows` slots in the same position."""
    weights = mix(np.arange(NUM_SLOTS, dtype=np.uint64) + np.uint64(1)) | np.uint64(1)
    of_key = mix(labels)
    members: list[Any] = []
    buckets: list[Any] = []
    num_buckets = 0
    for start in range(0, NUM_SLOTS - rows + 1, rows):
        band = slice(start, start + rows)
        hashes = matrix[:, band].astype(np.uint64) @ weights[band] + of_key
        order = np.argsort(hashes)
        starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[0]]))
        sizes = np.diff(starts, append=len(order))
        sizes[sizes == 1] = 0
        # Most buckets hold two dissimilar texts. Dropped here, they never reach the Python loop over members.
        pairs = starts[sizes == 2]
        equal_slots = (matrix[order[pairs]] == matrix[order[pairs + 1]]).sum(axis=1)
        sizes[sizes == 2] = np.where(equal_slots >= least, 2, 0)
        shared: Any = np.repeat(sizes > 0, np.diff(starts, append=len(order)))
        members.append(order[shared].astype(np.int32))
        buckets.append(np.repeat(np.arange(len(sizes), dtype=np.int32) + num_buckets, sizes))
        num_buckets += len(sizes)
    index_M, bucket_M = np.concatenate(members), np.concatenate(buckets)  # M = memberships
    order = np.argsort(index_M, kind="stable")
    index_M, bucket_M = index_M[order], bucket_M[order]
    bounds = np.flatnonzero(np.diff(index_M, prepend=-1, append=-1)).tolist()
    for start, stop in pairwise(bounds):
        yield int(index_M[start]), bucket_M[start:stop].tolist()
