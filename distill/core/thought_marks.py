"""Split texts at thinking marks other than `<think>` … `</think>`, and find marks where none are allowed.

Example: `split_marked("[THINK]2 + 2 = 4[/THINK]It is 4.") == Split("2 + 2 = 4", "It is 4.", "closed")`.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

_TOKENS = {
    "[THINK]": "[/THINK]",  # Magistral
    "<|begin_of_thought|>": "<|end_of_thought|>",  # Sky-T1, OpenThoughts
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A Reasoning
    "\u25c1think\u25b7": "\u25c1/think\u25b7",  # Kimi
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<unused94>thought": "<unused95>",  # MedGemma
}
"""Opening -> closing marks, found in no ordinary text. A lone closing mark ends a thought that the prompt opened."""
_ANSWER_TOKENS = {
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
}
_TAG = r"think|thinking|thoughts?|reasoning|reflection|scratchpad|inner_monologue"
_ANSWER_TAG = r"answer|solution|response|output|final|final_answer"

_OPEN = re.compile(rf"\s*+(?:(?P<token>{'|'.join(map(re.escape, _TOKENS))})|<(?P<tag>{_TAG}|analysis)>)", re.IGNORECASE)
_TOKEN = re.compile("|".join(map(re.escape, (*_TOKENS, *_TOKENS.values()))))
_CLOSING = {mark.casefold(): close for mark, close in _TOKENS.items()}
_ANSWER_OPEN = re.compile(rf"<(?P<tag>{_ANSWER_TAG})>", re.IGNORECASE)

_HEADER = r"(?:<\|start\|>assistant)?<\|channel\|>{}\b[^<]*<\|message\|>"
_HARMONY = re.compile(r"\s*+" + _HEADER.format(r"(?P<channel>\w+)"))
_HARMONY_FINAL = re.compile(_HEADER.format("final"))
_HARMONY_NEXT = re.compile(r"\s*<\|end\|>\s*" + _HEADER.format("analysis"))
_HARMONY_ENDS = ("<|end|>", "<|return|>")
_BARE_HARMONY = re.compile(r"\s*+analysis(?=\S)")
"""The same without the special tokens: `analysis…assistantfinal…`."""
_BARE_FINAL = "assistantfinal"

_ALL_TOKENS = (*_TOKENS, *_TOKENS.values(), *_ANSWER_TOKENS, *_ANSWER_TOKENS.values())
_STRAY = re.compile(
    rf"<(?:{'|'.join(re.escape(token[1:]) for token in _ALL_TOKENS if token[0] == '<')}"
    rf"|\|(?:channel|message)\|>|\s?/?\s?(?i:{_TAG})\s?/?>)"
)
"""All alternatives share their first character: such a search is many times faster than one with several."""
_STRAY_OTHERS = tuple(token for token in _ALL_TOKENS if token[0] != "<")


class Split(NamedTuple):
    """A model's text, split into reasoning and content."""

    reasoning: str
    content: str
    state: str
    """How the thinking was marked: `closed` (a whole block), `unclosed` (opened, never closed) or `none` (no block)."""


def ends_in_opening_mark(prompt: str) -> bool:
    """Return whether a rendered prompt ends in the opening mark of a thought."""
    return prompt.rstrip().endswith((THINK_OPEN, *_TOKENS))


def split_marked(text: str) -> Split | None:
    """Split a text at its marks. Return `None` if it has no marks, or only `<think>`."""
    if (harmony := _split_harmony(text)) is not None:
        return harmony
    match = _OPEN.match(text)
    if match is not None and match[0].strip() != THINK_OPEN:
        tag = match["tag"]
        closing = f"</{tag}>" if tag else _CLOSING[match["token"].casefold()]
        close = re.compile(re.escape(closing), re.IGNORECASE).search(text, match.end())
        if close is None:
            return Split(text[match.end() :].strip(), "", "unclosed")
        return Split(text[match.end() : close.start()].strip(), bare_answer(text[close.end() :], bool(tag)), "closed")
    if THINK_OPEN in text or THINK_CLOSE in text:
        return None
    first = _TOKEN.search(text)
    if first is None or first[0] in _TOKENS:
        return None
    return Split(text[: first.start()].strip(), bare_answer(text[first.end() :]), "closed")


def _split_harmony(text: str) -> Split | None:
    """Split the channels of gpt-oss: `analysis` is the thought, `final` the answer.

    Source: https://developers.openai.com/cookbook/articles/openai-harmony
    """
    match = _HARMONY.match(text)
    if match is None:
        bare = _BARE_HARMONY.match(text)
        if bare is None or _BARE_FINAL not in text:
            return None
        reasoning, _, content = text[bare.end() :].partition(_BARE_FINAL)
        return Split(reasoning.strip(), content.strip(), "closed")
    if match["channel"] == "final":
        return Split("", _without_end(text[match.end() :]), "none")
    final = _HARMONY_FINAL.search(text, match.end())
    thought = text[match.end() : final.start() if final else len(text)]
    reasoning = _HARMONY_NEXT.sub("\n\n", _without_end(thought))
    if final is None:
        return Split(reasoning, "", "closed" if thought.rstrip().endswith(_HARMONY_ENDS) else "unclosed")
    return Split(reasoning, _without_end(text[final.end() :]), "closed")


def _without_end(text: str) -> str:
    text = text.strip()
    for end in _HARMONY_ENDS:
        text = text.removesuffix(end).rstrip()
    return text


def bare_answer(content: str, tags: bool = False) -> str:
    """Return the text after a thought, without marks that enclose all of it.

    Args:
        content: the text after the thought's closing mark.
        tags: whether to remove `<answer>` and similar tags too.
    """
    content = content.strip()
    for opening, closing in _ANSWER_TOKENS.items():
        if content.startswith(opening):
            return _unwrapped(content, opening, closing)
    if tags and (match := _ANSWER_OPEN.match(content)):
        return _unwrapped(content, match[0], f"</{match['tag']}>")
    return content


def _unwrapped(content: str, opening: str, closing: str) -> str:
    body = content.removeprefix(opening)
    inner = body.removesuffix(closing)
    return content if closing in inner else inner.strip()


def stray_mark(*texts: str) -> str:
    """Return a thinking mark from texts that may not contain any; empty if there is none."""
    for text in texts:
        if match := _STRAY.search(text):
            return match[0]
        for token in _STRAY_OTHERS:
            if token in text:
                return token
    return ""


def with_think(text: str, marks: Sequence[str]) -> str:
    """Replace custom marks by `<think>` and `</think>`, and keep every other character.

    Args:
        text: the trace.
        marks: opening and closing mark of the thought and, optionally, those of the answer, which are removed.
    """
    if not marks:
        return text
    replaced = dict(zip(marks, (THINK_OPEN, THINK_CLOSE, "", ""), strict=False))
    longest_first = sorted(replaced, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda match: replaced[match[0]], text)
