"""docs/json.md: the keys of each stage are the models'."""

from pathlib import Path

from distill.results.reference_page import START, metrics_reference

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def test_the_tables_on_the_page_are_those_of_the_models():
    page = PAGE.read_text()
    assert START in page
    assert page == page.partition(START)[0] + metrics_reference(), "python -m distill.results.reference_page"
