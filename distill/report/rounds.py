"""The page of a run with rounds: which model came from which rows, the scores of all models, and the way to each round.

Each round has a page of its own (`<run>/<round>/report.html`), which is that of a run without rounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.core.formatting import Row, count, mapping, number, percent, points, points_range
from distill.core.redaction import scrub
from distill.report import charts, metrics
from distill.report.cards import Shown
from distill.report.damage import Damage
from distill.report.gather import Run, gather_run, read_text, shown_command
from distill.report.next_step import next_command, noted_command
from distill.report.progress_on_disk import run_state
from distill.report.recipe_keys import recipe_lines
from distill.report.render import page, places, stage_rows
from distill.results.rl import way_of
from distill.storage.files import read_object
from distill.storage.layout import LOCK_FILE, REPORT, SUMMARY
from distill.storage.run_files import SAMPLED, TRAINED
from distill.storage.run_folder import is_run, writer_of

FACTS_VERSION = 1
REPEAT = "run"
LEFT_OUT = ("recipe", "lock", "history", "schema_version")
"""Facts of a round that the whole run has too, or that only the round's own page shows."""


def has_rounds(folder: Path) -> bool:
    """Return whether a folder holds a run with rounds."""
    try:
        return "rounds" in (read_object(folder / SUMMARY) or {})
    except Exception:  # damaged; the page of a run without rounds says so
        return False


def gather_rounds(folder: Path) -> Run:
    """Read a run with rounds.

    Args:
        folder: `runs/<name>`.
    """
    damage = Damage(folder)
    summary = read_object(folder / SUMMARY) or {}
    rounds = [_round(folder, name, mapping(one), damage) for name, one in mapping(summary.get("rounds")).items()]
    to_do = [f"{one['name']}/{stage}" for one in rounds for stage in one["to_do"]]
    stopped = summary.get("stopped")
    state = run_state(not to_do and not stopped, bool(stopped), writer_of(folder))
    note = noted_command(folder)
    command = next_command(note, to_do or [REPEAT], folder) if state in ("stopped", "unfinished") else None
    facts = {
        "schema_version": FACTS_VERSION,
        **{key: summary.get(key) for key in ("name", "description", "student", "seed", "distill_version")},
        "rounds": rounds,
        "scores": summary.get("scores"),
        "stopped": stopped,
        "state": state,
        "next_command": shown_command(command),
        "recipe": summary.get("recipe"),
        "lock": read_text(folder / LOCK_FILE),
        "damaged": damage.to_json(),
    }
    return Run(folder, scrub(facts), damage=damage)


def _round(folder: Path, name: str, told: Row, damage: Damage) -> dict[str, Any]:
    """Return the facts of one round, begun or not."""
    facts: dict[str, Any] = {}
    if is_run(folder / name):
        found = gather_run(folder / name, with_traces=False)
        facts = {key: value for key, value in found.facts.items() if key not in LEFT_OUT}
        damage.add(found.damage)
    names = facts.get("stage_names") or []
    return {
        **facts,
        "name": name,
        "made_from": told.get("made_from"),
        "gate": told.get("gate"),
        "to_do": [stage for stage in names if stage not in mapping(facts.get("stages"))] if facts else _first(told),
    }


def _first(told: Row) -> list[str]:
    """Return the first stage of a round that has not begun."""
    return [SAMPLED if mapping(told.get("made_from")).get("teacher") else TRAINED]


def render_rounds(run: Run) -> str:
    """Return the report page of a run with rounds; missing parts read "not run yet" or a dash."""
    facts = run.facts
    scores = mapping(facts.get("scores"))
    models = [_model(str(name), mapping(one)) for name, one in mapping(scores.get("models")).items()]
    apart = not_side_by_side(models, scores)
    models = [model for model in models if model["model"] not in apart]
    rounds = [_row(one) for one in facts.get("rounds") or ()]
    values: dict[str, Any] = {
        "facts": facts,
        "headline": headline(models, scores.get("pairs") or (), facts),
        "rounds": rounds,
        "models": models,
        "axis": charts.score_axis([{"models": models}]),
        "pairs": scores.get("pairs") or (),
        "apart": apart,
        "not_paired": scores.get("not_paired") or (),
        "num_problems": next((model["scores"].get("num_problems") for model in models), None),
        "places": places({k: v for one in facts["rounds"] for k, v in _lineage(one).items()}),
        "recipe_lines": recipe_lines(facts.get("recipe")),
        "report": REPORT,
    }
    sections = [("story", "Rounds"), ("scores", "Scores"), ("lineage", "Lineage")]
    title = facts.get("name") or "Run"
    nothing = lambda budget: Shown(traces=[], pairs=[])  # noqa: E731 - traces are on the pages of the rounds
    return page("rounds.html.jinja", title, sections, values, nothing, {}, with_formulas=False)


