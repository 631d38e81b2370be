"""Renders a run, finished or not, as one self-contained HTML page below `MAX_BYTES`.

Stages and any field of a stage may be missing. Models wrote the traces, so every value is treated as hostile and
escaped by the templates; only the package's own script and style and the escaped JSON are inserted verbatim.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.formatting import (
    FILTERS,
    MISSING,
    Row,
    count,
    duration,
    engine_name,
    mapping,
    number,
    plain,
    printable,
)
from distill.core.records import REASONS
from distill.recipe.expand import stages_in
from distill.report import charts, reinforcement
from distill.report.benchmarks import benchmark_rows, score_values
from distill.report.cards import Card, Shown, fit, num_encoded
from distill.report.embed import FORMULA, HERE, embedded_json, policy, scripts, styles
from distill.report.gather import Run
from distill.report.headline import figures, headline
from distill.report.metrics import filtered, measured, models_measured, only_measures, reinforced
from distill.report.pairs import Pair, fit_pairs
from distill.report.pick import MAX_TRACES, RULE
from distill.report.recipe_keys import reason_keys, recipe_lines
from distill.results.kinds import kind_of
from distill.storage.run_files import IMPORTED, REINFORCED, SAMPLED, TRAINED

MAX_BYTES = 5_000_000
"""Size limit of a page."""
ANSWER_BYTES = 2_400_000
"""Share of `MAX_BYTES` for evaluation answers, where there are traces too."""
SPARE_BYTES = 100_000
MAX_NAMES = 3

QUANTITIES = {
    "seconds": "time",
    "tokens": "tokens",
    "gpu_hours": "GPU-hours",
    "cpu_hours": "CPU-hours",
    "cost": "cost",
    "memory_gib": "memory, GiB",
    "disk_gib": "disk, GiB",
}


def render_report(run: Run) -> str:
    """Return the report page of one run; missing parts read "not run yet" or a dash."""
    facts = run.facts
    stages, kept = mapping(facts.get("stages")), filtered(facts)
    benchmarks = benchmark_rows(facts)
    rows = stage_rows(facts)
    answers = fit_pairs(run.answers.pairs, ANSWER_BYTES if run.cards else MAX_BYTES // 2)
    history = facts.get("history")
    values: dict[str, Any] = {
        "facts": facts,
        "headline": headline(facts, benchmarks),
        "figures": figures(facts, benchmarks),
        "only_measures": only_measures(facts),
        "measured_protocol": measured_protocol(facts, benchmarks),
        "engines": list(dict.fromkeys(map(engine_name, mapping(models_measured(facts).get("engine")).values()))),
        "stages": rows,
        "to_do": [row["name"] for row in rows if row["state"] != "complete"],
        "stage_states": {row["name"]: row["state"] for row in rows},
        "most_dropped": max(mapping(kept.get("dropped")).items(), key=_num, default=("", 0))[0],
        "has_cost": any(row["cost"] for row in rows),
        "total_seconds": sum(row["seconds"] or 0.0 for row in rows),
        "finished_at": max((row["metrics"].get("finished_at") or "" for row in rows), default=""),
        "progress": progress_words(mapping(facts.get("begun"))),
        "funnel": charts.funnel_rows([(name, num) for name, num in facts.get("funnel") or ()]),
        "difficulty": charts.yield_rows(kept.get("by_pass_rate")),
        "sources": charts.yield_rows(kept.get("by_source")),
        "languages": charts.yield_rows(facts.get("languages")),
        "teachers": charts.yield_rows(facts.get("teachers")),
        "teacher_names": teacher_names(mapping(facts.get("teachers"))),
        "lengths": charts.histogram(mapping(facts.get("lengths"))),
        "loss": charts.step_chart(history, "loss"),
        "rate": charts.step_chart(history, "learning_rate"),
        "speed": charts.step_chart(history, "tokens_per_second"),
        "rl_curves": reinforcement.curves(rewards := facts.get("rl_history") or [], reinforced(facts).get("probe")),
        "rl_parts": reinforcement.parts(rewards),
        "rollouts": run.rollouts,
        **score_values(benchmarks),
        "answers": answers,
        "answer_names": run.answers.names,
        "num_answered": run.answers.num_all,
        "num_hidden": run.answers.num_hidden,
        "estimates": estimate_words(facts.get("estimate"), stages),
        "places": places(mapping(facts.get("lineage"))),
        "recipe_lines": recipe_lines(facts.get("recipe")),
        "reason_keys": (keys := reason_keys(facts.get("recipe"))),
        "rule": RULE.format(num=MAX_TRACES),
    }
    title = facts.get("name") or "Run"
    extra: dict[str, Any] = {"keys": keys}
    if answers.pairs:
        extra["answers"] = {**answers.to_json(), "names": run.answers.names}
    return page(
        "run.html.jinja",
        title,
        run_sections(facts, bool(answers.pairs)),
        values,
        lambda budget: fit(run.cards, run.num_traces, budget),
        extra,
        with_formulas=have_formulas([*run.cards, *cards_of(run.answers.pairs)]),
    )


def run_sections(facts: Row, has_answers: bool) -> list[tuple[str, str]]:
    """Return (id, label) of the sections of a run's page."""
    found = [("inputs", "Inputs")]
    names = facts.get("stage_names") or ()
    has_traces = not only_measures(facts) and bool({SAMPLED, IMPORTED} & {*names})
    found += [("funnel", "Funnel")] if has_traces else []
    found += [("training", "Training")] if TRAINED in names else []
    found += [("rl", "Reinforcement")] if REINFORCED in names else []
    found += [("scores", "Scores"), *([("answers", "Answers")] if has_answers else [])]
    found += [("traces", "Traces")] if has_traces else []
    return [*found, ("time", "Time"), ("lineage", "Lineage")]


