"""README and docs/ are true as far as a test can tell: links lead somewhere, commands parse, code runs."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import distill as package
from distill.cli import app
from distill.recipe.model import Recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / "benchmarks" / "README.md", ROOT / "data" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page):
    return page.read_text(encoding="utf-8")


def headings(page):
    """Anchors as GitHub makes them."""
    lines = FENCE.sub("", text_of(page)).splitlines()
    titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in headings(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_prose_are_at_most_120_characters_long(page):
    """Tables, code and headings that name many commands cannot be broken."""
    lines = FENCE.sub("", text_of(page)).splitlines()
    prose = (line for line in lines if not line.startswith(("    ", "#")) and not line.lstrip().startswith("|"))
    assert [line for line in prose if len(line) > 120] == []


def command_lines():
    """Every `distill …` in the pages, with its page: in code blocks, in indented blocks and between backticks."""
    found = set()
    for page in PAGES:
        text = text_of(page)
        spans = re.findall(r"`(distill [^`\n]+)`", FENCE.sub("", text))
        blocks = [block for _, block in FENCE.findall(text)]
        indented = re.findall(r"^ {4}\S.*$", FENCE.sub("", text), re.MULTILINE)
        lines = [line.strip() for block in blocks for line in block.splitlines()] + [line.strip() for line in indented]
        starts = (re.search(r"(?:^|^\$ |-m |^srun .*? )(distill .*)$", line) for line in lines)
        found |= {(page.name, line) for line in spans}
        found |= {(page.name, start[1]) for start in starts if start}
    return sorted(found)


def parse(words):
    """Take a command line apart as the command would, without running it."""
    command = typer.main.get_command(app)
    context = command.make_context("distill", list(words), resilient_parsing=False)
    while hasattr(command, "commands") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        if not rest:  # the command alone, as prose names it
            return
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_every_command_line_parses(page, line):
    words = shlex.split(re.split(r"\s\||\s&&|\s>\s", line.replace("…", ""))[0], comments=True)[1:]
    if words in (["-h"], ["--help"], ["--version"], ["--install-completion"], ["--show-completion"]):
        return
    assert words, line
    parse(words)


def test_the_parser_of_commands_can_fail():
    with pytest.raises(typer.TyperException):
        parse(["run", "--nope"])
    with pytest.raises(typer.TyperException):
        parse(["nope"])


def test_many_command_lines_are_looked_at():
    assert len(command_lines()) > 40


def test_the_readme_is_short_and_its_recipe_is_one():
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) < 150
    (recipe,) = [block for kind, block in FENCE.findall(text) if kind == "yaml"]
    assert Recipe.model_validate(yaml.safe_load(recipe)).name == "gsm8k-small"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sections_of_recipes_are_as_recipes_are(page):
    """Pieces of YAML that stand in the pages, put into a whole recipe."""
    for kind, block in FENCE.findall(text_of(page)):
        if kind != "yaml" or "…" in block:
            continue
        tree = yaml.safe_load(block)
        if not isinstance(tree, dict) or not tree.keys() <= Recipe.model_fields.keys():
            continue
        whole = {"name": "x", "student": "org/model", "problems": [{"source": "gym:chain_sum"}]}
        whole |= {"filter": {"max_tokens": 1000}, "sft": {"max_length": 16384}}
        if "traces" in tree:
            del whole["problems"]
        else:
            whole["generate"] = {"teacher": "org/teacher"}
        Recipe.model_validate(whole | tree)


def test_the_code_of_the_python_page_runs(here, generated):
    namespace = {}
    blocks = [block for kind, block in FENCE.findall(text_of(ROOT / "docs" / "python.md")) if kind == "python"]
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), namespace)
    assert namespace["result"].name == "small"
    assert namespace["by_reason"] == {"wrong_answer": 2, "duplicate": 1}


def test_the_python_page_names_everything():
    table = text_of(ROOT / "docs" / "python.md").partition("## Names")[2]
    assert set(re.findall(r"`(\w+)`", table)) == set(package.__all__) - {"__version__"}


def test_pages_are_reached_from_the_readme():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached or not page.exists():
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(text_of(page)))
        left += [(page.parent / link).resolve() for link in links if link.endswith(".md")]
    assert set(PAGES) <= reached
