"""Score stored answers again, without a model: those of a run, finished or not, or of a file.

A file of answers (JSONL, JSON, CSV, Parquet), a row an answer or all answers to a question:

    {"id": "60", "response": "… \\boxed{204}."}
    {"question": "What is 2 + 2?", "responses": ["4", "5"]}

Rows belong to a suite's problem by its id, or by the question's text. Of rows with the same `sample_index` the last
counts. An answer that is null, or whose `finish_reason` tells of a failure, is a failed sample.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.finish_reasons import ending_of
from distill.core.plurals import counted
from distill.core.progress import note
from distill.core.records import FinishReason, Trace
from distill.core.thinking import split_reasoning
from distill.errors import ProblemError, UserError
from distill.evaluation.answers import Answers, Evaluation, stored_traces, verdicts_of
from distill.evaluation.contaminated import question_alone
from distill.evaluation.measured_sets import MeasuredSet, grading_of_today, read_sets
from distill.evaluation.scoring import score_set
from distill.grading.code.grader import backend_of, check_tests
from distill.recipe.eval import EvalConfig
from distill.recipe.sandbox import SandboxConfig
from distill.results.eval import Protocol
from distill.results.measure import ModelsOnBenchmark
from distill.sampling.job import read_problems
from distill.sources.problems import bare_question
from distill.sources.tables import file_rows
from distill.storage.files import read_object
from distill.storage.layout import BENCHMARKS, FACTS_FILE, IDENTITY, LEDGER, PROBLEMS

ID_COLUMNS = ("problem_id", "id", "unique_id", "item_id", "key", "doc_id")
QUESTION_COLUMNS = ("question", "problem", "prompt", "instruction", "query")
TEXT_COLUMNS = ("text", "response", "responses", "generation", "generations", "output", "completion", "completions")
REASON_COLUMNS = ("finish_reason", "stop_reason")
INDEX_COLUMN = "sample_index"
NUM_SHOWN = 3
_NOT_KNOWN = ("prompt", "temperature", "top_p", "top_k", "max_tokens")
"""Parts of a protocol that a file of answers does not tell, so that its scores are not taken for ours."""
MAX_OTHER_SHARE = 0.05
"""Share of rows that may answer other questions, such as those of another version of a suite; they are left out."""


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """Answers of one or several models, and what they were asked."""

    evaluation: Evaluation
    traces: Mapping[str, Sequence[Trace]]
    """Folder of a model (`base`, `org-name`), or name of a file -> its answers."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Folder of a model -> its name, where that is known."""

    def name_of(self, role: str) -> str:
        """Return the name of the model in a folder."""
        return self.names.get(role, role)


def answers_of_run(folder: Path, config: EvalConfig, seed: int, sandbox: SandboxConfig | None = None) -> StoredAnswers:
    """Return the answers that an evaluation has stored so far.

    Args:
        folder: `runs/<name>/eval` or `runs/<name>/measure`; it need not be complete.
        config: the recipe's `eval:`.
        seed: the recipe's seed.
        sandbox: where programs in answers run; `None`: on this machine.

    Raises:
        UserError: nothing is stored there, or a file is damaged.
    """
    if not (folder / PROBLEMS).is_file():
        raise UserError(f"{folder}: no evaluation is stored there. Evaluate first with `distill eval`.")
    sets = read_sets(folder / BENCHMARKS)
    try:
        problems = read_problems(folder / PROBLEMS)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / PROBLEMS}: cannot be read ({error}).") from None
    facts = folder.parent / FACTS_FILE
    evaluation = Evaluation(folder, sets, problems, config, seed, facts, sandbox=sandbox or SandboxConfig())
    roles = sorted(file.parent.name for file in folder.glob(f"*/{LEDGER}"))
    traces = {role: stored_traces(folder / role / LEDGER, evaluation.wanted) for role in roles}
    if not any(traces.values()):
        raise UserError(f"{folder}: no answer is stored there yet. Evaluate first with `distill eval`.")
    return StoredAnswers(evaluation, traces, _names_of_models(folder))


