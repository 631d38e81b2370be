"""Check single rows as they will be trained, and turn the findings into messages.

Decoding tokens costs the most, so only each row's prompt and the end of its completion, back to the last `</think>`,
are decoded. Reasoning that a template drops is found in the rendered text.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distill.core.thinking import THINK_CLOSE, split_reasoning
from distill.models.chat_templates import lost_message, writes_date
from distill.models.tokenizers import Tokenizer, encode
from distill.training.rows import IGNORED, SourceRow, render_rows

if TYPE_CHECKING:
    import numpy as np

    Ids = np.ndarray[Any, np.dtype[np.int32]]

SHOWN_ROWS = 3
"""Number of rows that a finding names."""
EXCERPT_CHARS = 160
TAIL_TOKENS = 256
"""Number of tokens at the end of a row that are first decoded in search of `</think>`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the rows or the settings."""

    kind: str
    """A key of `REFUSED` or `NOTED`, or `trl_key`, `row_too_long`, `beyond_context`, `pad_is_stop`."""
    message: str
    """What is wrong, why, and what to do."""
    refuses: bool
    """Whether it forbids training; else it is a warning."""
    num_rows: int = 0
    rows: tuple[str, ...] = ()
    """Names of the first of these rows."""


REFUSED = {
    "no_label": "{rows} have no trained token: the chat template renders nothing after the prompt. {template}",
    "loss_covers_prompt": (
        "{rows} would train part of the prompt: the chat template renders it differently once the answer follows, and "
        "the loss begins at {excerpt}. {template}"
    ),
    "prompt_lost": (
        "{rows} lack their question or another part of their prompt: the chat template drops or alters {excerpt}. "
        "{template}"
    ),
    "thinking_lost": "{rows} lack the reasoning: the chat template drops it, from {excerpt} on. {template}",
    "answer_lost": "{rows} lack what follows the reasoning: the chat template leaves out {excerpt}. {template}",
    "think_close_not_trained": (
        "{rows}: the chat template leaves </think> out of the loss, so the student would not learn to end its "
        "reasoning; the trained text ends in {excerpt}. {template}"
    ),
    "stop_not_trained": (
        "{rows}: the chat template leaves the stop token {stop} out of the loss, so the student would not learn "
        "to stop; the trained text ends in {excerpt}. {template}"
    ),
    "text_after_stop": "{rows} go on after the stop token {stop}: {excerpt}. {template}",
    "turn_token_in_completion": (
        "{rows} have a special token of the chat template in the answer's text, which would end the turn there: "
        "{excerpt}. Remove these traces from the source (`distill filter --explain ID` shows one), or spell the token "
        "differently there."
    ),
    "unknown_token": (
        "{rows} have tokens that the model has no embedding for: {excerpt}. Use the tokenizer that belongs to the "
        "student, without tokens added to it."
    ),
    "second_bos": (
        "{rows} begin with two tokens {bos}: the chat template adds one where the tokenizer or the prompt already has "
        "one, here {excerpt}. {template}"
    ),
}
"""Findings that forbid training -> message; `{template}` says how to fix the chat template."""

NOTED = {
    "special_token_in_text": "{rows} have a special token in a text, where it is tokenised as such: {excerpt}.",
    "no_bos": (
        "{rows} begin without {bos}, which the student's tokenizer puts before every text: {excerpt}. If the student "
        "was trained with it, add bos_token to the chat template."
    ),
    "writes_date": (
        "{rows} contain the date on which they were rendered, which the chat template writes: {excerpt}. The same run "
        "on another day trains other rows. To avoid that, give a template with a fixed date in sft.chat_template."
    ),
    "prompt_differs": (
        "{rows} are trained after a different prompt from the one that the student will see: the chat template's "
        "generation prompt goes on with {excerpt}, which the trained row lacks."
    ),
}
"""Findings that are only warnings -> message."""

OTHER_TEMPLATE = "Give the student another template with sft.chat_template: chatml, llama3 or file:path."


def decode(tokenizer: Tokenizer, ids: "Ids") -> str:
    text: str = tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


Found = Iterator[tuple[str, str]]
"""Kind of finding, and an excerpt of the row."""


class RowChecker:
    """Finds what is wrong with single rows."""

    def __init__(self, tokenizer: Tokenizer, num_embeddings: int | None) -> None:
        self._tokenizer = tokenizer
        self._num_embeddings = num_embeddings
        self._skeletons: dict[tuple[str, ...], int] = {}
        self._roles: dict[tuple[str, ...], tuple[int | None, bool]] = {}

    @cached_property
    def _special(self) -> dict[int, str]:
        """Map the id of every special token to its text."""
        tokens = {self._tokenizer.convert_tokens_to_ids(token): token for token in self._tokenizer.all_special_tokens}
        added = self._tokenizer.added_tokens_decoder.items()
        return tokens | {number: str(token) for number, token in added if token.special}

    @cached_property
    def _turn_tokens(self) -> set[str]:
        """Return the special tokens that the chat template writes, and BOS and EOS."""
        (text,) = render_rows(self._tokenizer, [_skeleton(("user", "assistant"))], whole=True)
        ends = {self._tokenizer.eos_token, self._tokenizer.bos_token}
        return {token for token in self._special.values() if token in text or token in ends}

    @cached_property
    def _is_special(self) -> "np.ndarray[Any, Any]":
        """Return an array that says for each id whether it is a special token's."""
        import numpy as np

        table: np.ndarray[Any, Any] = np.zeros(max(self._special, default=0) + 1, dtype=bool)
        table[list(self._special)] = True
        return table

    @cached_property
    def _adds_bos(self) -> bool:
        bos = self._tokenizer.bos_token_id
        return bos is not None and self._tokenizer("x")["input_ids"][:1] == [bos]

    def check(self, source: SourceRow, ids: "Ids", labels: "Ids", prompt: str, rendered: str) -> Found:
        """Yield the findings of one row.

        Args:
            source: the row.
            ids: (T,).
            labels: (T,); `IGNORED` for untrained tokens.
            prompt: its text up to the assistant's turn.
            rendered: its whole text.
        """
        trained = labels != IGNORED
        if not trained.any():
            yield "no_label", self._end(ids)
            return
        start = int(trained.argmax())
        yield from self._check_prompt(source, ids, start, prompt, rendered)
        yield from self._check_thinking(source, rendered, ids[trained])
        yield from self._check_stop(ids[trained])
        yield from self._check_special_tokens(source, ids)
        yield from self._check_ids(ids)

    def _check_prompt(self, source: SourceRow, ids: "Ids", start: int, prompt: str, rendered: str) -> Found:
        roles = tuple(message["role"] for message in source.prompt)
        lost, is_dated = self._of_roles(roles)
        for place, message in enumerate(source.prompt):
            # Templates of reasoning models drop the reasoning of earlier answers, as these models were trained.
            is_answer = message["role"] == "assistant"
            said = split_reasoning(message["content"]).content if is_answer else message["content"]
            if place == lost or said.strip() not in prompt or said.strip() not in rendered:
                yield "prompt_lost", f"{message['role']}: {said.strip()}"
                return
        if is_dated:
            yield "writes_date", self._beginning(ids)
        asked = source.prompt[-1]["content"].strip()
        before = decode(self._tokenizer, ids[:start])
        if before == prompt:
            return
        prompt_ids = encode(self._tokenizer, prompt)
        if prompt_ids == ids[:start].tolist():  # the tokenizer does not decode to the same text
            return
        if asked in before:
            yield "prompt_differs", self._tokenizer.decode(prompt_ids[start:])
        else:
            yield "loss_covers_prompt", decode(self._tokenizer, ids[start : start + 30])

    def _of_roles(self, roles: tuple[str, ...]) -> tuple[int | None, bool]:
        """Return which message of such a prompt the template drops or alters, and whether it writes the date."""
        if roles not in self._roles:
            found = lost_message(self._tokenizer, roles, True), writes_date(self._tokenizer, roles)
            self._roles[roles] = found
        return self._roles[roles]

    def _check_thinking(self, source: SourceRow, rendered: str, trained: "Ids") -> Found:
        for message in source.completion:
            if message["role"] != "assistant":
                continue
            split = split_reasoning(message["content"])
            if split.reasoning not in rendered:
                yield "thinking_lost", split.reasoning
            elif split.content not in rendered:
                yield "answer_lost", split.content
        if THINK_CLOSE in source.completion[-1]["content"] and not self._holds_think_close(trained):
            yield "think_close_not_trained", self._end(trained)

    def _holds_think_close(self, trained: "Ids") -> bool:
        num = TAIL_TOKENS
        while THINK_CLOSE not in decode(self._tokenizer, trained[-num:]):
            if num >= len(trained):
                return False
            num *= 4
        return True

    def _check_stop(self, trained: "Ids") -> Found:
        stops = (trained == self._tokenizer.eos_token_id).nonzero()[0]
        if not len(stops):
            yield "stop_not_trained", self._end(trained)
            return
        after = decode(self._tokenizer, trained[stops[-1] + 1 :])
        if after.strip():
            yield "text_after_stop", after

    def _check_special_tokens(self, source: SourceRow, ids: "Ids") -> Found:
        roles = tuple(message["role"] for message in source.prompt + source.completion)
        if roles not in self._skeletons:
            (text,) = render_rows(self._tokenizer, [_skeleton(roles)], whole=True)
            ids_of_skeleton = encode(self._tokenizer, text)
            self._skeletons[roles] = sum(number in self._special for number in ids_of_skeleton)
        known = ids[ids < len(self._is_special)]
        if int(self._is_special[known].sum()) == self._skeletons[roles]:
            return
        for message in source.prompt + source.completion:
            answers = message in source.completion and message["role"] == "assistant"
            for token in self._special.values():
                place = message["content"].find(token)
                if place >= 0:
                    kind = (
                        "turn_token_in_completion"
                        if answers and token in self._turn_tokens
                        else "special_token_in_text"
                    )
                    yield kind, message["content"][max(0, place - 60) : place + 60]
                    return

    def _check_ids(self, ids: "Ids") -> Found:
        if self._num_embeddings is not None and ids.max() >= self._num_embeddings:
            token = self._tokenizer.convert_ids_to_tokens(int(ids.max()))
            yield "unknown_token", f"{token} is number {ids.max()}, and the model has {self._num_embeddings}"
        bos = self._tokenizer.bos_token_id
        if bos is None:
            return
        if len(ids) > 1 and ids[0] == bos and ids[1] == bos:
            yield "second_bos", self._beginning(ids)
        elif self._adds_bos and ids[0] != bos:
            yield "no_bos", self._beginning(ids)

    def _beginning(self, ids: "Ids") -> str:
        return decode(self._tokenizer, ids[:30])

    def _end(self, ids: "Ids") -> str:
        return "…" + decode(self._tokenizer, ids[-30:])


