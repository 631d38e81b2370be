"""Read a log of Inspect into problems, traces and verdicts.

A sample of the log, which becomes one problem (shared by its epochs), one trace and one verdict:

    {"id": "s0", "epoch": 1, "input": "What is 0 + 1?", "target": "1", "messages": […], "output": {…},
     "scores": {"match": {"value": "C", "answer": "1"}}}

A log is somebody else's: each value is checked before it is used, and an error names the file, the sample and the key.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping, number
from distill.core.json_shape import ANY, COUNT, NOTHING, OBJECT, TEXT, Shape, fault
from distill.core.records import FinishReason, Message, Problem, Trace, Verdict
from distill.core.thinking import join_reasoning, split_reasoning, whole_characters
from distill.errors import ExchangeError
from distill.exchange.inspect_files import InspectFile
from distill.exchange.inspect_log import SCORER as OUR_SCORER

MAX_TEXT_CHARS = 32 << 20
"""Of one text of a log: an answer of 10 MB and more, and nothing absurd."""
MAX_VALUE_CHARS = 200
MAX_NAMES = 200
"""Names of scorers that are kept for messages."""
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "max_tokens": "length", "model_length": "length"}
"""Inspect's stop reasons that answers have; "length" is what older logs say."""
VALUES: dict[str, bool | None] = {
    **dict.fromkeys(("c", "yes", "true"), True),
    **dict.fromkeys(("i", "n", "no", "false"), False),
}
"""Values of scores, in lower case, as Inspect's `value_to_float` reads them: correct, incorrect, no answer. "P" is
partial credit: neither right nor wrong."""

_HEADER: Shape = {
    "version?": COUNT,
    "status?": TEXT,
    "eval": {
        "task": TEXT,
        "model": TEXT,
        "task_version?": ANY,
        "config?": {"epochs?": (COUNT, NOTHING)},
        "dataset": {"name?": (TEXT, NOTHING), "samples?": (COUNT, NOTHING)},
        "packages?": {"*": TEXT},
    },
    "plan?": {"config?": OBJECT},
    "results?": (
        {
            "total_samples?": COUNT,
            "scores?": [{"name": TEXT, "scorer?": TEXT, "metrics": {"*": {"name": TEXT, "value": ANY}}}],
            "headline?": (OBJECT, NOTHING),
        },
        NOTHING,
    ),
    "error?": ({"message": TEXT}, NOTHING),
}
_MESSAGES: Shape = [{"role": TEXT, "content": (TEXT, [OBJECT]), "source?": (TEXT, NOTHING)}]
_SAMPLE: Shape = {
    "id": (TEXT, COUNT),
    "epoch": COUNT,
    "input": (TEXT, _MESSAGES),
    "target": (TEXT, [TEXT]),
    "choices?": ([TEXT], NOTHING),
    "messages?": _MESSAGES,
    "output?": {
        "choices?": [{"message": {"content": (TEXT, [OBJECT])}, "stop_reason?": TEXT}],
        "usage?": ({"input_tokens?": COUNT, "output_tokens?": COUNT}, NOTHING),
    },
    "scores?": ({"*": {"value": ANY, "answer?": (TEXT, NOTHING), "explanation?": (TEXT, NOTHING)}}, NOTHING),
    "metadata?": OBJECT,
    "error?": ({"message": TEXT}, NOTHING),
    "attachments?": {"*": TEXT},
}
_ATTACHMENT = re.compile(r"attachment://([0-9a-f]{32,64})")
_OUR_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of the whole log, as Inspect worked it out."""

    scorer: str
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class ImportedLog:
    """What one log says, with its samples as records."""

    task: str
    model: str
    scorer: str | None
    """The scorer whose values are the verdicts; `None` if nothing was scored."""
    status: str
    """Inspect's own: `success`, `started`, `cancelled` or `error`."""
    why_incomplete: str
    """Empty if each sample was answered."""
    samples_per_problem: int
    num_wanted: int
    problems: list[Problem] = field(repr=False)
    traces: list[Trace] = field(repr=False)
    verdicts: list[Verdict] = field(repr=False)
    metrics: list[Metric]
    protocol: dict[str, Any]

    @property
    def num_failed(self) -> int:
        return sum(trace.finish_reason == "error" for trace in self.traces)

    @property
    def num_missing(self) -> int:
        return max(0, self.num_wanted - len(self.traces))

    @property
    def num_ungraded(self) -> int:
        """Return how many answers have no grade, failed samples not among them."""
        return sum(verdict.correct is None for verdict in self.verdicts) - self.num_failed