def measured_protocol(facts: Row, benchmarks: Sequence[Row]) -> Row:
    """Return what the protocols of all benchmarks have in common, where none is recorded with its own."""
    return {} if any(row["protocol"] for row in benchmarks) else mapping(measured(facts).get("protocol"))


def cards_of(pairs: Sequence[Pair]) -> list[Card]:
    """Return all cards of problems with the answers of several sides."""
    return [card for pair in pairs for side in pair.sides for card in side]


def page(
    template: str,
    title: str,
    sections: Sequence[tuple[str, str]],
    values: Mapping[str, Any],
    fill: Any,
    extra: Mapping[str, Any],
    with_formulas: bool,
) -> str:
    """Return a self-contained page.

    Args:
        template: name of the template.
        title: of the page.
        sections: (id, label) of the links in the top bar.
        values: for the template.
        fill: function from the remaining bytes to `Shown`, the traces for the browser.
        extra: additional data for the script.
        with_formulas: whether to include KaTeX, which takes half a megabyte.
    """
    environment = _environment()
    style, script = styles(with_formulas), scripts(with_formulas)
    common = {
        **values,
        "title": title,
        "sections": sections,
        "with_formulas": with_formulas,
        "policy": policy(script, style),
        "style": _own(style),
        "script": _own(script),
    }
    body = environment.get_template(template)
    without = body.render(common, shown=Shown(traces=[{}], pairs=[{}]), payload="")
    taken = len(without.encode("utf-8", "replace")) + num_encoded(extra)
    shown = fill(max(0, MAX_BYTES - SPARE_BYTES - taken))
    is_filled = shown.traces or shown.pairs or "answers" in extra
    payload = {**shown.to_json(), "reasons": REASONS, **extra} if is_filled else {}
    readable = {reason for trace in shown.traces for reason in (*trace.get("reasons", ()), trace.get("outcome"))}
    html = body.render(common, shown=shown, readable=readable, payload=_own(embedded_json(payload)))
    return printable(html)


def have_formulas(cards: Sequence[Card]) -> bool:
    """Return whether any text may hold a formula."""
    asked = (text for card in cards for text in (card.problem["question"], card.problem["answer"] or ""))
    said = (text for card in cards for passage in (card.thinking, card.text) for _, text in passage.parts)
    return any(FORMULA.search(text) for texts in (asked, said) for text in texts)


