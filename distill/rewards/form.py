"""The form that a rollout must have: one closed thought, an answer after it, and an end by itself.

form_fault("<think>2 + 2 = 4</think>4", opened=False, finish_reason="stop") == ""
form_fault("2 + 2 = 4</think>4", opened=True, finish_reason="stop") == ""
answer_after("<think>a</think>3<think>b</think>4", opened=False) == Answer("4", is_unclosed=False)
"""

import re
import unicodedata
from typing import NamedTuple

from distill.core.records import FinishReason
from distill.core.thinking import THINK_CLOSE, THINK_OPEN, split_reasoning
from distill.core.thought_marks import stray_mark

FAULTS: dict[str, str] = {
    "error": "the engine could not answer",
    "truncated": "cut off at max_tokens before the model stopped by itself",
    "loop": "stopped while sampling: its last tokens were one piece, repeated",
    "no_think": "it does not begin with a thought",
    "unclosed_think": "the thought was never closed",
    "several_thinks": "a second thought, one inside another, or a mark out of place",
    "empty_think": "the thought has no letter and no digit",
    "empty_answer": "nothing after the thought",
    "special_token": "a mark of the chat format, such as the end of a turn, before the end",
    "unmeasured": "the text could not be examined: that took too long or crashed",
}
"""What may be wrong with a form, the first one found is told."""

ENDED_OTHERWISE: dict[FinishReason, str] = {"error": "error", "length": "truncated", "loop": "loop"}

_SPECIAL = r"(?:<\|[a-zA-Z0-9_]{1,40}\|>|<\uff5c[^\uff5c<>]{1,60}\uff5c>|<(?:start|end)_of_turn>|<eos>|</s>)"
"""Marks of chat formats as they look in a text: of ChatML, Llama 3 and Qwen, DeepSeek, Gemma, Llama 2."""
_INNER = re.compile(_SPECIAL)
_FINAL = re.compile(rf"\s*{_SPECIAL}\s*\Z")
MAX_FINAL_CHARS = 100
"""A final mark and the spaces around it are looked for in this many characters at the end."""
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd")
"""Letters and symbols that look like spaces, and marks of missing characters."""


class Answer(NamedTuple):
    """What stands after the last thought."""

    text: str
    is_unclosed: bool
    """A thought was opened and never closed."""


def form_fault(text: str, opened: bool, finish_reason: FinishReason) -> str:
    """Return what is wrong with a completion's form, of `FAULTS`; empty if nothing is.

    Args:
        text: the completion, verbatim; one mark of the chat format may end it.
        opened: whether the prompt ended in `<think>`. The thought must then not be opened a second time.
        finish_reason: how it ended.
    """
    if finish_reason != "stop":
        return ENDED_OTHERWISE[finish_reason]
    whole = (THINK_OPEN + text if opened else text).lstrip()
    if not whole.startswith(THINK_OPEN):
        return "no_think"
    thought, close, answer = whole[len(THINK_OPEN) :].partition(THINK_CLOSE)
    if not close:
        return "unclosed_think"
    answer = without_end(answer)
    if _INNER.search(thought) or _INNER.search(answer):
        return "special_token"
    if stray_mark(thought, answer):
        return "several_thinks"
    if not _says(thought, "LN"):
        return "empty_think"
    return "" if _says(answer, "LNS") else "empty_answer"


def answer_after(text: str, opened: bool) -> Answer:
    """Return what stands after the last thought of a completion, without a final mark of the chat format.

    What is between two thoughts is no answer, nor is what stands before the only one. There is no answer in a text with
    another mark of a thought behind the last `</think>`.
    """
    split = split_reasoning(text, opened)
    if split.state == "unclosed":
        return Answer("", is_unclosed=True)
    answer = split.content
    if THINK_CLOSE in answer:
        answer = answer.rpartition(THINK_CLOSE)[2].strip()
    if THINK_OPEN in answer:
        return Answer("", is_unclosed=True)
    answer = without_end(answer)
    return Answer("" if stray_mark(answer) else answer, is_unclosed=False)


def without_end(text: str) -> str:
    """Return a text without one mark of the chat format at its end, which a tokenizer may have decoded."""
    found = _FINAL.search(text, max(0, len(text) - MAX_FINAL_CHARS))
    return text[: found.start()] if found else text


def _says(text: str, kinds: str) -> bool:
    """Return whether a text has a visible character of some Unicode categories, by their first letters."""
    return any(unicodedata.category(char)[0] in kinds and char not in _FILLERS for char in text)