def read_inspect_log(path: Path, scorer: str | None = None) -> ImportedLog:
    """Read a log of Inspect, in either format.

    Args:
        path: a `.json` or `.eval` file.
        scorer: whose values decide which answers are right; `scorer/key` for one that gives several values. Default:
            that of the log's headline metric, else its first.

    Raises:
        ExchangeError: the file is no log, is damaged or too large, has no samples or no such scorer, or holds something
            that is not text.
    """
    file = InspectFile(path)
    header = file.header()
    _check(path, "", header, _HEADER)
    spec = header["eval"]
    chosen = _Choice(scorer, header)
    is_ours = OUR_SCORER in mapping(spec.get("packages"))
    problems: dict[str, Problem] = {}
    traces: dict[tuple[str, int], Trace] = {}
    verdicts: dict[tuple[str, int], Verdict] = {}
    for place, raw in file.samples():
        sample = _Sample(path, place, raw, spec["task"], is_ours)
        problem = sample.problem()
        trace = sample.trace(problem.id, spec["model"])
        problems.setdefault(problem.id, problem)
        traces[trace.key] = trace  # of a sample that was run again, the last
        verdicts[trace.key] = sample.verdict(trace, *chosen.score_of(sample.scores))
    if not traces:
        raise ExchangeError(f"{path}: has no samples (status: {header.get('status')}).{_own_words(header)}")
    if not chosen.was_found and (scorer or chosen.names):
        known = ", ".join(sorted(chosen.names)) or "none"
        raise ExchangeError(f"{path}: no sample has a score by {scorer or chosen.name!r}. Scorers: {known}.")
    keys = sorted(traces)
    epochs = number(mapping(spec.get("config")).get("epochs")) or max(index for _, index in keys) + 1
    num_wanted = int(number(mapping(header.get("results")).get("total_samples")) or _num_asked(spec, int(epochs)))
    imported = ImportedLog(
        task=spec["task"],
        model=spec["model"],
        scorer=chosen.name if chosen.was_found else None,
        status=str(header.get("status", "started")),
        why_incomplete="",
        samples_per_problem=int(epochs),
        num_wanted=max(num_wanted, len(traces)),
        problems=list(problems.values()),
        traces=[traces[one] for one in keys],
        verdicts=[verdicts[one] for one in keys],
        metrics=list(_metrics(header)),
        protocol=_protocol(header, int(epochs), chosen.name if chosen.was_found else None),
    )
    return _with_reason(imported, header)


