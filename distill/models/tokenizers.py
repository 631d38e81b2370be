"""Load a model's tokenizer with a chat template and the right stop token, for sampling, training and saving."""

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from distill.core.file_kinds import FILE, MISSING, kind_of
from distill.core.records import Message
from distill.errors import ModelError
from distill.models.chat_templates import TemplateError, render_all
from distill.storage.files import read_json

TEMPLATE_KEY = "sft.chat_template"
"""The key of a recipe that names a template for training."""
TOKENIZER = "tokenizer.json"
"""The file of every fast tokenizer, which the tokenizers library reads without transformers."""

Tokenizer = Any
"""A transformers tokenizer. Its class is not imported here, because that takes seconds."""

FILE_TEMPLATE = "file:"
MAX_TEMPLATE_BYTES = 1_000_000

_PADDING = (re.compile(r"\bpad(ding)?\b|_pad_"), re.compile(r"reserved|unused"), re.compile(r"endoftext|end_of_text"))
"""Padding tokens for models that name none: made for padding, unused, or ending texts but not answers."""


def chat_template_of(path: Path, chat_format: str | None) -> str | None:
    """Return the text of the chat template of the model at `path`, without loading its tokenizer.

    Args:
        path: the model's folder.
        chat_format: the template to use if the model has none.
    """
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    config: dict[str, Any] = read_json(path / "tokenizer_config.json") or {}
    template = config.get("chat_template")
    if template is None and chat_format is not None:
        return _known_template(chat_format)
    # Some models have several templates, by name.
    return template if template is None or isinstance(template, str) else json.dumps(template)


def template_text(name: str | None) -> str | None:
    """Return the text of the template that `sft.chat_template` names; `None` stands for the model's own.

    Args:
        name: `chatml`, `llama3`, `r1-zero` or `file:path`.

    Raises:
        ModelError: the file cannot be read, or is not Jinja.
    """
    if name is None:
        return None
    if not name.startswith(FILE_TEMPLATE):
        return _known_template(name)
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    place = f"{TEMPLATE_KEY}: {name}"
    path = Path(name.removeprefix(FILE_TEMPLATE))
    try:
        if (kind := kind_of(path)) not in (FILE, MISSING):
            raise ModelError(f"{place}: is {kind}. Name a file with a Jinja template.")
        with path.open("rb") as stream:
            content = stream.read(MAX_TEMPLATE_BYTES + 1)
        if len(content) > MAX_TEMPLATE_BYTES:
            raise ModelError(f"{place}: is larger than {MAX_TEMPLATE_BYTES:,} bytes, so it is not a chat template.")
        text = content.decode()
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except UnicodeDecodeError:
        raise ModelError(f"{place}: not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise ModelError(
            f"{place}: cannot be read ({error.strerror}). A relative path is relative to the recipe's folder."
        ) from None
    except RecursionError:
        raise ModelError(f"{place}: is nested too deeply for Jinja.") from None
    except TemplateSyntaxError as error:
        # `{% generation %}` marks the assistant's text; transformers supports it, plain Jinja does not.
        if "generation" not in (error.message or ""):
            raise ModelError(f"{place}:{error.lineno}: not a Jinja template ({error.message}).") from None
    if not text.strip():
        raise ModelError(f"{place}: is empty.")
    return text


def _known_template(chat_format: str) -> str:
    return (resources.files("distill.models") / "templates" / f"{chat_format}.jinja").read_text()


