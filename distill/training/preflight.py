"""Check tokenised rows before training. Single rows are checked by `distill.training.row_checks`.

Example of a finding:

    Finding("row_too_long", "3 of 800 rows (0.4%) are longer than sft.max_length (4096) …", refuses=True, num_rows=3)

Rows are read a few at a time, whatever their number.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distill.core.progress import ProgressBar
from distill.errors import ModelError
from distill.models.tokenizers import Tokenizer
from distill.recipe.sft import OWNED_TRL_KEYS, SftConfig
from distill.training.row_checks import SHOWN_ROWS, Finding, RowChecker, Tally, decode, rows_text
from distill.training.rows import IGNORED, SourceRow, render_rows, row_lengths, source_row, source_rows

if TYPE_CHECKING:
    import numpy as np

    Ids = np.ndarray[Any, np.dtype[np.int32]]
    Lengths = np.ndarray[Any, np.dtype[np.int32]]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
NUM_EXAMPLES = 3


class Segment(NamedTuple):
    """Text of consecutive tokens that are all trained, or all not."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A row as it will be trained."""

    name: str
    num_tokens: int
    num_trained_tokens: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Preflight:
    """Counts, lengths, findings and examples of the rows before training."""

    num_rows: int
    num_tokens: int
    num_trained_tokens: int
    num_steps: int
    quantiles: dict[str, int]
    """Quantiles of row lengths in tokens, by name (`p50`)."""
    longest_prompt: int
    """The largest number of untrained tokens in a row."""
    max_length: int
    num_too_long: int
    """Rows longer than `max_length`."""
    findings: tuple[Finding, ...]
    examples: tuple[Example, ...]

    @property
    def refusals(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.refuses]

    @property
    def warnings(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.refuses]

    def raise_if_refused(self) -> None:
        """Raise an error if any finding forbids training.

        Raises:
            ModelError: lists all findings that forbid training.
        """
        if self.refusals:
            raise ModelError("sft: " + "\n".join(finding.message for finding in self.refusals))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


def preflight(
    kept: Path,
    rows: Any,
    tokenizer: Tokenizer,
    config: SftConfig,
    model_config: Mapping[str, Any],
    context: int | None,
) -> Preflight:
    """Check rows as they will be trained; call `raise_if_refused` on the result to refuse bad rows.

    Args:
        kept: folder of the kept rows.
        rows: `token_rows(kept, tokenizer, …)`.
        tokenizer: from `load_tokenizer`.
        config: `sft:` of the recipe.
        model_config: config.json of the student.
        context: longest row that the student's positions cover, after any RoPE patch; `None`: no limit.
    """
    lengths = row_lengths(rows)
    tally = Tally(tokenizer, len(lengths))
    checker = RowChecker(tokenizer, embedding_rows(model_config))
    num_trained = longest_prompt = 0
    with ProgressBar("check rows", len(lengths), "rows") as progress:
        for source, ids, labels, prompt, whole in _paired(kept, rows, tokenizer):
            trained = int((labels != IGNORED).sum())
            num_trained += trained
            longest_prompt = max(longest_prompt, len(ids) - trained)
            for kind, excerpt in checker.check(source, ids, labels, prompt, whole):
                tally.add(kind, source.name, excerpt)
            progress.advance()
    findings = [
        *trl_findings(config.trl),
        *_length_findings(kept, lengths, longest_prompt, config.max_length, context),
        *_padding_findings(tokenizer, rows),
        *tally.findings(),
    ]
    return Preflight(
        num_rows=len(lengths),
        num_tokens=int(lengths.sum()),
        num_trained_tokens=num_trained,
        num_steps=math.ceil(math.ceil(len(lengths) / config.batch_size) * config.epochs),
        quantiles=_quantiles(lengths),
        longest_prompt=longest_prompt,
        max_length=config.max_length,
        num_too_long=int((lengths > config.max_length).sum()),
        findings=tuple(sorted(findings, key=lambda finding: not finding.refuses)),
        examples=tuple(_examples(kept, rows, lengths, tokenizer)),
    )


def trl_findings(trl: Mapping[str, Any]) -> list[Finding]:
    """Return a finding for each key of `sft.trl` that distill sets itself or that TRL's SFTConfig lacks."""
    if not trl:
        return []
    from dataclasses import fields

    from trl.trainer.sft_config import SFTConfig

    known = sorted({field.name for field in fields(SFTConfig)} - OWNED_TRL_KEYS)
    findings = []
    for key in sorted(trl):
        if key in OWNED_TRL_KEYS:
            why = f"sft.trl: {key} is set by distill itself. Remove it; use the fields of sft: instead."
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            why = f"sft.trl: {key} is not an argument of TRL's SFTConfig.{hint}"
        else:
            continue
        findings.append(Finding("trl_key", why, refuses=True))
    return findings


def embedding_rows(model_config: Mapping[str, Any]) -> int | None:
    """Return the number of tokens with an embedding, from a model's config.json; `None` if it does not say."""
    text_config = model_config.get("text_config") or model_config
    size = text_config.get("vocab_size", model_config.get("vocab_size"))
    return size if isinstance(size, int) else None