class _Choice:
    """Which of a sample's scores counts."""

    def __init__(self, asked: str | None, header: Mapping[str, Any]) -> None:
        results = mapping(header.get("results"))
        headline = mapping(results.get("headline"))
        listed = [one.get("scorer", one["name"]) for one in results.get("scores") or []]
        told = next((one for one in (headline.get("scorer"), *listed) if isinstance(one, str) and one), "")
        self._asked = asked
        self._headline_key = str(headline.get("score", ""))
        self.name = asked or told
        """As it was asked for or told; later with the key of a value that is an object."""
        self.names: set[str] = set()
        self.was_found = False

    def score_of(self, scores: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
        """Return a sample's score, and its value; an empty one if the sample has none by this scorer."""
        for name, score in scores.items():
            keys = score["value"] if isinstance(score["value"], Mapping) else ()
            self.names |= {name, *(f"{name}/{key}" for key in keys)} if len(self.names) < MAX_NAMES else set()
        self.name = self.name or next(iter(scores), "")
        name, key = self.name, self._headline_key
        if name not in scores and "/" in name:  # names of scorers may have a slash too
            name, _, key = name.rpartition("/")
        if name not in scores:
            return {}, None
        value = scores[name]["value"]
        if not isinstance(value, Mapping):
            self.was_found = True
            return scores[name], value
        if key in value:
            self.was_found = True
            self.name = f"{name}/{key}"
        return scores[name], value.get(key)


class _Sample:
    """One checked sample of a log."""

    def __init__(self, path: Path, place: str, raw: dict[str, Any], task: str, is_ours: bool) -> None:
        _check(path, place, raw, _SAMPLE)
        self._where = f"{path}: {place}"
        self._raw, self._task = raw, task
        self._metadata = mapping(raw.get("metadata"))
        self._is_ours = is_ours and bool(_OUR_ID.fullmatch(str(raw["id"])))
        if not 1 <= raw["epoch"] <= 1 << 20:
            raise ExchangeError(f"{self._where}.epoch is {raw['epoch']}, not from 1 on. The log is damaged.")
        self.scores: Mapping[str, Any] = raw.get("scores") or {}
        self._prompt = self._asked()

    def problem(self) -> Problem:
        """Return the question as it was asked, with the target as the expected answer."""
        target = self._raw["target"]
        answer = self._text(target if isinstance(target, str) else target[0] if len(target) == 1 else "", "target")
        metadata: dict[str, Any] = {"inspect_id": str(self._raw["id"])[:MAX_VALUE_CHARS]}
        if isinstance(target, list) and len(target) > 1:
            metadata["targets"] = [self._text(one, "target") for one in target]
        if choices := self._raw.get("choices"):
            metadata["options"] = [self._text(one, "choices") for one in choices]
        task = self._metadata.get("task") if self._is_ours else None
        name = str(self._raw["id"]) if self._is_ours else self._id()
        source = f"inspect:{self._task}"
        return Problem(name, self._prompt, answer or None, task if isinstance(task, str) else source, source, metadata)

    def trace(self, problem_id: str, model: str) -> Trace:
        """Return the last answer of the sample; an error if it has none."""
        output = mapping(self._raw.get("output"))
        choice = next(iter(output.get("choices") or []), None)
        error = mapping(self._raw.get("error")).get("message", "")
        reasoning, content = ("", "") if choice is None else self._answer(choice["message"]["content"], "output")
        whole = join_reasoning(reasoning, content)
        if not reasoning:  # a thought that Inspect did not split off, such as one that the prompt opened
            split = split_reasoning(content)
            reasoning, content = split.reasoning, split.content
        reason: FinishReason = FINISH_REASONS.get(str(mapping(choice).get("stop_reason")), "stop")
        told = self._metadata.get("finish_reason")
        if self._is_ours and told in ("stop", "length", "loop"):
            reason = told
        if error or choice is None:
            reason, error = "error", error or "the log has no output for it"
        text = self._metadata.get("text") if self._is_ours else None
        usage = mapping(output.get("usage"))
        return Trace(
            problem_id=problem_id,
            sample_index=self._raw["epoch"] - 1,
            teacher=model,
            teacher_revision="",
            text=self._text(text, "metadata.text") if isinstance(text, str) else whole,
            reasoning=reasoning,
            content=content,
            finish_reason=reason,
            num_prompt_tokens=int(usage.get("input_tokens") or 0),
            num_completion_tokens=int(usage.get("output_tokens") or 0),
            seed=int(number(self._metadata.get("seed")) or 0) if self._is_ours else 0,
            error=whole_characters(str(error)[:MAX_VALUE_CHARS]) if reason == "error" else "",
        )

    def verdict(self, trace: Trace, score: Mapping[str, Any], value: Any) -> Verdict:
        """Return the grade that a score gave; `None` where it gave none, or one that is neither right nor wrong."""
        if trace.finish_reason == "error":
            return Verdict(trace.problem_id, trace.sample_index, None, None, ("error",))
        details = {} if value is None else {"inspect_value": json.dumps(value)[:MAX_VALUE_CHARS]}
        if explanation := score.get("explanation"):
            details["inspect_explanation"] = whole_characters(explanation[:MAX_VALUE_CHARS])
        answer = score.get("answer")
        extracted = None if answer is None else self._text(answer, "scores.answer")
        return Verdict(trace.problem_id, trace.sample_index, as_correct(value), extracted, details=details)

    def _asked(self) -> list[Message]:
        """Return the messages before the model's first own one: those that its prompt was made of."""
        messages = self._raw.get("messages") or []
        own = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
        own = [place for place in own if messages[place].get("source") == "generate"] or own[-1:]
        asked = messages[: own[0]] if own else messages
        given = self._raw["input"]
        if not asked:
            asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return [self._message(one, place) for place, one in enumerate(asked)]

    def _message(self, message: Mapping[str, Any], place: int) -> Message:
        if message["role"] not in ("system", "user", "assistant"):
            raise ExchangeError(
                f"{self._where}.messages.{place}: a message of {message['role'][:40]!r}. "
                "A task with tools cannot be imported."
            )
        return {"role": message["role"], "content": join_reasoning(*self._answer(message["content"], "messages"))}

    def _answer(self, content: str | list[Any], at: str) -> tuple[str, str]:
        """Return reasoning and text of a message."""
        if isinstance(content, str):
            return "", self._text(content, at)
        found: dict[str, list[str]] = {"reasoning": [], "text": []}
        for part in content:
            kind = str(part.get("type"))
            text = part.get(kind) if kind in found else None
            if not isinstance(text, str):
                raise ExchangeError(f"{self._where}.{at}: a part of type {kind[:40]!r}. Only texts can be imported.")
            found[kind].append(self._text(text, at))
        return "\n\n".join(found["reasoning"]), "\n\n".join(found["text"])

    def _text(self, text: str, at: str) -> str:
        """Return a text, from the attachments if it stands there."""
        if named := _ATTACHMENT.fullmatch(text):
            attached = mapping(self._raw.get("attachments")).get(named[1])
            if attached is None:
                raise ExchangeError(f"{self._where}.{at}: the attachment {named[1]} is not in the log. It is damaged.")
            text = attached
        if len(text) > MAX_TEXT_CHARS:
            raise ExchangeError(f"{self._where}.{at}: {len(text):,} characters, more than {MAX_TEXT_CHARS:,}.")
        return whole_characters(text)

    def _id(self) -> str:
        """Return a hash of task and sample, without the prompt, in which a solver may shuffle options at each epoch."""
        content = json.dumps([self._task, self._raw["id"], self._raw["input"]], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def as_correct(value: Any) -> bool | None:
    """Return whether a score's value means right or wrong; `None` for partial credit, several values and no score."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if (known := VALUES.get(value[:16].lower())) is not None:
            return known
        try:
            value = float(value[:32])
        except ValueError:
            return None
    if not isinstance(value, int | float) or value not in (0, 1):
        return None
    return value == 1


def _check(path: Path, place: str, value: Any, shape: Shape) -> None:
    if wrong := fault(value, shape, place):
        raise ExchangeError(f"{path}: {wrong}. It is no log of Inspect that distill can read, or a damaged one.")


def _num_asked(spec: Mapping[str, Any], epochs: int) -> int:
    ids = spec["dataset"].get("sample_ids")  # only those that were asked for, if there was a limit
    num_items = len(ids) if isinstance(ids, list) else number(spec["dataset"].get("samples")) or 0
    return int(num_items) * epochs


def _metrics(header: Mapping[str, Any]) -> Iterator[Metric]:
    for score in mapping(header.get("results")).get("scores") or []:
        for metric in score["metrics"].values():
            if (value := number(metric["value"])) is not None:  # NaN where nothing was scored
                yield Metric(score["name"], metric["name"], value)


def _protocol(header: Mapping[str, Any], epochs: int, scorer: str | None) -> dict[str, Any]:
    """Return the conditions of the scores that the log tells."""
    spec = header["eval"]
    told = {**mapping(spec.get("model_generate_config")), **mapping(mapping(header.get("plan")).get("config"))}
    sampling = {name: number(told.get(name)) for name in ("temperature", "top_p", "top_k", "max_tokens")}
    return {
        "harness": f"inspect_ai {mapping(spec.get('packages')).get('inspect_ai', '')}".strip(),
        "task": spec["task"],
        "task_version": str(spec.get("task_version", ""))[:MAX_VALUE_CHARS],
        "scorer": scorer,
        "samples_per_problem": epochs,
        **{name: value for name, value in sampling.items() if value is not None},
    }


def _with_reason(imported: ImportedLog, header: Mapping[str, Any]) -> ImportedLog:
    missing, failed = imported.num_missing, imported.num_failed
    if not missing and not failed and imported.status == "success":
        return imported
    why = f"status {imported.status}: of {imported.num_wanted:,} samples, {missing} are missing and {failed} failed."
    errors = [trace.error for trace in imported.traces if trace.finish_reason == "error"]
    first = f" The first error: {errors[0]}" if errors else ""
    return replace(imported, why_incomplete=why + first + _own_words(header))


def _own_words(header: Mapping[str, Any]) -> str:
    message = mapping(header.get("error")).get("message")
    return f" Inspect says: {whole_characters(str(message))[:MAX_VALUE_CHARS]}" if message else ""