def _names_of_models(folder: Path) -> dict[str, str]:
    """Return the models' names by folder, as far as the identity tells them."""
    identity = read_object(folder / IDENTITY) or {}
    base, models = identity.get("base"), identity.get("models")
    found = {"base": base} if isinstance(base, str) else {}
    if isinstance(models, dict):
        found |= {role: str(name).rpartition("@")[0] for role, name in models.items()}
    return found


def answers_of_file(path: Path, evaluation: Evaluation) -> StoredAnswers:
    """Return the answers in a file, matched with the problems that are measured.

    Args:
        path: `.jsonl`, `.json`, `.csv` or `.parquet`.
        evaluation: what the answers are to; its sets give the number of samples that are wanted.

    Raises:
        ProblemError: the file cannot be read, a row has no answer, or more rows than a few answer other questions.
    """
    names = _names(evaluation)
    texts: dict[str, dict[int | str, _Text]] = defaultdict(dict)
    others: list[str] = []
    num_rows = 0
    for place, row in file_rows(path):
        num_rows += 1
        name = _problem_of(row, names)
        if name is None:
            others.append(place)
        else:
            several = _texts(place, row)
            index = _sample_index(row) if len(several) == 1 else None
            # A row without an index is a sample of its own.
            texts[name] |= {f"{place}/{i}" if index is None else index: text for i, text in enumerate(several)}
    shown = ", ".join(others[:NUM_SHOWN]) + (", …" if len(others) > NUM_SHOWN else "")
    if texts and 0 < len(others) <= MAX_OTHER_SHARE * num_rows:
        note(f"{path}: {counted(len(others), 'row')} of {num_rows:,} left out: no such question ({shown}).")
    elif others or not texts:
        raise ProblemError(
            f"{path}: {len(others):,} of {num_rows:,} rows answer no question of "
            f"{', '.join(one.name for one in evaluation.sets)} ({shown or 'the file is empty'}). A row needs the "
            f"problem's id ({', '.join(ID_COLUMNS)}) or its question ({', '.join(QUESTION_COLUMNS)}). Name the suite "
            "that the answers are to with --suite."
        )
    if unanswered := [one.name for one in evaluation.sets if not texts.keys() & set(one.problems)]:
        raise ProblemError(
            f"{path}: no row answers a question of {', '.join(unanswered)}, so there is no score. Leave the suite out."
        )
    traces = [_trace(path.stem, name, i, text) for name in sorted(texts) for i, text in enumerate(texts[name].values())]
    return StoredAnswers(evaluation, {path.stem: traces})


def replay(stored: StoredAnswers) -> list[ModelsOnBenchmark]:
    """Grade and score stored answers by the rules of today, which their protocols then name.

    Raises:
        ModelError, StageError: a set is judged, and its judge cannot be reached; or programs cannot be tested.
    """
    evaluation = stored.evaluation
    check_tests(backend_of(evaluation.sandbox), evaluation.problems.values(), "eval")
    answers = {
        role: Answers(stored.name_of(role), traces, verdicts_of(evaluation, traces))
        for role, traces in stored.traces.items()
    }
    found = []
    for one in evaluation.sets:
        scores = {
            role: score_set(one, theirs.of(one.problems), evaluation.problems, evaluation.seed)
            for role, theirs in answers.items()
        }
        problems = [evaluation.problems[name] for name in one.problems]
        graded = grading_of_today(problems, one.metric, evaluation.config.judge, one.judge_template, one.judge_labels)
        fields = {key: value for key, value in {**one.protocol.to_json(), **graded}.items() if value is not None}
        protocol = Protocol.from_json(fields).with_hash()
        found.append(ModelsOnBenchmark(name=one.name, protocol=protocol, models=scores))
    return found


def with_samples_of(evaluation: Evaluation, traces: Sequence[Trace]) -> Evaluation:
    """Return the evaluation with as many samples of each set's problems as a file has of the one with the most."""
    drawn = Counter(trace.problem_id for trace in traces)
    sets = []
    for one in evaluation.sets:
        k = max((drawn[name] for name in one.problems), default=0)
        known = {key: value for key, value in one.protocol.to_json().items() if key not in _NOT_KNOWN}
        protocol = Protocol.from_json({**known, "samples_per_problem": k}).with_hash()
        fields = {key: getattr(one, key) for key in one.__slots__}
        sets.append(MeasuredSet(**{**fields, "samples_per_problem": k, "protocol": protocol}))
    return replace(evaluation, sets=sets)


