"""Evaluation suites: what a benchmark is, how it is measured, and whose protocol that is. A short file each.

    title: AIME 2024
    about: The 30 problems of the American Invitational Mathematics Examination of 2024; answers from 0 to 999.
    licence: not stated
    follows: DeepSeek-R1 (arXiv:2501.12948), section 3
    benchmark:
      source: hf:HuggingFaceH4/aime_2024
      samples_per_problem: 64
    references: [{model: deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B, score: 28.9, source: "arXiv:2501.12948, table 5"}]

Those that come with distill are in `distill/suites/`; `suite: file:path` names a file of a team's own.
"""

import difflib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from distill.errors import RecipeError
from distill.models.hub_names import RepoFile, Revision, TableSource
from distill.recipe.base import Strict
from distill.recipe.problems import ProblemSource
from distill.recipe.yaml_tree import Places, read_tree

FOLDER = Path(__file__).parents[1] / "suites"
FILE = "file:"
GYM = "gym:"

Metric = Literal["pass@1", "instructions", "short-answers", "win-rate", "arena"]
"""What a score is: `pass@1`, the share of right answers; `instructions`, the share of prompts of which all instructions
are followed; `short-answers`, the share of facts that a judge finds correct; `win-rate` and `arena`, how often a judge
prefers the answer to the baseline's."""


TASK_OF: dict[str, str] = {
    "instructions": "instructions",
    "short-answers": "judge",
    "win-rate": "judge",
    "arena": "judge",
}
"""Metric -> the task that it needs, and that nothing else can score."""
Meaning = Literal["correct", "incorrect", "not_attempted", "first", "second", "equal"]
LABELS: dict[str, tuple[Meaning, ...]] = {
    "short-answers": ("correct", "incorrect", "not_attempted"),
    "win-rate": ("first", "second", "equal"),
}
"""Metric -> what a judge's words may stand for; there must be words for the first two."""
ORNAMENT = "*`_#> \t."
"""Characters around a judge's verdict that say nothing."""


class OwnSampling(Strict):
    """Sampling parameters of one benchmark, in place of `eval.sampling`'s."""

    temperature: Annotated[float, Field(ge=0.0, le=5.0)] | None = None
    """Sampling temperature; 0 is greedy. Default: `eval.sampling.temperature`."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Nucleus sampling. Default: `eval.sampling.top_p`."""
    top_k: Annotated[int, Field(ge=0)] | None = None
    """Sample from the k most probable tokens; 0: all. Default: `eval.sampling.top_k`."""
    max_tokens: PositiveInt | None = None
    """Longest answer, in tokens. Default: `eval.sampling.max_tokens`."""


class Adaptive(Strict):
    """When to stop sampling before `samples_per_problem` is reached."""

    width: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Stop once the 95% confidence sequence of the score is at most this wide, from end to end (0.05: 5 points)."""
    min_samples: PositiveInt = 4
    """Fewest samples of each problem."""


class Baseline(Strict):
    """The answers that a judge compares with."""

    source: TableSource
    """`hf:org/dataset` or `file:path`."""
    revision: Revision | None = None
    """Git revision of a Hub dataset. Default: the main branch."""
    split: str = "train"
    """Split of a Hub dataset."""
    file: RepoFile | None = None
    """Path of one file in the repository of a Hub dataset. Default: the dataset's split."""
    question: str = "instruction"
    """Column by which a row is matched with a question: its text, or the column of `columns.id`."""
    answer: str = "output"
    """Column with the answer, or with chat messages of which the last is the answer."""
    name: str
    """The model that wrote them."""