def segments_of(tokenizer: Tokenizer, ids: "Ids", labels: "Ids") -> tuple[Segment, ...]:
    """Split a row's text where trained tokens begin and end."""
    import numpy as np

    trained = labels != IGNORED
    edges = [0, *(np.flatnonzero(trained[1:] != trained[:-1]) + 1).tolist(), len(ids)]
    return tuple(
        Segment(decode(tokenizer, ids[start:end]), bool(trained[start]))
        for start, end in pairwise(edges)
        if end > start
    )


def _paired(kept: Path, rows: Any, tokenizer: Tokenizer) -> Iterator[tuple[SourceRow, "Ids", "Ids", str, str]]:
    """Yield each kept row, its ids and labels, both (T,), and the texts of its prompt and of the whole row."""
    import pyarrow as pa

    sources = source_rows(kept)
    for file in rows.cache_files:
        # Read, not memory-mapped: mapped pages count as memory of this process while the rows are open.
        with pa.OSFile(file["filename"]) as stream, pa.ipc.open_stream(stream) as batches:
            for batch in batches:
                ids, labels = (_split(batch.column(name)) for name in ("input_ids", "labels"))
                some = [next(sources) for _ in range(len(ids))]
                prompts, wholes = (render_rows(tokenizer, some, whole=whole) for whole in (False, True))
                yield from zip(some, ids, labels, prompts, wholes, strict=True)


def _quantiles(lengths: "Lengths") -> dict[str, int]:
    import numpy as np

    return {f"p{100 * q:g}": int(np.quantile(lengths, q, method="inverted_cdf")) for q in QUANTILES}


def _split(lists: Any) -> list["Ids"]:
    """Return a list column as arrays that share its memory."""
    values = lists.values.to_numpy()
    return [values[start:end] for start, end in pairwise(lists.offsets.to_numpy())]


def _length_findings(
    kept: Path, lengths: "Lengths", longest_prompt: int, max_length: int, context: int | None
) -> Iterator[Finding]:
    longest = int(lengths.max())
    limits = {"row_too_long": (max_length, f"sft.max_length ({max_length})")}
    if context is not None:
        limits["beyond_context"] = (context, f"the student's positions reach ({context} tokens)")
    for kind, (limit, what) in limits.items():
        too_long = (lengths > limit).nonzero()[0]
        if len(too_long):
            names = [source_row(kept, int(number)).name for number in too_long[:SHOWN_ROWS]]
            message = (
                f"{rows_text(len(too_long), len(lengths), names)} are longer than {what}: the longest has {longest} "
                "tokens, and a truncated row would teach the student never to finish. "
                + _way_out(kind, limit, longest, longest_prompt, context)
            )
            yield Finding(kind, message, True, len(too_long), tuple(names))


def _way_out(kind: str, limit: int, longest: int, longest_prompt: int, context: int | None) -> str:
    """Return advice with limits that would work."""
    room = limit - longest_prompt - 16  # for <think> tags and the template's text after the answer
    lower = f"filter.max_tokens to {room}" if room > 0 else "the prompts' length: they alone fill the rows"
    if kind == "row_too_long" and (context is None or longest <= context):
        return f"Raise sft.max_length to {longest} or lower {lower}."
    if kind == "beyond_context":
        return f"Lower {lower}, or set sft.rope_theta to stretch the student's positions to {longest}."
    return f"Lower {lower}."


def _padding_findings(tokenizer: Tokenizer, rows: Any) -> Iterator[Finding]:
    """Yield a finding if padding is the stop token; it refuses if TRL's collator masks the stop token."""
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    lengths = row_lengths(rows)
    pair = [rows[int(i)] for i in (lengths.argmin(), lengths.argmax())]
    batch = DataCollatorForLanguageModeling(tokenizer.pad_token_id)(pair)
    kept_labels = int((batch["labels"] != IGNORED).sum())
    had_labels = sum(label != IGNORED for row in pair for label in row["labels"])
    name = tokenizer.pad_token
    if kept_labels != had_labels:
        why = (
            f"the padding token is the stop token {name}, and batches would mask it from the loss: the student would "
            "not learn to stop. Name another padding token in the student's tokenizer_config.json (pad_token)."
        )
        yield Finding("pad_is_stop", why, refuses=True)
    else:
        why = (
            f"the padding token is the stop token {name}, as the vocabulary has no other special token for it. "
            "Batches mask padding by position, so the stop token is trained."
        )
        yield Finding("pad_is_stop", why, refuses=False)


def _examples(kept: Path, rows: Any, lengths: "Lengths", tokenizer: Tokenizer) -> Iterator[Example]:
    """Yield the shortest row, one of median length, and the longest."""
    import numpy as np

    order = lengths.argsort(kind="stable")
    chosen = [int(order[int(q * (len(order) - 1))]) for q in np.linspace(0, 1, NUM_EXAMPLES)]
    for number in dict.fromkeys(chosen):
        ids, labels = (np.asarray(rows[number][name], dtype=np.int32) for name in ("input_ids", "labels"))
        num_trained = int((labels != IGNORED).sum())
        yield Example(source_row(kept, number).name, len(ids), num_trained, segments_of(tokenizer, ids, labels))
