"""Imports point one way, stages do not know each other, and what is heavy is imported late."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import distill

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distill"
ROOMS = (
    "errors",
    "core",
    "results",
    "isolation",
    "storage",
    "models",
    "recipe",
    "execution",
    "grading",
    "scores",
    "sources",
    "filters",
    "engines",
    "sampling",
    "rewards",
    "evaluation",
    "training",
    "estimates",
    "publish",
    "exchange",
    "stages",
    "report",
    "runs",
    "api",
    "cli",
    "__main__",
)
"""From the lowest to the highest: a module imports from its own folder and those before it, inside functions too."""
LATE = {
    *(f"distill.training.{name}" for name in ("arguments", "batches", "cpu", "reporter", "run", "sharding", "trainer")),
    *(f"distill.training.rl.{name}" for name in ("arguments", "divergence", "packed", "policy")),
    *(f"distill.training.rl.{name}" for name in ("run", "scoring", "teachers", "trainer")),
    "distill.grading.preload",
    "distill.engines.cpu_sampler",
    "distill.engines.seeded_batches",
}
"""Modules that only child processes import."""
HEAVY = {"torch", "transformers", "vllm", "trl", "datasets", "sympy"}


def dotted_name(path):
    """`distill.stages.eval` for `…/distill/stages/eval.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module):
    """What a module imports anywhere in it, inside functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found


def place_of(module):
    return ROOMS.index(module.split(".")[1])


def test_every_module_is_in_one_of_the_rooms():
    assert {module.split(".")[1] for module in MODULES if module != "distill"} == {*ROOMS}
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "api", "errors"}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "distill"])
def test_imports_point_one_way(module):
    inside = {name for name in imports_of(module) if name.startswith("distill.")}
    upward = {name for name in inside if place_of(name) > place_of(module)}
    assert not upward, f"{module} imports from above itself"


def test_no_module_imports_itself_over_others():
    """Late imports and those for type checkers count too: a cycle of any kind keeps modules from being read alone."""
    graph = {module: {name for name in imports_of(module) if name in MODULES} - {module} for module in MODULES}
    graph["distill"] = set()  # which fetches everything, late
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def test_each_room_says_what_is_in_it():
    for room in set(ROOMS) - {"errors", "api", "__main__"}:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())), room


def test_the_package_itself_imports_nothing_until_it_is_used():
    script = "import sys; before = {*sys.modules}; import distill; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    new = done.stdout.split()
    assert [name for name in new if name.partition(".")[0] not in sys.stdlib_module_names] == ["distill"]
    assert len(new) < 50  # what typing needs


def test_what_the_package_fetches_is_what_type_checkers_see():
    seen = {name for name in imports_of("distill") if name.startswith("distill.")}
    assert seen == {f"distill.{module}" for module in distill._HOMES}
    assert set(distill.__all__) == {name for names in distill._HOMES.values() for name in names} | {"__version__"}
    for name in distill.__all__:
        assert getattr(distill, name) is not None
        assert name in dir(distill)
    with pytest.raises(AttributeError, match="dir"):
        distill.nonsense  # noqa: B018


def test_stages_do_not_import_each_other():
    stages = {module for module in MODULES if module.startswith("distill.stages.")} - {"distill.stages.table"}
    assert len(stages) >= 4
    for module in stages | {"distill.stages"}:
        assert not imports_of(module) & (stages - {module}), module


def test_only_its_engine_imports_vllm():
    importers = {m for m in MODULES if any(name.split(".")[0] == "vllm" for name in imports_of(m))}
    assert importers == {"distill.engines.vllm"}


def heavy_after(script):
    """Which heavy packages a fresh Python has imported at the end of a script."""
    script += f"\nimport sys; print('heavy:', *sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_only_what_runs_in_a_child_process_imports_something_heavy():
    light = [module for module in MODULES if module not in LATE]
    assert {"distill.cli", "distill.runs.runner", "distill.engines.transformers"} <= set(light)
    light.remove("distill.__main__")
    load = "from distill.recipe.loading import load_recipe; load_recipe('recipes/quickstart.yaml')"
    assert heavy_after(f"import {', '.join(light)}\n{load}") == []


@pytest.mark.parametrize("command", ["--help", "sft --help", "--version"])
def test_help_imports_nothing_heavy(command):
    script = (
        f"import sys; sys.argv = ['distill', *{command.split()!r}]\n"
        "from distill.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code"
    )
    assert heavy_after(script) == []
