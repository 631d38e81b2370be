"""Building blocks of a recipe's sections: the strict base model, and types for names."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Language = Literal[
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "he", "hi", "hr", "hu", "id", "it", "ja",
    "ko", "lt", "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "th", "tr", "uk", "vi", "zh",
]  # fmt: skip
"""Languages that `distill.filters.language` can tell apart, by script and by CLD2."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s?#@]*)?$")]
"""No user, password or query: a key in a URL would end up in manifests."""


class Strict(BaseModel):
    """An immutable model that rejects unknown keys and takes each field's description from its docstring."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