def load_tokenizer(
    path: Path,
    chat_format: str | None,
    stop_token: str | None = None,
    template: str | None = None,
    key: str = TEMPLATE_KEY,
) -> Tokenizer:
    """Return the tokenizer at `path`, with its end-of-sequence token set to the one that ends an assistant's turn.

    Args:
        path: the model's folder.
        chat_format: the template to use if the model has none.
        stop_token: the token that must end an answer; ignored with a `template`. Default: taken from the chat template.
        template: text of the template to use instead of the model's own.
        key: of the recipe that names another template, for messages; empty if none does.

    Raises:
        ModelError: there is no chat template, it cannot render a turn, or the vocabulary does not have the stop token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the tokenizer cannot be loaded ({str(error).splitlines()[0]}).") from None
    if template is not None:
        tokenizer.chat_template = template
        stop_token = None
    if tokenizer.chat_template is None:
        if chat_format is None:
            raise ModelError(
                f"{path}: the model has no chat template, and none is known for it. Use a model from the student "
                f"table, {f'set {key}, ' if key else ''}or save a chat_template.jinja beside its tokenizer."
            )
        tokenizer.chat_template = _known_template(chat_format)
    try:
        tail = _turn_tail(tokenizer)
    except TemplateError as error:
        whose = f"the template that {key} names" if template is not None else f"{path}: the chat template"
        way = f"Give another one in {key}, or use" if key else "Mend it, or use"
        raise ModelError(
            f"{whose} cannot render a question and an answer ({error.why}). {way} another model."
        ) from None
    stop = stop_token or _turn_end(tokenizer, tail)
    if stop is None or not _is_token(tokenizer, stop):
        raise ModelError(
            f"{path}: no stop token: the chat template ends an assistant's turn with "
            f"{tail[:40]!r} and the model's vocabulary has "
            f"{'no special token there' if stop is None else f'no token {stop!r}'}. Give it another template "
            f"({key or 'chat_template.jinja beside its tokenizer'}) whose turns end with a token of this model."
        )
    # Bases such as Qwen2.5-Math declare another end of sequence than their chat template uses. A student that learnt
    # that one would never stop by itself.
    tokenizer.eos_token = stop
    # Masking padding by its id would mask the end of each answer too if both were the same token.
    if tokenizer.pad_token is None or tokenizer.pad_token == stop:
        tokenizer.pad_token = _padding_token(tokenizer, stop)
    return tokenizer


def _is_token(tokenizer: Tokenizer, text: str) -> bool:
    """Return whether the vocabulary has a token."""
    # A missing token is converted to the id of the unknown token.
    number = tokenizer.convert_tokens_to_ids(text)
    return number is not None and tokenizer.convert_ids_to_tokens(number) == text


def _padding_token(tokenizer: Tokenizer, stop: str) -> str:
    """Return a special token that neither ends an answer nor is part of the template; else the stop token."""
    template = json.dumps(tokenizer.chat_template)
    special = {tokenizer.convert_tokens_to_ids(token): token for token in tokenizer.all_special_tokens}
    special |= {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    free = [token for _, token in sorted(special.items()) if token != stop and token not in template]
    return next((token for kind in _PADDING for token in free if kind.search(token.lower())), stop)


def _turn_end(tokenizer: Tokenizer, tail: str) -> str | None:
    """Return the first special token after an assistant's message, as the chat template renders it."""
    specials = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    found = [(tail.index(token), -len(token), token) for token in specials if token in tail]
    return min(found)[2] if found else None


def _turn_tail(tokenizer: Tokenizer) -> str:
    """Return what the chat template writes after an assistant's message."""
    marker = "distill-marker"
    conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}]
    (text,) = render_all(tokenizer, [conversation], add_generation_prompt=False)
    return text.rpartition(marker)[2]


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """Return the text of a prompt, up to where the assistant speaks.

    Raises:
        TemplateError: the chat template cannot render it.
    """
    (text,) = render_all(tokenizer, [messages], add_generation_prompt=True)
    return text


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids (T,) of a rendered conversation. The template has already added all special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_all(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the token ids (T,) of each of several rendered conversations."""
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return ids


def check_same_tokens(teacher: Tokenizer, student: Tokenizer, name: str) -> None:
    """Raise if a teacher calls some token of the student by another number.

    Args:
        teacher: its tokenizer; it may have more tokens than the student's.
        student: the student's.
        name: of the teacher.

    Raises:
        ModelError: that is so.
    """
    theirs = {number: token for token, number in teacher.get_vocab().items()}
    for token, number in sorted(student.get_vocab().items(), key=lambda pair: pair[1]):
        if theirs.get(number) != token:
            raise ModelError(
                f"rl.teachers: {name} has another tokenizer than the student: token {number} is "
                f"{theirs.get(number)!r} there and {token!r} here. Choose a teacher of the student's family."
            )
