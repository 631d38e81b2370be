"""Messages to the teacher, and text back to (reasoning, content).

Marks other than `<think>` are in `distill.core.thought_marks`.

Enters: a problem's chat messages and the recipe's system prompt and examples; a model's raw text.
Leaves: the messages to send; `("2 + 2 = 4", "The answer is \\\\boxed{4}.")`.
"""

from collections.abc import Sequence

from distill.core.records import Message
from distill.core.thought_marks import THINK_CLOSE as THINK_CLOSE
from distill.core.thought_marks import THINK_OPEN as THINK_OPEN
from distill.core.thought_marks import Split as Split
from distill.core.thought_marks import bare_answer, ends_in_opening_mark, split_marked


def opens_thinking(prompt: str) -> bool:
    """Whether a rendered prompt ends in `<think>`, as R1's chat templates do: the completion starts in the thought."""
    return ends_in_opening_mark(prompt)


def whole_characters(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced: a file in UTF-8 can hold neither."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def join_reasoning(reasoning: str, content: str) -> str:
    """The form in which a student learns to answer (DeepSeek-R1's output format); without reasoning, content alone."""
    if not reasoning:
        return content
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n{content}"


def split_reasoning(text: str, opened: bool = False) -> Split:
    """Take a model's text apart at its thinking.

    Args:
        text: the completion, verbatim.
        opened: the prompt itself ended in `<think>`, as R1's chat templates do, so the text starts inside the block.

    A text that has `</think>` without an opening is read as opened by the prompt. An unclosed thought has no content.
    """
    marked = split_marked(text)
    if marked is not None:
        return marked
    before, open_tag, rest = text.partition(THINK_OPEN)
    if open_tag and THINK_CLOSE not in before and not (opened and before.strip()):
        if before.strip():  # an answer that comes before the thinking is not a thought
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
    """What the teacher is sent: its system prompt, its worked examples, then the problem as the student will see it.

    Args:
        prompt: the problem's own messages; a system message among them gives way to `system`.
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
