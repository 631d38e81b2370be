"""Build messages to the teacher, and split its texts into reasoning and content.

Marks other than `<think>` are handled in `distill.core.thought_marks`.
"""

from collections.abc import Sequence

from distill.core.records import Message
from distill.core.thought_marks import THINK_CLOSE as THINK_CLOSE
from distill.core.thought_marks import THINK_OPEN as THINK_OPEN
from distill.core.thought_marks import Split as Split
from distill.core.thought_marks import bare_answer, ends_in_opening_mark, split_marked


def opens_thinking(prompt: str) -> bool:
    """Return whether a rendered prompt ends in an opening mark, as with R1's templates, so that the thought is open."""
    return ends_in_opening_mark(prompt)


def whole_characters(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, because UTF-8 can encode neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def join_reasoning(reasoning: str, content: str) -> str:
    """Return reasoning and content in DeepSeek-R1's format, or the content alone if there is no reasoning."""
    if not reasoning:
        return content
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n{content}"


def split_reasoning(text: str, opened: bool = False) -> Split:
    """Split a model's text into reasoning and content.

    A text that has `</think>` without an opening mark is treated as opened by the prompt. An unclosed thought has no
    content.

    Args:
        text: the completion, verbatim.
        opened: whether the prompt itself ended in `<think>`, so that the text starts inside the thought.
    """
    marked = split_marked(text)
    if marked is not None:
        return marked
    before, open_tag, rest = text.partition(THINK_OPEN)
    if open_tag and THINK_CLOSE not in before and not (opened and before.strip()):
        if before.strip():  # text before the mark is an answer, and what follows is not a thought
            return Split("", text.strip(), "none")
        body = rest
    elif opened or THINK_CLOSE in text:
        body = text
    else:
        return Split("", text.strip(), "none")
    reasoning, close_tag, content = body.partition(THINK_CLOSE)
    state = "closed" if close_tag else "unclosed"
    return Split(reasoning.strip(), bare_answer(content), state)


def teacher_messages(
    prompt: Sequence[Message], system: str | None, examples: Sequence[tuple[str, str, str]]
) -> list[Message]:
    """Return the messages to the teacher: system prompt, worked examples, then the problem as the student will see it.

    Args:
        prompt: the problem's own messages. `system` replaces a system message among them.
        system: the teacher's system prompt, never shown to the student.
        examples: (question, reasoning, answer) of each worked example, never shown to the student.
    """
    messages: list[Message] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
        prompt = [m for m in prompt if m["role"] != "system"]
    elif prompt and prompt[0]["role"] == "system":
        messages.append(prompt[0])
        prompt = prompt[1:]
    for question, reasoning, answer in examples:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": join_reasoning(reasoning, answer)})
    return [*messages, *prompt]
