"""The doctor's checks of what a recipe needs: models, servers, keys, files, packages and memory."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill.core.plurals import counted
from distill.engines.start import pick_engine
from distill.errors import DistillError
from distill.estimates.local_data import is_small_and_local, read_problems, read_traces
from distill.estimates.machine import Machine, this_machine
from distill.estimates.models import local_model
from distill.estimates.prices import load_prices
from distill.estimates.text_tokens import TokenRate
from distill.grading.code.grader import backend_of, tests_fail
from distill.grading.gym_tasks import gym_dataset
from distill.models.students import find_student, hub_id_of
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.rl_faults import judge_of, rl_warnings
from distill.recipe.sampling import SamplingCompute
from distill.recipe.sandbox import measured_programs, trained_programs
from distill.recipe.sft import TrainCompute
from distill.recipe.steps import PUBLISHING
from distill.recipe.suites import Baseline
from distill.recipe.traces import TraceSource
from distill.runs.checks import MISSING, OK, WARNING, Check, Probe, line_of
from distill.runs.hub_checks import HTTP_S, check_dataset, check_model, check_push
from distill.runs.isolation_check import check_programs
from distill.runs.rounds_plan import RoundsPlan, plan_any
from distill.sources.evaluation_sets import load_pack, named_set
from distill.sources.problems import load_problem_sets, load_problems, may_lack_answers
from distill.stages.rl import template_fault

MAX_ANSWER_BYTES = 1 << 20
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - compared with, not bound to
MACHINE_LIMITS = ("memory", "disk", "gpus", "layout")
"""Kinds of a plan's limits that are about the machine."""
FLASH = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
NETWORK_S, PUSH_S, LOCAL_S = 25.0, 40.0, 40.0


def recipe_probes(recipe: Recipe, run_dir: Path, named: str) -> list[Probe]:
    """Return the probes for a recipe.

    Args:
        recipe: the recipe.
        run_dir: folder for runs.
        named: the recipe as given on the command line.
    """
    found: dict[Any, Probe] = {}
    for part in recipe.parts:
        for key, probe in _keyed_probes(part, named):
            found.setdefault(key, probe)  # rounds share most of what they need
    probes = [*found.values(), Probe("fit", lambda: _fit(recipe, run_dir, named), LOCAL_S)]
    if recipe.push is not None:
        config = recipe.push
        probes.append(Probe(PUBLISHING, lambda: check_push(config), PUSH_S))
    return probes


def _keyed_probes(recipe: Recipe, named: str) -> Iterator[tuple[Any, Probe]]:
    """Yield the probes of one round, or of a recipe without rounds, each with what it depends on."""
    generate = recipe.generate
    if generate is not None and not generate.compute.base_urls and recipe.teacher_round is None:
        yield ("teacher", generate.teacher, generate.revision), Probe("teacher", lambda: _teacher(recipe), NETWORK_S)
    for role, model, compute in _served(recipe):
        for url in compute.base_urls:
            yield (role, model, url), _server_probe(role, model, url, compute.api_key_env)
    if not recipe.only_measures:
        yield (
            ("student", recipe.student, recipe.student_revision),
            Probe("student", lambda: _student(recipe), NETWORK_S),
        )
    for name in recipe.eval.models if recipe.eval else ():
        yield ("model", name), _model_probe(name)
    for key, source in _sources(recipe):
        yield source.model_dump_json(), _source_probe(recipe, key, source, named)
    for baseline in [one.baseline for one in (recipe.eval.benchmarks if recipe.eval else []) if one.baseline]:
        if baseline.source.startswith("hf:"):
            yield baseline.model_dump_json(), _baseline_probe(baseline)
    for number, entry in enumerate(recipe.filter.decontaminate):
        yield entry, _pack_probe(number, entry, named)
    if is_small_and_local(recipe):
        yield "problems", Probe("problems", lambda: _problems(recipe), LOCAL_S)
    if programs := [*trained_programs(recipe), *measured_programs(recipe)]:
        yield recipe.sandbox.model_dump_json(), _sandbox_probe(recipe, programs[0])
    engines = [one.compute.model_dump_json() for one in (generate, recipe.eval) if one is not None]
    engines += [recipe.rl.compute.sampling.model_dump_json()] if recipe.rl is not None else []
    yield tuple(engines), Probe("engine", lambda: list(_engines(recipe)), LOCAL_S)
    if not recipe.only_measures:
        trained = [one.model_dump_json() for one in (recipe.sft, recipe.rl) if one is not None]
        yield tuple(trained), Probe("packages", lambda: list(_packages(recipe)), LOCAL_S)
    for number, name in enumerate(recipe.rl.teachers if recipe.rl is not None else ()):
        if not name.startswith(("http://", "https://")):
            yield ("teacher", number, name), _model_probe(name)
    if recipe.rl is not None:
        needs = recipe.student, recipe.student_revision, recipe.rl.prompt_format, recipe.trains, recipe.student_round
        yield needs, Probe("student", lambda: _template(recipe), LOCAL_S)
    if warnings := rl_warnings(recipe):
        yield tuple(warnings), Probe("rewards", lambda: [Check("rewards", WARNING, one) for one in warnings], LOCAL_S)


