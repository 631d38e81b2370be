"""docs/planning.md tells the prices and names that the package has."""

from pathlib import Path

from distill.planning.machine import KINDS
from distill.planning.prices import load_prices
from distill.planning.stage import QUANTITIES

TEXT = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()


def test_the_page_has_every_price_and_the_tables_date():
    prices = load_prices()
    assert f"dated **{prices.dated}**, in {prices.currency}" in TEXT
    for kind, price in prices.gpu_hour.items():
        assert f"| `{kind}` | {price.low:.2f} to {price.high:.2f} |" in TEXT
    for served in prices.served:
        for price in (served.input_per_million, served.output_per_million):
            assert f"{price.low:.2f} to" in TEXT
            assert f"{price.high:.2f} for a million" in TEXT


def test_the_page_names_every_kind_and_quantity():
    assert all(f"`{name}`" in TEXT for name in (*KINDS, *QUANTITIES))
