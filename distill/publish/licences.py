"""Licences of base, teachers and data: which one the student gets, what it requires and what it forbids.

Licences are recognised by name only, to help users comply with them. This is not legal advice.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from distill.models.hub_names import names_folder
from distill.models.students import find_student
from distill.results.push import Flag

Outputs = Literal["free", "terms", "forbidden", "unknown"]
"""What a licence says about training another model on the licensed model's output."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What is known about a licence."""

    id: str
    """The Hub's identifier; `other`, with a `name`, if the Hub has none."""
    title: str
    name: str = ""
    link: str = ""
    outputs: Outputs = "unknown"
    terms: str = ""
    """What it requires of a model made from the licensed one or from its output."""
    built_with: str = ""
    """Words that such a model's card must show."""
    name_starts_with: str = ""
    """Required beginning of such a model's name."""
    family: str = ""
    """Part of the name of models that the output may improve although the licence forbids it for others."""
    passes_on: bool = False
    """Whether a model trained on the output comes under the same licence."""
    notice: str = ""
    """Text of the NOTICE file that must be distributed too."""


UNKNOWN = Licence("unknown", "unknown")
_FREE = {
    "apache-2.0": "Apache License 2.0",
    "mit": "MIT License",
    "bsd-2-clause": "BSD 2-Clause License",
    "bsd-3-clause": "BSD 3-Clause License",
    "cc0-1.0": "CC0 1.0",
    "cc-by-4.0": "CC BY 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "odc-by": "ODC-By 1.0",
    "unlicense": "The Unlicense",
}


def _llama(version: str) -> Licence:
    folder = f"llama{version.replace('.', '_')}"
    return Licence(
        f"llama{version}",
        f"Llama {version} Community License Agreement",
        link=f"https://www.llama.com/{folder}/license/",
        outputs="terms",
        terms='the name must begin with "Llama", the card must show "Built with Llama", and the agreement, its '
        "notice and the acceptable use policy go along; see its clause on very large services",
        built_with="Built with Llama",
        name_starts_with="Llama",
        notice=f"Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta Platforms, "
        "Inc. All Rights Reserved.\n",
    )


def _older_llama(version: str) -> Licence:
    return replace(
        _llama(version),
        outputs="forbidden",
        terms="its output must not be used to improve any language model but Llama itself",
        family="llama",
    )


def _qwen(name: str, title: str, terms: str, outputs: Outputs = "terms", family: str = "") -> Licence:
    built = "" if outputs == "forbidden" else "Built with Qwen"
    return Licence("other", title, name, outputs=outputs, terms=terms, built_with=built, family=family)


LICENCES = {
    **{name: Licence(name, title, outputs="free") for name, title in _FREE.items()},
    **{f"llama{version}": _llama(version) for version in ("3.1", "3.2", "3.3", "4")},
    **{f"llama{version}": _older_llama(version) for version in ("2", "3")},
    "qwen": _qwen("qwen", "Qwen License Agreement", 'the card must show "Built with Qwen"'),
    "qwen-research": _qwen(
        "qwen-research", "Qwen Research License", 'research only, not for profit; the card must show "Built with Qwen"'
    ),
    "tongyi-qianwen": _qwen(
        "tongyi-qianwen",
        "Tongyi Qianwen License Agreement",
        "its output must not be used to improve any language model but Tongyi Qianwen itself",
        "forbidden",
        "qwen",
    ),
    "gemma": Licence(
        "gemma",
        "Gemma Terms of Use",
        link="https://ai.google.dev/gemma/terms",
        outputs="terms",
        terms="a model distilled from its output counts as a derivative: the same terms and restrictions of use hold "
        "for it and must be passed on",
        passes_on=True,
    ),
    **{
        name: Licence(name, name.upper(), outputs="unknown", terms="not for commercial use")
        for name in ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0")
    },
}
"""By the Hub's identifier, or by `license_name` if the identifier is `other`."""

PROVIDERS = (
    (r"(^|/)(gpt-(?!oss)|chatgpt|o[134](-|$))", "OpenAI's"),
    (r"(^|/)claude", "Anthropic's"),
    (r"(^|/)gemini", "Google's Gemini API"),
    (r"(^|/)grok-", "xAI's"),
)
"""API models whose provider's terms forbid training competing models on the output: name pattern, provider."""

KNOWN = (
    (r"^meta-llama/(Meta-)?Llama-3\.1-", "llama3.1"),
    (r"^meta-llama/Llama-3\.2-", "llama3.2"),
    (r"^meta-llama/Llama-3\.3-", "llama3.3"),
    (r"^meta-llama/Llama-4-", "llama4"),
    (r"^meta-llama/Meta-Llama-3-", "llama3"),
    (r"^meta-llama/Llama-2-", "llama2"),
    (r"^Qwen/Qwen2(\.5)?(-Math)?-72B", "qwen"),
    (r"^Qwen/Qwen2\.5(-Coder)?-3B", "qwen-research"),
    (r"^Qwen/(Qwen2(\.5)?-(Math-|Coder-)?\d|Qwen3-\d|QwQ-32B)", "apache-2.0"),
    (r"^Qwen/(Qwen1\.5|Qwen)-", "tongyi-qianwen"),
    (r"^HuggingFaceTB/SmolLM", "apache-2.0"),
    (r"^deepseek-ai/DeepSeek-(R1|V3\.|V3-0324)", "mit"),
    (r"^deepseek-(reasoner|chat)$", "mit"),
    (r"^openai/gpt-oss-", "apache-2.0"),
    (r"^google/gemma-[123]", "gemma"),
    (r"^microsoft/(phi-4|Phi-4)", "mit"),
)
"""Hub id patterns and their licences, as the models' repositories state them; the Hub need not be asked."""