def _sandbox_probe(recipe: Recipe, needed_by: str) -> Probe:
    sources: list[ProblemSource | TraceSource] = [*recipe.problems, *recipe.traces]
    sources += recipe.eval.benchmarks if recipe.eval else []
    compiles = any(source.tests.language == "cpp" for source in sources)
    return Probe("sandbox", lambda: check_programs(backend_of(recipe.sandbox), needed_by, compiles), LOCAL_S)


def _model_probe(name: str) -> Probe:
    return Probe("model", lambda: check_model("model", hub_id_of(name), None), NETWORK_S)


def _server_probe(role: str, model: str, url: str, key_env: str) -> Probe:
    return Probe(role, lambda: check_server(role, model, url, key_env), NETWORK_S)


def _source_probe(recipe: Recipe, key: str, source: ProblemSource | TraceSource, named: str) -> Probe:
    within_s = LOCAL_S if source.source.startswith("file:") else NETWORK_S
    return Probe("dataset", lambda: _source(recipe, key, source, named), within_s)


def _baseline_probe(baseline: Baseline) -> Probe:
    name, files = baseline.source.removeprefix("hf:"), [baseline.file] if baseline.file else []
    return Probe("dataset", lambda: check_dataset(name, baseline.revision, None, files), NETWORK_S)


def _pack_probe(number: int, entry: str, named: str) -> Probe:
    return Probe("dataset", lambda: _pack(f"filter.decontaminate.{number}", entry, named), NETWORK_S)


def _served(recipe: Recipe) -> Iterator[tuple[str, str, SamplingCompute]]:
    """Yield (role, model, compute) of the models that servers hold."""
    if recipe.generate is not None and recipe.generate.compute.base_urls:
        yield "teacher", recipe.generate.teacher, recipe.generate.compute
    if recipe.filter.judge is not None:
        yield "judge", recipe.filter.judge.model, recipe.filter.judge.compute
    if recipe.eval is not None and recipe.eval.judge is not None and recipe.eval.judge != recipe.filter.judge:
        yield "judge", recipe.eval.judge.model, recipe.eval.judge.compute
    if (judge := judge_of(recipe)) is not None and recipe.filter.judge is None:
        yield "judge", judge.model, judge.compute


def _sources(recipe: Recipe) -> list[tuple[str, ProblemSource | TraceSource]]:
    """Return the distinct sources with their keys in the recipe."""
    sections: dict[str, Sequence[ProblemSource | TraceSource]] = {
        "problems": recipe.problems,
        "traces": [one for one in recipe.traces if one.round is None],
        "eval.benchmarks": recipe.eval.benchmarks if recipe.eval else [],
    }
    keyed = [(f"{key}.{number}", one) for key, sources in sections.items() for number, one in enumerate(sources)]
    return list({one.model_dump_json(): (key, one) for key, one in reversed(keyed)}.values())[::-1]


def _teacher(recipe: Recipe) -> list[Check]:
    assert recipe.generate is not None
    name = recipe.generate.teacher
    hub_id = hub_id_of(name)
    return check_model("teacher", hub_id, recipe.generate.revision)


def _student(recipe: Recipe) -> list[Check]:
    return check_model("student", find_student(recipe.student).hub_id, recipe.student_revision)


def _template(recipe: Recipe) -> list[Check]:
    """Check that the student can be asked as `rl:` wants, if its tokenizer is on this machine."""
    student = local_model(find_student(recipe.student).hub_id, recipe.student_revision, weights=False)
    fault = "" if student is None else template_fault(recipe, student)
    return [Check("student", MISSING, fault, "--set rl.prompt_format=r1-zero")] if fault else []


def _engines(recipe: Recipe) -> Iterator[Check]:
    """Check that the recipe's engines are installed."""
    wanted = {
        "generate": None if recipe.generate is None else recipe.generate.compute,
        "rl": None if recipe.rl is None else recipe.rl.compute.sampling,
        "eval": None if recipe.eval is None else recipe.eval.compute,
    }
    for stage, compute in wanted.items():
        if compute is None:
            continue
        try:
            yield Check("engine", OK, f"{stage}: {pick_engine(compute)}")
        except DistillError as error:
            yield Check("engine", MISSING, f"{stage}: {line_of(error)}", "make install")


