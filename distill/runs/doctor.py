"""`distill doctor`: what works, what is missing, and the commands that fix it.

No model is loaded, nothing is downloaded or written, and every probe has a timeout.
"""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.plurals import counted
from distill.errors import DistillError
from distill.isolation.walls import PROBE_S
from distill.runs.checks import MISSING, OK, WARNING, Check, Probe, line_of, look_at_all
from distill.runs.hub_checks import check_login
from distill.runs.isolation_check import check_isolation, check_programs
from distill.runs.machine_checks import (
    GIB,
    SMI_S,
    TORCH_S,
    DiskUsage,
    check_disk,
    check_gpus,
    check_memory,
    check_python,
    check_torch,
    check_versions,
    check_vllm,
    gpus_by_smi,
)
from distill.runs.recipe_checks import recipe_probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

    from distill.recipe.model import Recipe

SCHEMA_VERSION = 1
MACHINE = "This machine"
SANDBOX_S = 40.0
"""For a first sandbox, whose probe has 30 s."""
MARKS = {OK: "ok", WARNING: "warning", MISSING: "missing"}
STYLES = {OK: "green", WARNING: "yellow", MISSING: "bold red"}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The doctor's findings."""

    groups: dict[str, list[Check]]
    """Heading -> checks."""

    @property
    def worst(self) -> str:
        """Return the worst status: `ok`, `warning` or `missing`."""
        found = {check.status for checks in self.groups.values() for check in checks}
        return MISSING if MISSING in found else WARNING if WARNING in found else OK

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "status": self.worst,
            "groups": {name: [check.to_json() for check in checks] for name, checks in self.groups.items()},
        }


class _Smi:
    """nvidia-smi's answer, cached."""

    @cached_property
    def answer(self) -> tuple[list[dict[str, str]] | None, str]:
        return gpus_by_smi()

    def num_gpus(self) -> int:
        return len(self.answer[0] or [])


def diagnose(
    load: "Callable[[], Recipe] | None", run_dir: Path, named: str = "", usage: DiskUsage = shutil.disk_usage
) -> Diagnosis:
    """Check the machine, and the recipe if there is one.

    Args:
        load: loads the recipe; `None`: check only the machine.
        run_dir: folder for runs.
        named: the recipe as given on the command line.
        usage: returns a disk's usage in bytes.
    """
    from huggingface_hub import constants

    smi = _Smi()
    smi.answer  # noqa: B018 - cached here, before several probes ask for it in parallel
    cache = Path(constants.HF_HUB_CACHE)
    probes = [
        Probe("Python", check_python, SMI_S),
        Probe("torch", lambda: check_torch(smi.num_gpus), TORCH_S + 5),
        Probe("vLLM", lambda: check_vllm(smi.num_gpus), SMI_S),
        Probe("versions", check_versions, SMI_S),
        Probe("GPUs", lambda: check_gpus(*smi.answer), SMI_S),
        Probe("CPU", check_memory, SMI_S),
        Probe("isolation", check_isolation, PROBE_S + 5),
        Probe("sandbox", check_programs, SANDBOX_S),
        Probe("runs", lambda: check_disk("runs", run_dir, "distill run --run-dir …", usage), SMI_S),
        Probe("cache", lambda: check_disk("cache", cache, "export HF_HOME=…", usage), SMI_S),
        Probe("Hub", check_login, 15.0),
    ]
    num_of_machine = len(probes)
    recipe, broken = None, None
    if load is not None:
        try:
            recipe = load()
        except DistillError as error:
            broken = Check("recipe", MISSING, str(error).strip(), f"distill recipes validate {shlex.quote(named)}")
    if recipe is not None:
        probes += recipe_probes(recipe, run_dir, named)
    found = look_at_all(probes)
    groups = {MACHINE: [check for checks in found[:num_of_machine] for check in checks]}
    if broken is not None:
        groups[f"Recipe {named}"] = [broken]
    elif recipe is not None:
        of_recipe = list(dict.fromkeys(check for checks in found[num_of_machine:] for check in checks))
        groups[f"Recipe {named}"] = [*of_recipe, *_downloads(of_recipe, cache, usage)]
    return Diagnosis(groups)


def _downloads(checks: Sequence[Check], cache: Path, usage: DiskUsage) -> list[Check]:
    """Check that all downloads fit into the cache."""
    # By model name: student and teacher may be the same model, which is downloaded once.
    sizes = {check.said.partition(":")[0]: check.download_gib for check in checks if check.download_gib}
    if not sizes:
        return []
    there = next(path for path in (cache, *cache.absolute().parents) if path.exists())
    free_gib, needed = usage(there).free / GIB, sum(sizes.values())
    said = f"{needed:.1f} GiB to fetch, {free_gib:.1f} GiB free for {cache}"
    if needed > free_gib:
        return [Check("download", MISSING, said, "export HF_HOME=…  # on a larger disk")]
    return [Check("download", WARNING if needed > 0.9 * free_gib else OK, said)]


def print_diagnosis(diagnosis: Diagnosis, console: "Console") -> None:
    """Print a diagnosis."""
    for heading, checks in diagnosis.groups.items():
        console.print(f"{heading}", markup=False, style="bold")
        console.print(_table(checks))
    num = {status: sum(c.status == status for g in diagnosis.groups.values() for c in g) for status in MARKS}
    warnings = counted(num[WARNING], "warning")
    if num[MISSING]:
        text = f"{num[MISSING]} missing, {warnings}: run the commands after ->, then `distill doctor` again."
    elif num[WARNING]:
        text = f"Nothing is missing; {warnings}."
    else:
        text = "Everything is in order."
    console.print(text, markup=False)


def _table(checks: Sequence[Check]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=8)
    table.add_column(no_wrap=True, min_width=8)
    table.add_column(overflow="fold")
    for check in checks:
        text = Text("\n".join(line_of(line) for line in check.said.splitlines()))
        if check.mend and check.status != OK:
            text.append(f"\n-> {check.mend}", style="cyan")
        table.add_row(Text(MARKS[check.status], style=STYLES[check.status]), Text(check.name), text)
    return table