class _Names(NamedTuple):
    """Problems by what a row may call them."""

    ids: dict[str, str]
    """By their id, and by the suite's own where no other suite has the same."""
    questions: dict[str, str]
    """By their question, with and without the prompt around it; of equal ones the first."""
    equal: dict[str, str]
    """Problem -> the first one with its question."""


def _names(evaluation: Evaluation) -> _Names:
    ids: dict[str, str] = {}
    shared: set[str] = set()
    questions: dict[str, str] = {}
    equal: dict[str, str] = {}
    for one in evaluation.sets:
        for name in one.problems:
            problem = evaluation.problems[name]
            alone = question_alone(problem, one)
            for key in (bare_question(alone, "{problem}"), bare_question(problem.question, "{problem}")):
                questions.setdefault(key, name)
            equal[name] = questions[bare_question(alone, "{problem}")]
            own_id = name.removeprefix(f"{one.name}/")
            if ids.setdefault(own_id, name) != name:
                shared.add(own_id)
    whole = {name: name for one in evaluation.sets for name in one.problems}
    return _Names({**{id_: name for id_, name in ids.items() if id_ not in shared}, **whole}, questions, equal)


def _problem_of(row: Mapping[str, Any], names: _Names) -> str | None:
    """Return the problem that a row answers: by its question, and if several are equal, by its id."""
    by_id = next((names.ids[str(row[one])] for one in ID_COLUMNS if str(row.get(one)) in names.ids), None)
    for column in QUESTION_COLUMNS:
        text = row.get(column)
        if isinstance(text, list):  # chat messages
            text = next(
                (m.get("content") for m in reversed(text) if isinstance(m, dict) and m.get("role") == "user"), None
            )
        if isinstance(text, str) and (found := names.questions.get(bare_question(text, "{problem}"))):
            # An id may be the number of a row, which says nothing to the suite.
            return by_id if by_id is not None and names.equal[by_id] == names.equal[found] else found
    return by_id


class _Text(NamedTuple):
    """What a file tells of one answer."""

    text: str
    reason: FinishReason


def _texts(place: str, row: Mapping[str, Any]) -> list[_Text]:
    """Return the answers of a row.

    Raises:
        ProblemError: it has none.
    """
    there = [column for column in TEXT_COLUMNS if column in row]
    if not there:
        raise ProblemError(
            f"{place}: no answer, or list of answers, in {', '.join(TEXT_COLUMNS)} (there are: {', '.join(row)}). "
            "Rename the column."
        )
    column = next((one for one in there if isinstance(row[one], str | list)), there[0])
    texts = row[column] if isinstance(row[column], list) else [row[column]]
    if not texts or not all(text is None or isinstance(text, str) for text in texts):
        raise ProblemError(f"{place}: {column} holds no text, or list of texts. Write null for an answer that failed.")
    told = next((row[one] for one in REASON_COLUMNS if row.get(one) is not None), None)
    reasons = [*told, *([None] * len(texts))] if isinstance(told, list) else [told] * len(texts)
    return [
        _Text("", "error") if text is None else _Text(text, ending_of(reason).reason)
        for text, reason in zip(texts, reasons, strict=False)
    ]


def _sample_index(row: Mapping[str, Any]) -> int | None:
    index = str(row.get(INDEX_COLUMN))
    return int(index) if index.isdecimal() else None


def _trace(model: str, name: str, index: int, told: _Text) -> Trace:
    parts = split_reasoning(told.text)
    return Trace(
        problem_id=name,
        sample_index=index,
        teacher=model,
        teacher_revision="",
        text=told.text,
        reasoning=parts.reasoning,
        content=parts.content,
        finish_reason=told.reason,
        num_prompt_tokens=0,
        num_completion_tokens=0,
        seed=0,
    )