def check_server(role: str, model: str, url: str, key_env: str) -> list[Check]:
    """Check that an OpenAI-compatible server answers, accepts the key, and has the model.

    Args:
        role: `teacher` or `judge`.
        model: its name on the server.
        url: as in `base_urls`.
        key_env: environment variable of the key, which is never shown.
    """
    import httpx

    key = os.environ.get(key_env)
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        # No request is made: the client's error would show the key.
        said = f"{key_env} does not hold a valid key (it has a line break, a space or non-ASCII letters)"
        return [Check(role, MISSING, f"{url}: {said}", f"export {key_env}=…")]
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    listed = f"{url.rstrip('/')}/models"
    try:
        with httpx.stream("GET", listed, headers=headers, timeout=HTTP_S, follow_redirects=False) as answer:
            status, body = answer.status_code, _beginning(answer) if answer.status_code == 200 else b""
    except httpx.TimeoutException:
        said = f"{url}: does not answer within {HTTP_S:.0f} s"
        return [Check(role, MISSING, said, f"curl -m 5 {listed}")]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        said = f"{url}: cannot be reached ({line_of(error) or type(error).__name__})"
        return [Check(role, MISSING, said, f"curl -m 5 {listed}")]
    if status in (401, 403):
        said = f"does not accept the key in {key_env}" if key else f"wants a key, and {key_env} is not set"
        return [Check(role, MISSING, f"{url}: {said} ({status})", f"export {key_env}=…")]
    if status != 200:
        return [Check(role, WARNING, f"{url}: answers {status} when asked for its models", f"curl -m 5 {listed}")]
    names = _model_names(body)
    if names and model not in names:
        shown = ", ".join(line_of(name)[:60] for name in sorted(names)[:4])
        return [
            Check(
                role, MISSING, f"{url}: has no {model}; it has {shown}", "--teacher NAME" if role == "teacher" else ""
            )
        ]
    if not key and urlsplit(url).hostname not in LOCAL_HOSTS:
        return [Check(role, WARNING, f"{url}: answers; {key_env} is not set", f"export {key_env}=…")]
    return [Check(role, OK, f"{url}: answers, {model}{', key set' if key else ''}")]


def _beginning(answer: Any) -> bytes:
    body = b""
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    return body


def _model_names(body: bytes) -> set[str]:
    """Return the names in an answer to `/models`; empty if the answer is invalid."""
    try:
        listed = json.loads(body)["data"]
        return {str(model["id"]) for model in listed}
    except (ValueError, KeyError, TypeError):
        return set()


def _source(recipe: Recipe, key: str, source: ProblemSource | TraceSource, named: str) -> list[Check]:
    kind, _, name = source.source.partition(":")
    if kind == "hf":
        files = source.files if isinstance(source, ProblemSource) else []
        return check_dataset(name, source.revision, source.config, files)
    if kind == "file":
        return _file(recipe, key, source, named)
    try:
        gym_dataset({"task": name, "options": source.options, "size": 1, "seed": 0})  # type: ignore[union-attr]
    except DistillError as error:
        return [Check("dataset", MISSING, line_of(error))]
    return [Check("dataset", OK, f"{source.source}: made by reasoning-gym")]


def _file(recipe: Recipe, key: str, source: ProblemSource | TraceSource, named: str) -> list[Check]:
    """Check that a file can be read as the run will read it; of a large one, only the first rows."""
    name = source.source
    try:
        if isinstance(source, ProblemSource):
            found = read_problems(source, recipe, key.startswith("eval."))
        else:
            found = read_traces(source, TokenRate())
    except DistillError as error:
        return [Check("dataset", MISSING, str(error), _other_source(f"{key}.source", named))]
    if found is None:
        return [Check("dataset", OK, f"{name}: too large to check here")]
    what = "problem" if isinstance(source, ProblemSource) else "trace"
    if found.is_whole:
        return [Check("dataset", OK, f"{name}: {counted(round(found.num.high), what)}")]
    return [Check("dataset", OK, f"{name}: {what}s in the first {found.num_read:,} rows; the rest was not read")]