def teacher_names(teachers: Row) -> str:
    """Return the teachers' names, by descending number of traces; at most three are named."""
    names = sorted(teachers, key=lambda name: (-(number(mapping(teachers[name]).get("num_traces")) or 0), name))
    more = f" and {count(len(names) - MAX_NAMES)} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        finalize=lambda value: MISSING if value is None or isinstance(value, jinja2.Undefined) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment


def _own(text: str) -> Any:
    """Mark a text as safe: one of this package's own, or JSON in which every `<` is escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - no text of a run comes here unescaped


def stage_rows(facts: Row) -> list[dict[str, Any]]:
    """Return the run's stages in order, each with its state: one of docs/json.md, or `waiting` (not begun)."""
    stages = mapping(facts.get("stages"))
    names = facts.get("stage_names") or stages_in({})
    stopped, begun = mapping(facts.get("stopped")).get("stage"), mapping(facts.get("begun")).get("stage")
    at_work = "running" if facts.get("state") == "running" else "unfinished"
    bars = {row["name"]: row for row in charts.time_bars({name: stages.get(name) for name in names})}
    rows = []
    for name in names:
        metrics = mapping(stages.get(name))
        state = "stopped" if name == stopped else at_work if name == begun else "waiting"
        state = "complete" if name in stages else state
        rows.append({**bars[name], "label": kind_of(name).title, "state": state, "metrics": metrics})
        rows[-1]["cost"] = _money(mapping(metrics.get("cost")))
    return rows


def _num(reason: tuple[str, Any]) -> float:
    return number(reason[1]) or 0.0


def _money(cost: Row) -> str:
    return "" if (amount := number(cost.get("amount"))) is None else f"{amount:,.2f} {cost.get('currency', '')}".strip()


def progress_words(begun: Row) -> str:
    """Return the progress of the unfinished stage as a sentence; empty if unknown."""
    done, wanted = number(begun.get("num_done")), number(begun.get("num_wanted"))
    if not done:
        return ""
    of = f" of {count(wanted)}" if wanted else ""
    return f"{count(done)}{of} {begun.get('unit', '')} are done and kept."


def estimate_words(estimate: Any, stages: Row) -> list[dict[str, Any]]:
    """Return the estimate's rows with their numbers as text; `stages` are those that are complete."""
    rows = charts.estimate_rows(estimate)
    currency = mapping(estimate).get("currency")
    for row in rows:
        name = row["quantity"]
        say = duration if name == "seconds" else _quantity
        if row["actual"] is None and row["stage"] in stages:
            row["verdict"] = "not measured"
        low, high = say(row["low"]), say(row["high"])
        row["label"] = QUANTITIES.get(name, name) + (f", {currency}" if name == "cost" and currency else "")
        row["expected"] = low if low == high else f"{low} to {high}"
        row["took"] = say(row["actual"])
    return rows


def _quantity(value: Any) -> str:
    n = number(value)
    if n is None or n == 0:
        return plain(value)
    if abs(n) >= 100:
        return count(n)
    return "under 0.01" if 0 < n < 0.01 else f"{n:.2g}"


def places(lineage: Row) -> list[tuple[str, str]]:
    """Return the distinct versions, hardware and commits of all stages."""
    found: dict[str, dict[str, None]] = {}

    def add(name: str, value: Any) -> None:
        if value:
            found.setdefault(name, {})[str(value)] = None

    for stage in lineage.values():
        hardware = mapping(stage.get("hardware"))
        add("Processor", hardware.get("cpu"))
        cores, memory = number(hardware.get("num_cores")), number(hardware.get("memory_gib"))
        add("Cores and memory", f"{count(cores)} cores, {plain(memory)} GiB" if cores or memory else None)
        add("GPUs", ", ".join(str(gpu) for gpu in hardware.get("gpus") or ()))
        add("System", hardware.get("platform"))
        add("Commit", stage.get("git_commit"))
        add("Versions", ", ".join(f"{name} {version}" for name, version in mapping(stage.get("versions")).items()))
    return [(name, "; ".join(values)) for name, values in found.items()]
