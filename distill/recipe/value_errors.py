"""Messages for invalid values, by pydantic's kind of error but without its wording.

Examples:

    must be a whole number, not 'lots'.
    must be a list, not 'http://host:8000/v1'. Write [http://host:8000/v1].
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill.core.plurals import counted
from distill.recipe.yaml_tree import short

Details = Mapping[str, Any]

_LOGIN = re.compile(r"//[^/\s@]*@")
_WHOLE, _NUMBER, _KEYS = "a whole number", "a number", "keys and values"

WANTED: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": _WHOLE,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "a whole number of fewer digits",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "string_too_long": lambda of: f"at most {of['max_length']} characters long",
    "string_too_short": lambda of: f"at least {counted(of['min_length'], 'character')} long",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": _KEYS,
    "mapping_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "literal_error": lambda of: str(of["expected"]),
    "greater_than": lambda of: f"greater than {of['gt']:g}",
    "greater_than_equal": lambda of: f"at least {of['ge']:g}",
    "less_than": lambda of: f"less than {of['lt']:g}",
    "less_than_equal": lambda of: f"at most {of['le']:g}",
    "none_required": "left out",
    "too_short": lambda of: f"of at least {counted(of['min_length'], 'entry', 'entries')}",
    "too_long": lambda of: f"of at most {counted(of['max_length'], 'entry', 'entries')}",
}
"""Pydantic's kind of error -> what follows "must be"."""

FORMS = {
    "name": "made of letters, digits, '.', '_' and '-', beginning with a letter or digit",
    "source": "hf:org/dataset, file:path or gym:task",
    "traces.source": "hf:org/dataset, file:path or round:NAME",
    "traces.problems": "file:path",
    "repo": "org/name, made of letters, digits, '.', '_' and '-'",
    "dataset": "org/name, made of letters, digits, '.', '_' and '-'",
    "base_urls": "addresses such as http://localhost:8000/v1, without user, password and query",
    "url": "an address such as http://localhost:2000/api/v2, without user, password and query",
    "api_key_env": "the name of an environment variable, e.g. OPENAI_API_KEY",
    "chat_template": "chatml, llama3 or file:path",
    "config": "a configuration's name on the Hub, without any of < > : / \\ | ? *",
    "revision": "a branch, a tag or a commit",
    "student_revision": "a branch, a tag or a commit",
    "rows": "this or round:NAME",
    "rounds": "the name of a round",
    "file": "a path in the dataset's repository, without spaces and '..'",
    "sha256": "64 hexadecimal digits",
    "judge_template": "file:path",
    "contests": "file:path",
    "show": "pass@K or cons@K, e.g. cons@64",
    "license": "a licence's identifier on the Hub, e.g. apache-2.0",
}
"""Key (or section and key) of a text that must match a pattern -> what follows "must be"."""
ANOTHER_FORM = "in the form that the documentation of this key gives"


def sentence(several: Sequence[Details]) -> str:
    """Return what is wrong with one value, and what to write instead.

    Args:
        several: its errors; more than one if the key accepts several types.
    """
    first = several[0]
    if first["type"] in ("value_error", "assertion_error"):
        text = str(first["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return text if text.endswith((".", "?", ")")) else f"{text}."
    if first["type"] == "missing":
        return "is missing."
    if first["type"] == "extra_forbidden":
        return "is an unknown key."
    wanted = " or ".join(dict.fromkeys(_wanted(one) for one in several))
    value = first["input"]
    if value is None:
        return f"is empty, and must be {wanted}. Give it a value or remove the key."
    return f"must be {wanted}, not {shown(value)}.{_instead(several, value)}"


def shown(value: Any) -> str:
    """Return a value as shown in messages, without the login in an address."""
    return short(_LOGIN.sub("//…@", value) if isinstance(value, str) else value)


def _wanted(details: Details) -> str:
    if details["type"] == "string_pattern_mismatch":
        keys = [key for key in details["loc"] if isinstance(key, str) and "[" not in key]
        key = keys[-1] if keys else ""
        return FORMS.get(f"{keys[0]}.{key}" if keys else "", FORMS.get(key, ANOTHER_FORM))
    wanted = WANTED.get(details["type"], ANOTHER_FORM)
    return wanted if isinstance(wanted, str) else wanted(details.get("ctx", {}))


def _instead(several: Sequence[Details], value: Any) -> str:
    """Return what to write instead if the value only lacks brackets or quotes."""
    kinds = {one["type"] for one in several}
    if not isinstance(value, bool | int | float | str):
        return ""
    text = str(value).lower() if isinstance(value, bool) else shown(value).strip("'\"")
    if kinds & {"list_type", "tuple_type"}:
        return f" Write [{text}]."
    if kinds == {"string_type"}:
        return f' Put it in quotes: "{text}".'
    return ""