def not_side_by_side(models: Sequence[Mapping[str, Any]], scores: Row) -> dict[str, str]:
    """Return the models whose scores are by other protocols than the first one's, each with what differs."""
    first = next((model["model"] for model in models), None)
    rows = [mapping(row) for row in scores.get("not_paired") or ()]
    return {str(row.get("of")): str(row.get("why")) for row in rows if row.get("over") == first}


def _model(name: str, scores: Row) -> dict[str, Any]:
    return {**charts.model_score(name, scores), "label": name, "kind": "student" if "base" in scores else "base"}


def _lineage(one: Row) -> dict[str, Any]:
    return {f"{one['name']}/{stage}": found for stage, found in mapping(one.get("lineage")).items()}


def _row(one: Row) -> dict[str, Any]:
    """Return a round for the template: its stages with their states, its time, and what it did."""
    stages = mapping(one.get("stages"))
    return {
        **one,
        "rows": stage_rows(one) if one.get("stage_names") else [],
        "seconds": sum(number(mapping(stage).get("seconds")) or 0.0 for stage in stages.values()),
        "has_page": bool(stages),
        "story": story(one),
    }


def story(one: Row) -> list[str]:
    """Return what a round did, as sentences: who answered, what was kept, what was trained on what."""
    made = mapping(one.get("made_from"))
    found = []
    if drawn := metrics.sampled(one):
        teacher = made.get("teacher") or drawn.get("teacher")
        found.append(f"{teacher} answered {count(drawn.get('num_problems'))} problems, {_samples(drawn)}.")
    if read := metrics.imported(one):
        rollouts = " and ".join(map(str, made.get("rollouts") or ()))
        of = f": the rollouts of {rollouts}" if rollouts else ""
        found.append(f"{count(read.get('num_samples'))} traces were imported{of}.")
    if kept := metrics.filtered(one):
        found.append(f"{count(kept.get('num_kept'))} of {count(kept.get('num_traces'))} traces were kept.")
    if trained := metrics.trained(one):
        rows = " and ".join("its own" if row == one["name"] else f"those of {row}" for row in made.get("rows") or ())
        student = made.get("student") or trained.get("student")
        found.append(f"{student} was trained on {count(trained.get('num_rows'))} rows ({rows or 'its own'}).")
    if reinforced := metrics.reinforced(one):
        student = "It" if trained else made.get("student") or reinforced.get("student")
        steps, problems = count(reinforced.get("num_steps")), count(reinforced.get("num_problems"))
        way = way_of(str(reinforced.get("algorithm")), list(map(str, reinforced.get("teachers") or ())))
        found.append(f"{student} was improved by {way} in {steps} steps on {problems} problems.")
    return found


def _samples(drawn: Row) -> str:
    num = number(drawn.get("samples_per_problem"))
    return f"{count(drawn.get('num_samples'))} samples" if num is None or num > 1 else "once each"


def headline(models: Sequence[Mapping[str, Any]], pairs: Sequence[Row], facts: Row) -> str:
    """Return the run's result in one sentence."""
    measured = [model for model in models if number(model["scores"].get("pass_at_1")) is not None]
    made = [model for model in measured if any(one["name"] == model["model"] for one in facts["rounds"])]
    if not made:
        done = [one["name"] for one in facts["rounds"] if not one["to_do"]]
        complete = f"{', '.join(done)} {'is' if len(done) == 1 else 'are'} complete" if done else "no round is complete"
        return f"{len(facts['rounds'])} rounds: {complete}; no model has a score yet."
    last = made[-1]
    text = f"After {last['model']}, the student solves {percent(last['scores']['pass_at_1'])} of the problems"
    before = last["scores"].get("base")
    pair = next((one for one in pairs if one["of"] == last["model"] and one["over"] == before), None)
    base = next((model for model in measured if model["model"] == before), None)
    if pair is not None and base is not None:
        text += f"; the base solved {percent(base['scores']['pass_at_1'])}: {points(pair['pass_at_1'])} points"
        text += f" (95% interval {points_range(pair['interval_95'])})"
    best = max(made, key=lambda model: number(model["scores"]["pass_at_1"]) or 0.0)
    return f"{text}." + (
        f" The best was {best['model']}, with {percent(best['scores']['pass_at_1'])}." if best is not last else ""
    )