def _problems(recipe: Recipe) -> list[Check]:
    """Check that all problems can be loaded and split together, and that their tests can be run."""
    sources = [(source, False) for source in recipe.problems]
    sources += [(source, True) for source in (recipe.eval.benchmarks if recipe.eval else [])]
    for source, is_measured in sources:
        try:
            load_problems(source, recipe.seed, may_lack_answers(source, recipe, is_measured))
        except DistillError:  # reported by the source's own probe
            return []
    try:
        sets = load_problem_sets(recipe)
    except DistillError as error:
        return [Check("problems", MISSING, str(error))]
    problems = itertools.chain(sets.train, *sets.benchmarks.values())
    why = tests_fail(backend_of(recipe.sandbox), [one.tests for one in problems if one.tests is not None])
    return [] if why is None else [Check("problems", MISSING, why)]


def _other_source(key: str, named: str) -> str:
    return f"distill doctor{_named(named)} --set {key}=file:…  # once the file is fixed, or with another"


def _pack(key: str, entry: str, named: str) -> list[Check]:
    """Check an evaluation set of `filter.decontaminate`."""
    kind, _, name = entry.partition(":")
    if kind == "file":
        try:
            load_pack(entry)
        except DistillError as error:
            return [Check("dataset", MISSING, str(error), _other_source(key, named))]
        return [Check("dataset", OK, entry)]
    if (suite := named_set(entry)) is not None:
        return check_dataset(suite.dataset, suite.revision, suite.config, suite.files)
    return check_dataset("/".join(name.split("/")[:2]))


def _packages(recipe: Recipe) -> Iterator[Check]:
    """Check the optional packages that the recipe needs."""
    found: list[Check] = []
    if recipe.sft.method == "qlora":
        found += _needed("bitsandbytes", "bitsandbytes", "sft.method: qlora")
        if not this_machine().num_gpus:
            said = "sft.method: qlora needs an NVIDIA GPU"
            found.append(Check("packages", MISSING, said, "distill plan --set sft.method=lora"))
    if recipe.trains or recipe.rl is None:
        found += _for_training(recipe.sft.compute, "sft.compute")
    if recipe.rl is not None:
        found += _for_training(recipe.rl.compute.training, "rl.compute.training")
    there = dict.fromkeys(found)  # both kinds of training may lack the same
    yield from there or [Check("packages", OK, "all packages that the recipe needs are installed")]


def _for_training(compute: TrainCompute, key: str) -> Iterator[Check]:
    """Check the packages that a training's layout needs; `key` is the section with it."""
    on_gpu = this_machine().num_gpus > 0
    if compute.sharding == "zero3":
        yield from _needed("deepspeed", "deepspeed", f"{key}.sharding: zero3")
    if compute.attention in FLASH:
        module, package = FLASH[compute.attention]
        yield from _needed(module, f"{package} --no-build-isolation", f"{key}.attention: {compute.attention}")
    elif on_gpu and compute.attention == "auto" and find_spec("flash_attn") is None:
        said = "flash-attn is not installed: rows are padded, and training is slower"
        yield Check("packages", WARNING, said, "pip install flash-attn --no-build-isolation")
    if on_gpu and compute.kernels is not False and find_spec("liger_kernel") is None:
        status = MISSING if compute.kernels else WARNING
        said = "liger-kernel is not installed" + (f", and {key}.kernels asks for it" if compute.kernels else "")
        yield Check("packages", status, said, "pip install liger-kernel")
    for tracker in compute.tracking:
        yield from _needed(tracker, tracker, f"{key}.tracking: {tracker}")


def _needed(module: str, package: str, wanted_by: str) -> Sequence[Check]:
    if find_spec(module) is not None:
        return []
    return [Check("packages", MISSING, f"{wanted_by} needs {package.split()[0]}", f"pip install {package}")]


def _fit(recipe: Recipe, run_dir: Path, named: str) -> list[Check]:
    """Check that the stages fit into memory and disk, by the estimates of `distill plan`."""
    found_plan = plan_any(recipe, run_dir, this_machine(), load_prices())
    plan = found_plan.whole if isinstance(found_plan, RoundsPlan) else found_plan
    found = [
        Check("fit", MISSING if tight.stops else WARNING, tight.message, _more_on(tight.kind, plan.machine, named))
        for tight in plan.limits
        if tight.kind in MACHINE_LIMITS
    ]
    return found or [Check("fit", OK, f"memory and disk are sufficient (see `distill plan{_named(named)}`)")]


def _named(named: str) -> str:
    return "" if named == "recipe.yaml" else f" {named}"


def _more_on(kind: str, machine: Machine, named: str) -> str:
    """Return a command that shows more about a limit."""
    if kind == "disk":
        return "df -h"
    if not machine.num_gpus:
        return f"distill plan{_named(named)} --gpus 8 --gpu h100  # or another machine"
    return "nvidia-smi" if kind == "gpus" else f"distill sft --plan{_named(named)}"
