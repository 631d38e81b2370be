"""What distill writes as a recipe, it reads back the same."""

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distill.recipe.text import recipe_yaml
from distill.recipe.yaml_tree import read_tree

READABLE = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\t\n\x85")
"""What a recipe may hold."""
TEXTS = st.text(READABLE, max_size=40) | st.from_regex(r"[-+]?[0-9_]*\.?[0-9_:]*([eE][-+]?[0-9]*)?", fullmatch=True)
SCALARS = TEXTS | st.booleans() | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("text") / "recipe.yaml"


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(tree=st.dictionaries(TEXTS, TREES, max_size=5))
@example(tree={"a": ["08", "1e5", ".5e3", "+.5", "1_0", "0o7", "0x1F", "1:30", ".inf", ".NaN", "-", "=", "<<", "*a"]})
@example(tree={"a": ["no", "ON", "y", "~", "", "null", "TRUE", "2026-11-24", "!!x", "a: b", "a #b", " a ", "\ta\t"]})
@example(tree={"08": 8, "1e5": 1e5, "null": None, "": {"~": "~"}, "a": [1e-4, 1e300, -0.0, 5e-324, 2**70, 1e16]})
@example(
    tree={"a": ["\x85a", "a\x85", "\x85", "\u2028b", "\ufeffc", "\times", "a\nabla", "x\u00a0y", "a\n\n b\n", "😀"]}
)
def test_what_is_written_is_read_back_the_same(path, tree):
    path.write_text(recipe_yaml(tree), encoding="utf-8", newline="")
    assert shown(read_tree(path, {})) == shown(tree)
    assert shown(yaml.safe_load(path.read_bytes())) == shown(tree)  # readers of YAML 1.1


def test_what_needs_no_quotes_has_none():
    assert recipe_yaml({"name": "tiny", "source": "hf:org/a", "lr": 0.0001}) == (
        "name: tiny\nsource: hf:org/a\nlr: 0.0001\n"
    )


def shown(tree):
    """A tree in which 1, 1.0 and true differ."""
    return repr(tree)
