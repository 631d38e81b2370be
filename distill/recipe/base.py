"""What every section of a recipe is made of: strict models and names with their limits."""

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
"""Without user, password or query: a key in a URL would end up in manifests."""


class Strict(BaseModel):
    """Unknown keys are refused, values are fixed once read, and each field's docstring is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
