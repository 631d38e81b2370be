"""Extract the answers of a row of foreign traces, each as one text that includes its thinking.

All of these rows hold the same trace:

    {"response": "<think>\\n2 + 2 = 4\\n</think>\\n\\n4"}
    {"response": "4", "reasoning": "2 + 2 = 4"}
    {"responses": ["4"], "thinking": ["2 + 2 = 4"]}
    {"messages": [{"role": "user", …}, {"role": "assistant", "content": "4", "thinking": "2 + 2 = 4"}]}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.chat_messages import ChatError, chat_of, text_of, with_thought
from distill.core.finish_reasons import ending_of
from distill.core.thinking import split_reasoning, whole_characters
from distill.core.thought_marks import with_think
from distill.recipe.traces import TraceColumns, TraceSource

TEXT_COLUMNS = (
    "generations", "text", "generated_solution", "completion", "response", "responses", "output", "generation",
    "completions", "outputs",
)  # fmt: skip
MESSAGES_COLUMNS = ("messages", "conversations", "conversation")
REASONING_COLUMNS = (
    "reasoning", "message_thinking", "reasoning_content", "thinking", "reasonings", "thought", "thoughts",
    "chain_of_thought", "cot",
)  # fmt: skip
CONTENT_COLUMNS = ("content", "message_content", "answer")
FINISH_COLUMNS = ("finish_reasons", "finish_reason")


class UnusableError(Exception):
    """A row that yields no trace.

    Args:
        why: the reason, as a sentence.
        of_columns: whether naming other columns may help.
    """

    def __init__(self, why: str, of_columns: bool = False) -> None:
        super().__init__(why)
        self.of_columns = of_columns


def value_in(row: Mapping[str, Any], columns: TraceColumns, key: str, usual: Sequence[str]) -> Any:
    """Return a row's value in the column that the recipe names, else in the first usual column that is not null."""
    named = getattr(columns, key)
    if named is not None:
        return row.get(named)
    return next((row[column] for column in usual if row.get(column) is not None), None)


def row_texts(row: Mapping[str, Any], source: TraceSource) -> list[tuple[str | None, Any]]:
    """Return the row's answers, each with its finish reason as stored; `None` for an answer without text.

    Raises:
        UnusableError: the row's columns do not match, or its chat cannot be read.
    """
    columns = source.columns
    answers, is_list = _answers(row, columns)
    reasons = value_in(row, columns, "finish_reason", FINISH_COLUMNS)
    complete = row.get("is_reasoning_complete")
    if reasons is None and isinstance(complete, list):
        reasons = ["length" if is_complete is False else None for is_complete in complete]
    if isinstance(reasons, list):
        told = [reasons[place] if place < len(reasons) else None for place in range(len(answers))]
    else:
        told = [reasons] * len(answers)
    thoughts = _thoughts(row, columns, len(answers), is_list)
    return [
        (_with_its_thought(answer, thought, source, ending_of(reason).reason in ("length", "loop")), reason)
        for answer, thought, reason in zip(answers, thoughts, told, strict=True)
    ]


def _answers(row: Mapping[str, Any], columns: TraceColumns) -> tuple[list[Any], bool]:
    """Return the answers as stored, and whether the row stores a list of them."""
    names_content = columns.content is not None and columns.text is None and columns.messages is None
    text = None if names_content else value_in(row, columns, "text", TEXT_COLUMNS)
    if text is None and not names_content:
        text = value_in(row, columns, "messages", MESSAGES_COLUMNS)
    if text is None:
        text = value_in(row, columns, "content", CONTENT_COLUMNS)
    if isinstance(text, list) and not _is_message_or_parts(text):
        return text, True
    return [text], False


def _is_message_or_parts(value: list[Any]) -> bool:
    """Return whether a list is one chat, or the parts of one content, rather than a list of answers."""
    try:
        is_chat = chat_of(value) is not None
    except ChatError:
        is_chat = True
    return is_chat or bool(value and all(isinstance(part, dict) and "type" in part for part in value))


def _thoughts(row: Mapping[str, Any], columns: TraceColumns, num: int, is_list: bool) -> list[Any]:
    """Return the thinking stored beside each answer; `None` if there is none."""
    thought = value_in(row, columns, "reasoning", REASONING_COLUMNS)
    if not isinstance(thought, list) or (not is_list and _is_message_or_parts(thought)):
        thought = [thought]
    if len(thought) == num:
        return thought
    if not any(thought):
        return [None] * num
    raise UnusableError(f"it has {len(thought)} thoughts beside {num} answers.", of_columns=True)


def _with_its_thought(answer: Any, thought: Any, source: TraceSource, is_cut: bool) -> str | None:
    try:
        text = with_think(_text(answer, is_cut), source.think_marks)
        beside = with_think(text_of({"content": thought}), source.think_marks) if _holds_text(thought) else ""
    except ChatError as error:
        subject = "" if str(error).startswith("message ") else "it "
        raise UnusableError(f"its answer cannot be read: {subject}{error}.") from None
    if beside.strip():
        own = split_reasoning(beside)
        beside = own.reasoning if own.state != "none" else beside
        # Thinking in a usual column is a copy of what the text holds; a column named by the recipe is always added.
        if source.columns.reasoning is not None or split_reasoning(text).state == "none":
            text = with_thought(beside, text, is_cut)
    return text if text.strip() else None


def _holds_text(thought: Any) -> bool:
    return isinstance(thought, str | list | dict)


def _text(answer: Any, is_cut: bool) -> str:
    """Return the text of an answer, which may be text, a message, a chat or the parts of a content.

    Raises:
        ChatError: the answer cannot be read.
    """
    if isinstance(answer, str):
        return whole_characters(answer)
    if isinstance(answer, bytes):
        raise ChatError("is bytes that are not UTF-8 text")
    if isinstance(answer, dict):
        return text_of(answer, is_cut)
    if isinstance(answer, list):
        chat = chat_of(answer)
        if chat is None:
            return text_of({"content": answer}, is_cut)
        if chat[-1]["role"] != "assistant" and any(message["role"] == "assistant" for message in chat):
            raise ChatError("is a chat that does not end with an answer")
        return chat[-1]["content"] if chat[-1]["role"] == "assistant" else ""
    return ""