class BenchmarkSource(ProblemSource):
    """One benchmark: a suite, or a source of problems, and how it is measured."""

    suite: str | None = None
    """A suite by name (`distill suites`), `file:path` of a team's own, or `gym:task`. Keys beside it replace the
    suite's."""
    samples_per_problem: PositiveInt | None = None
    """Answers sampled per problem (k). Default: the suite's, else `eval.samples_per_problem`."""
    sampling: OwnSampling = OwnSampling()
    """Sampling parameters of this benchmark. Default: those of `eval.sampling`."""
    adaptive: Adaptive | None = None
    """Stop sampling once the score is known well enough. Default: sample k answers to every problem."""
    show: tuple[Annotated[str, Field(pattern=r"^(pass|cons)@[1-9][0-9]{0,5}$")], ...] = ()
    """Figures to show beside the score, e.g. `[pass@8, cons@64]`: from k of the samples, any right or the majority."""
    metric: Metric = "pass@1"
    """What the score is."""
    baseline: Baseline | None = None
    """The answers that `win-rate` and `arena` compare with."""
    style_control: bool = False
    """`arena`: correct the score for the length and the markup of the answers."""
    judge_template: Annotated[str, Field(pattern=r"^file:.+")] | None = None
    """`file:path` of another wording for the judge, such as the benchmark's authors'. Default: distill's own."""
    judge_labels: dict[str, Meaning] = Field(default={})
    """What the words stand for that `judge_template` asks for, e.g. `{A: correct, B: incorrect, C: not_attempted}`, or
    `{m: first, M: second}` by place. The judge's last line must be such a word and no more. Default: `VERDICT: …`, as
    distill's own wording asks for."""
    contests: Annotated[str, Field(pattern=r"^file:.+")] | None = None
    """`file:path` of rated rounds of Codeforces, a JSON object each (docs/suites.md): the model gets a rating from the
    problems that are of these rounds, by `columns.metadata` with `contest` and `index`. Default: no rating."""
    canary: bool = False
    """The authors ask that its text is not spread: reports, cards and logs do not show it."""

    @property
    def is_judged(self) -> bool:
        """Return whether a judge model decides the score."""
        return self.metric in ("short-answers", "win-rate", "arena")

    @model_validator(mode="after")
    def _fits_its_metric(self) -> "BenchmarkSource":
        if self.rounds:
            raise ValueError("rounds is for sources of problems: only: all rounds are measured alike. Remove it")
        metric, needed = self.metric, TASK_OF.get(self.metric)
        if needed is not None and self.task != needed:
            raise ValueError(f"metric: {metric} needs task: {needed}, not {self.task or 'the default'}: set task")
        if needed is None and self.task in TASK_OF.values():
            fitting = " or ".join(one for one, task in TASK_OF.items() if task == self.task)
            raise ValueError(f"task: {self.task} gives no {metric}: set metric to {fitting}")
        if metric in ("win-rate", "arena") and self.baseline is None and "baseline" not in self.columns.metadata:
            raise ValueError(f"metric: {metric} compares with a baseline: set baseline, or columns.metadata")
        if self.contests is not None and not {"contest", "index"} <= self.columns.metadata.keys():
            raise ValueError(
                "contests needs to know each problem's contest and its letter there: set columns.metadata, "
                "e.g. {contest: contest_id, index: index}"
            )
        if self.adaptive is not None and self.is_judged:
            raise ValueError("adaptive needs grades while sampling, and a judge is asked afterwards: remove adaptive")
        if self.style_control and metric != "arena":
            raise ValueError(f"style_control corrects the score of metric: arena, not of {metric}: remove it")
        if metric in ("win-rate", "arena") and self.show:
            raise ValueError(f"metric: {metric} has no answers that are right or wrong, so no pass@k: remove show")
        if metric != "pass@1" and (votes := [figure for figure in self.show if figure.startswith("cons@")]):
            raise ValueError(f"{', '.join(votes)}: answers of metric: {metric} are texts that cannot vote: take it out")
        if self.judge_template is not None and not self.is_judged:
            raise ValueError(f"metric: {metric} asks no judge: remove judge_template")
        return self

    @model_validator(mode="after")
    def _has_words_for_each_verdict(self) -> "BenchmarkSource":
        if not self.judge_labels:
            return self
        if self.judge_template is None:
            raise ValueError("judge_labels are the words that judge_template asks for: set judge_template")
        if self.metric not in LABELS:
            raise ValueError(f"metric: {self.metric} has verdicts of its own, such as [[A>B]]: remove judge_labels")
        allowed, said = LABELS[self.metric], self.judge_labels.values()
        if not set(allowed[:2]) <= set(said) <= set(allowed):
            raise ValueError(
                f"judge_labels: metric {self.metric} needs words for {allowed[0]} and {allowed[1]}, and may have some "
                f"for {allowed[2]}"
            )
        if bare := [word for word in self.judge_labels if not word or word != word.strip(ORNAMENT) or "\n" in word]:
            raise ValueError(f"judge_labels: {bare[0]!r} must be one line, without marks such as * . _ at its ends")
        return self


class Reference(Strict):
    """A published score, by which the harness itself is checked."""

    model: str
    """Hub id."""
    figure: Literal["rating"] | None = None
    """`rating`: the score is a rating on Codeforces. Default: it is the benchmark's score."""
    score: float
    """In percent, or a rating."""
    interval: tuple[float, float] | None = None
    """95% interval, where one was published."""
    source: str
    """Where it was published."""