def _skeleton(roles: tuple[str, ...]) -> SourceRow:
    """Return a row with these roles and minimal content."""
    messages = [{"role": role, "content": "x"} for role in roles]
    return SourceRow("-", messages[:-1], messages[-1:])


@dataclass
class Tally:
    """Findings counted by kind, with the first rows of each."""

    tokenizer: Tokenizer
    num_rows: int
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    excerpts: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, name: str, excerpt: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(self.names.setdefault(kind, [])) < SHOWN_ROWS:
            self.names[kind].append(name)
        self.excerpts.setdefault(kind, excerpt)

    def findings(self) -> list[Finding]:
        found = []
        for kind, message in (REFUSED | NOTED).items():
            if kind in self.counts:
                text = message.format(
                    rows=rows_text(self.counts[kind], self.num_rows, self.names[kind]),
                    excerpt=excerpt_of(self.excerpts[kind]),
                    template=OTHER_TEMPLATE,
                    stop=self.tokenizer.eos_token,
                    bos=self.tokenizer.bos_token,
                )
                found.append(Finding(kind, text, kind in REFUSED, self.counts[kind], tuple(self.names[kind])))
        return found


def rows_text(num: int, total: int, names: list[str]) -> str:
    """Describe rows: `3 of 800 rows (0.38%; p1/0, p7/2, p9/0)`."""
    more = ", …" if num > len(names) else ""
    return f"{num:,} of {total:,} rows ({num / total:.2%}; {', '.join(plain(name) for name in names)}{more})"


def plain(text: str) -> str:
    """Replace characters that would control a terminal: control characters, direction marks and the like."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text.replace("\t", " "))


def excerpt_of(text: str) -> str:
    """Return a short, quoted, one-line excerpt of a text that is safe to print."""
    line = json.dumps(plain(text), ensure_ascii=False)[1:-1]
    return f'"{line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"}"'
