"""Prices of hours and tokens: a dated table in the package, overridden by the user's own file, then by options."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from distill.errors import UserError
from distill.estimates.quantities import Range
from distill.recipe.value_errors import sentence

Amount = Annotated[float, Field(ge=0.0)]
MAX_BYTES = 1_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Bounds(_Strict):
    """Lowest and highest price; a single number means both."""

    low: Amount
    """In the table's currency."""
    high: Amount
    """In the table's currency."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"low": value, "high": value}
        if isinstance(value, list) and len(value) == 2:
            return {"low": value[0], "high": value[1]}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"the lowest price ({self.low:g}) exceeds the highest ({self.high:g})")
        return self

    def range(self, basis: str) -> Range:
        """Return the bounds as a `Range`."""
        return Range(self.low, self.high, basis)


class ServedPrice(_Strict):
    """Price of a served model's tokens."""

    model: Annotated[str, Field(min_length=1)]
    """Part of the teacher's name, in lower case."""
    input_per_million: Bounds
    """Price of a million prompt tokens."""
    output_per_million: Bounds
    """Price of a million completion tokens, including reasoning."""


class Prices(_Strict):
    """A price table."""

    dated: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """When the prices were looked up, as 2026-03-10."""
    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    """Currency of all prices."""
    gpu_hour: dict[str, Bounds] = {}
    """Price of an hour of one GPU, by kind (`distill plan --gpu`)."""
    cpu_core_hour: Bounds | None = None
    """Price of an hour of one CPU core; null: not counted."""
    served: list[ServedPrice] = []
    """Prices of the tokens of served teachers; the first that matches the name applies."""
    own_gpu_price: Amount | None = None
    """Price of an hour of any GPU; overrides `gpu_hour`."""

    def gpu(self, kinds: tuple[str, ...]) -> Range | None:
        """Return the price of an hour of a GPU of one of `kinds`; `None` if no price is known."""
        if self.own_gpu_price is not None:
            return Range.exact(self.own_gpu_price, f"{self.own_gpu_price:g} {self.currency} a GPU-hour, as given")
        found = [self.gpu_hour[kind] for kind in kinds if kind in self.gpu_hour]
        if not found:
            return None
        low, high = min(b.low for b in found), max(b.high for b in found)
        amount = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return Range(low, high, f"{amount} {self.currency} a GPU-hour of {' or '.join(kinds)} ({self.dated})")

    def teacher(self, name: str) -> ServedPrice | None:
        """Return the price of a served teacher's tokens; `None` if the table has none."""
        return next((price for price in self.served if price.model in name.lower()), None)


def load_prices(own: Path | None = None, gpu_price: float | None = None) -> Prices:
    """Load the package's table and merge the user's prices into it.

    Args:
        own: a YAML file with the same keys; its `gpu_hour` is merged by kind, its `served` comes first; in another
            currency it replaces both. It needs a `dated` of its own.
        gpu_price: price of an hour of any GPU.

    Raises:
        UserError: the file cannot be read, or is not a price table.
    """
    table = yaml.safe_load((resources.files("distill.estimates") / "prices.yaml").read_text())
    if own is not None:
        given = _read(own)
        if given.get("currency", table["currency"]) != table["currency"]:
            table |= {"gpu_hour": {}, "served": []}  # amounts in two currencies cannot be added
        table |= {
            **given,
            "gpu_hour": {**table["gpu_hour"], **_mapping(own, given, "gpu_hour")},
            "served": [*(given.get("served") or []), *table["served"]],
        }
        if "dated" not in given:
            raise UserError(f"{own}: dated is missing: when did you look the prices up? E.g. dated: 2026-03-10.")
        table["dated"] = str(given["dated"])
    # YAML parses the key 4090 as a number.
    table["gpu_hour"] = {str(kind): price for kind, price in table["gpu_hour"].items()}
    try:
        prices = Prices.model_validate({**table, "own_gpu_price": gpu_price})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{own or 'prices.yaml'}: {where}: {sentence([first]).removesuffix('.')}. "
            f"Known keys: {', '.join(sorted(set(Prices.model_fields) - {'own_gpu_price'}))}."
        ) from None
    return prices


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give the path of a price file.") from None
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: too large for a price file (over {MAX_BYTES:,} bytes).")
    try:
        # Nested aliases can expand to billions of values.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{path}: aliases (*name) are not read in a price file. Write the value out.")
        table = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(table, dict):
        raise UserError(f"{path}: a price file is a mapping, e.g. dated: 2026-03-10 and gpu_hour: {{h100: 2.10}}.")
    if "own_gpu_price" in table:
        raise UserError(f"{path}: own_gpu_price is not a key of a price file. Use gpu_hour, or --gpu-price.")
    return table


def _mapping(path: Path, table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} is a mapping of kinds to prices, e.g. {key}: {{h100: 2.10}}.")
    return value
