"""Search for rows that must not be published because they hold a key, a token or a password."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.core.secrets import SecretFinder
from distill.errors import UserError
from distill.storage.shards import readable

BATCH_ROWS = 64
NUM_SHOWN = 10


def refuse_secrets(folders: list[Path], finder: SecretFinder) -> None:
    """Refuse to publish rows that hold secrets.

    Args:
        folders: of Parquet files.
        finder: recognises secrets.

    Raises:
        UserError: rows hold secrets; the message gives ids and kinds, never a secret.
    """
    found = [(f"{folder.name} {name}", kind) for folder in folders for name, kind in rows_with_secrets(folder, finder)]
    if not found:
        return
    shown = "\n".join(f"  {name}: {kind}" for name, kind in found[:NUM_SHOWN])
    more = f"\n  and {len(found) - NUM_SHOWN:,} more" if len(found) > NUM_SHOWN else ""
    raise UserError(
        f"push: {len(found):,} rows hold secrets, so nothing is published:\n{shown}{more}\n"
        f"Kept rows: move {folders[0].parent} aside, run `distill filter` again, which drops them (secret), and train "
        "again. Dropped rows: set push.dropped: false. Revoke what others may have seen."
    )


def rows_with_secrets(folder: Path, finder: SecretFinder) -> Iterator[tuple[str, str]]:
    """Yield (problem_id/sample_index, kind of secret) of each row with a secret in any of its texts.

    Raises:
        StoreError: a file cannot be read.
    """
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("*.parquet")):
        with readable(file), pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    kind = next((kind for text in _texts(row) if (kind := finder.kind_in(text))), None)
                    if kind is not None:
                        yield f"{row.get('problem_id')}/{row.get('sample_index')}", kind


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