AskHub = Callable[[str], dict[str, Any]]
"""Returns the front matter of a model's card on the Hub; empty if it is not available."""


def ask_nobody(name: str) -> dict[str, Any]:
    """Return nothing; an `AskHub` for dry runs, which need no network."""
    return {}


def licence_of(name: str, folder: Path | None = None, ask_hub: AskHub = ask_nobody) -> Licence:
    """Return the licence of a model.

    Args:
        name: a Hub id, an alias, a local folder, or the model's name on a server.
        folder: where the model is on this machine.
        ask_hub: called only if neither the tables nor a local card tell.
    """
    for pattern, owner in PROVIDERS:
        if re.search(pattern, name):
            terms = f"{owner} terms forbid training models that compete with its own on the output"
            return Licence("other", f"{owner} terms of use", outputs="forbidden", terms=terms)
    named = _of_student_table(name) or next((id_ for pattern, id_ in KNOWN if re.match(pattern, name)), "")
    if named:
        return named_licence(named)
    own = card_metadata(folder / "README.md") if folder is not None else {}
    stated = own if own.get("license") else _cached_metadata(name) or ask_hub(name)
    return stated_licence(stated)


def named_licence(name: str) -> Licence:
    """Return the licence of a Hub identifier; for one that is not in the table only its name is known."""
    return LICENCES.get(name) or (UNKNOWN if name in ("", "unknown") else Licence(name, name))


def stated_licence(metadata: dict[str, Any]) -> Licence:
    """Return the licence that a card's front matter states."""
    stated = metadata.get("license")
    name = stated[0] if isinstance(stated, list) and stated else stated
    if not isinstance(name, str):
        return UNKNOWN
    if name != "other":
        return named_licence(name)
    own_name, link = metadata.get("license_name"), metadata.get("license_link")
    found = LICENCES.get(str(own_name), Licence("other", str(own_name or "other"), str(own_name or "")))
    return replace(found, link=str(link)) if isinstance(link, str) and link.startswith("https://") else found


def card_metadata(card: Path) -> dict[str, Any]:
    """Return the front matter of a card; empty if the card is missing or unreadable."""
    import yaml

    try:
        text = card.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(\n|$)", text, re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _of_student_table(name: str) -> str:
    if "/" not in name or names_folder(name):
        return ""
    return str(getattr(find_student(name), "license", None) or "")


def _cached_metadata(name: str) -> dict[str, Any]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        card = try_to_load_from_cache(name, "README.md")
    except HFValidationError:
        return {}
    return card_metadata(Path(card)) if isinstance(card, str) else {}


def student_licence(wanted: str | None, base: Licence, teachers: Iterable[Licence]) -> Licence:
    """Return the student's licence: the recipe's, else one that a teacher's licence passes on, else the base's."""
    if wanted is not None:
        return named_licence(wanted)
    return next((licence for licence in teachers if licence.passes_on), base)


def flags(
    repo: str,
    student: Licence,
    base: tuple[str, Licence],
    teachers: Sequence[tuple[str, Licence]],
) -> list[Flag]:
    """Return the licence problems to report before the student is published.

    Args:
        repo: target repository.
        student: the student's licence.
        base: name and licence.
        teachers: names and licences.
    """
    found = [flag for name, licence in teachers if (flag := _teacher_flag(name, licence, base[0]))]
    base_name, base_licence = base
    if student.id == "unknown":
        found.append(
            Flag(
                level="warning",
                text=f"the licence of the base {base_name} is not known; state the student's in push.license.",
            )
        )
    if base_licence.outputs == "terms" and student.id != base_licence.id:
        found.append(
            Flag(
                level="warning",
                text=f"push.license says {student.id}, but {base_name} comes under the {base_licence.title}, which "
                "also applies to models made from it. Leave push.license out.",
            )
        )
    for licence in (base_licence, *(licence for _, licence in teachers)):
        start = licence.name_starts_with
        if start and not repo.partition("/")[2].lower().startswith(start.lower()):
            text = f'the {licence.title} asks that the name begin with "{start}": {repo} does not. Rename push.repo.'
            if Flag(level="warning", text=text) not in found:
                found.append(Flag(level="warning", text=text))
    return found


def _teacher_flag(name: str, licence: Licence, base_name: str) -> Flag | None:
    if licence.outputs == "free":
        return None
    if licence.outputs == "forbidden" and not (licence.family and licence.family in base_name.lower()):
        return Flag(level="refusal", text=f"teacher {name}: {licence.terms} ({licence.title}).")
    if licence.outputs == "unknown":
        what = f"under {licence.title}, which distill does not know" if licence.id != "unknown" else "not known"
        return Flag(
            level="warning",
            text=f"teacher {name}: its licence is {what}. Make sure that it allows training on its output.",
        )
    return Flag(level="warning", text=f"teacher {name}: {licence.title}: {licence.terms}.") if licence.terms else None