class Suite(Strict):
    """All there is to know of a suite."""

    title: str
    """Its name as people write it."""
    about: str
    """What it measures, in a sentence."""
    licence: str
    """Licence of its problems."""
    follows: str
    """Whose protocol it follows, with its source."""
    comparable_with: str = ""
    """What its score can be compared with, and what not."""
    gated: bool = False
    """Whether access must be asked for on the Hub."""
    judge: str | None = None
    """The judge of the published scores, and its wording's SHA-256 if it has one."""
    benchmark: BenchmarkSource
    """How it is measured: the keys of an entry of `eval.benchmarks`."""
    references: tuple[Reference, ...] = ()
    """Published scores."""


def suite_names() -> list[str]:
    """Return the names of the suites that come with distill, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """Return a suite.

    Args:
        name: one of `suite_names()`, `file:path`, or `gym:task`.

    Raises:
        RecipeError: there is none of this name, or its file is not a valid suite.
    """
    tree = suite_tree(name)
    try:
        return Suite.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise RecipeError(f"suite {name}: {at + ': ' if at else ''}{said}") from None


def suite_tree(name: str) -> dict[str, Any]:
    """Return a suite's keys and values; `file:` sources of its own are absolute.

    Raises:
        RecipeError: there is none of this name, or its file cannot be read.
    """
    if name.startswith(GYM):
        return _gym_tree(name)
    if name.startswith(FILE):
        return _own_tree(Path(name.removeprefix(FILE)))
    if name not in suite_names():
        near = difflib.get_close_matches(name.casefold(), suite_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RecipeError(
            f"unknown suite {name!r}.{hint} There are {', '.join(suite_names())} (`distill suites`), gym:TASK and "
            "file:path of your own."
        )
    return _shipped_tree(name)


@functools.cache
def _shipped_tree(name: str) -> dict[str, Any]:
    return read_tree(FOLDER / f"{name}.yaml", {})


def _own_tree(path: Path) -> dict[str, Any]:
    places: Places = {}
    path = path.expanduser().resolve()
    if not path.is_file():
        raise RecipeError(
            f"suite {FILE}{path}: no such file. Name the suite's file, or one that comes with distill "
            "(`distill suites`)."
        )
    tree = read_tree(path, places)
    below = tree.get("benchmark")
    own_files = (
        ("source", _mapping(below)),
        ("source", _mapping(_mapping(below).get("baseline"))),
        ("judge_template", _mapping(below)),
        ("contests", _mapping(below)),
    )
    for at, section in own_files:
        value = section.get(at)
        if isinstance(value, str) and value.startswith(FILE):
            own = (path.parent / value.removeprefix(FILE)).resolve()
            if not own.is_relative_to(path.parent):
                raise RecipeError(
                    f"{path}: {at} {value} is outside the suite's folder, and a suite reads files beside it only. "
                    "Move the file there."
                )
            section[at] = f"{FILE}{own}"
    return tree


def _gym_tree(name: str) -> dict[str, Any]:
    task = name.removeprefix(GYM)
    return {
        "title": f"reasoning-gym: {task}",
        "about": "Problems that reasoning-gym generates with the recipe's seed; its own scorer grades them.",
        "licence": "Apache-2.0",
        "follows": "reasoning-gym",
        "benchmark": {"source": name, "limit": 100},
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def benchmark_tree(entry: Any, protocol: Mapping[str, Any]) -> Any:
    """Return the keys of one entry of `eval.benchmarks`: the suite's, replaced by the protocol's and the entry's own.

    Args:
        entry: a suite's name, or keys and values; anything else is left for the validation to report.
        protocol: keys that a named protocol sets for every benchmark.

    Raises:
        ValueError: there is no such suite, or its file is damaged.
    """
    if isinstance(entry, str):
        entry = {"suite": entry}
    if not isinstance(entry, Mapping):
        return entry
    own = dict(entry)
    name = own.get("suite")
    if not isinstance(name, str):
        return merged(protocol, own)
    is_gone = name.startswith(FILE) and "source" in own and not Path(name.removeprefix(FILE)).is_file()
    if is_gone:  # a lock of another machine holds all of the suite's keys itself
        return merged(protocol, own)
    try:
        load_suite(name)
        tree = _mapping(suite_tree(name).get("benchmark"))
    except RecipeError as error:
        raise ValueError(str(error).rstrip(".")) from None
    if "source" in own:  # another copy of the data has no place on the Hub
        tree = {key: value for key, value in tree.items() if key not in ("config", "split", "revision", "file")}
    return merged(merged(tree, protocol), own)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys and values with those of `over` in place of the base's, section by section."""
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        is_section = isinstance(below, Mapping) and isinstance(value, Mapping)
        found[key] = merged(dict(below or {}), value) if is_section else value
    return found
