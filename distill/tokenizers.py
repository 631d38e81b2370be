"""A model's tokenizer with a chat template and the right stop token: the same for sampling, training and saving."""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from distill.errors import ModelError
from distill.records import Message
from distill.store import read_json

TOKENIZER = "tokenizer.json"
"""Every fast tokenizer's own file, which the tokenizers library reads without transformers."""

Tokenizer = Any
"""A transformers tokenizer; the import stays out of here because it takes seconds."""


def chat_template_of(path: Path, chat_format: str | None) -> str | None:
    """The chat template of the model at `path` as text, without loading its tokenizer.

    Args:
        path: the model's folder.
        chat_format: the template to use where the model has none.
    """
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    config: dict[str, Any] = read_json(path / "tokenizer_config.json") or {}
    template = config.get("chat_template")
    if template is None and chat_format is not None:
        return _known_template(chat_format)
    # Some models carry several, by name.
    return template if template is None or isinstance(template, str) else json.dumps(template)


def _known_template(chat_format: str) -> str:
    return (resources.files("distill") / "templates" / f"{chat_format}.jinja").read_text()


def load_tokenizer(path: Path, chat_format: str | None, stop_token: str | None = None) -> Tokenizer:
    """The tokenizer at `path`, its end-of-sequence token set to the one that ends an assistant's turn.

    Bases such as Qwen2.5-Math name another end of sequence than their chat template uses: a student that learnt that
    one would never stop by itself.

    Args:
        path: the model's folder.
        chat_format: the template to use where the model has none.
        stop_token: the token that must end an answer; left out: read off the chat template.

    Raises:
        ModelError: no chat template anywhere, or a stop token that the vocabulary does not have.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: the tokenizer cannot be loaded ({str(error).splitlines()[0]}).") from None
    if tokenizer.chat_template is None:
        if chat_format is None:
            raise ModelError(
                f"{path}: the model has no chat template, and none is known for it. Use a model from the student "
                "table, or save a chat_template.jinja beside its tokenizer."
            )
        tokenizer.chat_template = _known_template(chat_format)
    stop = stop_token or _turn_end(tokenizer)
    if stop is None or tokenizer.convert_tokens_to_ids(stop) in (None, tokenizer.unk_token_id):
        raise ModelError(
            f"{path}: no stop token: the chat template ends an assistant's turn with "
            f"{'nothing special' if stop is None else repr(stop)}, which is not a token of this model."
        )
    tokenizer.eos_token = stop
    if tokenizer.pad_token is None:
        tokenizer.pad_token = stop
    return tokenizer


def _turn_end(tokenizer: Tokenizer) -> str | None:
    """The first special token after an assistant's words, as the chat template renders them."""
    marker = "distill-marker"
    conversation = [{"role": "user", "content": "x"}, {"role": "assistant", "content": marker}]
    tail = tokenizer.apply_chat_template(conversation, tokenize=False).rpartition(marker)[2]
    specials = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    found = [(tail.index(token), -len(token), token) for token in specials if token in tail]
    return min(found)[2] if found else None


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The prompt's text up to where the assistant speaks."""
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return text


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids (T,) of a rendered conversation; the template has put every special token in already."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_all(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids (T,) of each of several rendered conversations."""
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    return ids
