"""docs/planning.md tells the prices and machines that the package has, docs/json.md the quantities."""

from pathlib import Path

from distill.estimates.machine import KINDS
from distill.estimates.prices import load_prices
from distill.estimates.stage import QUANTITIES

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "planning.md").read_text()


def test_the_page_has_every_price_and_the_tables_date():
    prices = load_prices()
    assert f"dated **{prices.dated}**, in {prices.currency}" in TEXT
    for kind, price in prices.gpu_hour.items():
        assert f"| `{kind}` | {price.low:.2f} to {price.high:.2f} |" in TEXT
    for served in prices.served:
        for price in (served.input_per_million, served.output_per_million):
            assert f"{price.low:.2f} to" in TEXT
            assert f"{price.high:.2f} for a million" in TEXT


def test_every_kind_of_machine_and_every_quantity_is_named():
    assert [name for name in KINDS if f"`{name}`" not in TEXT] == []
    assert [name for name in QUANTITIES if f"`{name}`" not in (DOCS / "json.md").read_text()] == []
