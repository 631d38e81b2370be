"""`distill eval --via inspect:TASK`: a task of another harness against models of ours."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.cli.app import CommonOptions
from distill.cli.evaluation import Request, models_of, run_name
from distill.cli.output import print_json, print_result
from distill.errors import RecipeError

if TYPE_CHECKING:
    from distill.exchange.inspect_import import ImportedLog


def run_via(given: CommonOptions, asked: Request) -> None:
    """Run a task of inspect-evals against each model, and show its scores as they come."""
    from distill.evaluation.model_names import roles_of
    from distill.exchange.inspect_task import InspectRun, run_inspect_task, task_of
    from distill.exchange.model_server import serve_model
    from distill.models.hub import resolve_model
    from distill.models.students import hub_id_of
    from distill.recipe.sampling import SamplingCompute
    from distill.stages import chat_format_of

    assert asked.via is not None
    assert asked.inspect_python is not None
    name = run_name(asked, given.run_dir)
    run = InspectRun(
        task=task_of(asked.via),
        python=asked.inspect_python,
        samples_per_problem=asked.samples,
        limit=asked.limit,
        **sampling_given(asked, given.overrides or ()),
    )
    rows: list[dict[str, Any]] = []
    for role, asked_model in roles_of(map(hub_id_of, models_of(asked))).items():
        model = resolve_model(asked_model, None)
        folder = given.run_dir / name / "inspect" / role
        server = serve_model(model, role, chat_format_of(model.name), SamplingCompute(), folder)
        rows.append({"model": model.name, **row_of_log(run_inspect_task(run, server, folder)), "folder": str(folder)})
        if not given.as_json:
            print_result("\n".join(lines_of_row(rows[-1])))
    if given.as_json:
        print_json({"schema_version": 1, "models": rows})


def sampling_given(asked: Request, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the sampling parameters that `--protocol` and `--set eval.sampling.…` set for a task of another harness.

    Raises:
        RecipeError: a key is set that such a task does not know, or to a value that it cannot have.
    """
    from pydantic import ValidationError

    from distill.recipe.eval import PROTOCOLS
    from distill.recipe.loading import override
    from distill.recipe.suites import OwnSampling

    known = ("temperature", "top_p", "max_tokens")
    tree: dict[str, Any] = {}
    for key in override(tree, overrides, {}):
        if key not in [f"eval.sampling.{one}" for one in known]:
            raise RecipeError(f"--set {key}: with --via only eval.sampling can be set: {', '.join(known)}.")
    if asked.protocol is not None and asked.protocol not in PROTOCOLS:
        raise RecipeError(f"eval: --protocol {asked.protocol}: there is only {', '.join(PROTOCOLS)}.")
    named = PROTOCOLS[asked.protocol]["sampling"] if asked.protocol else {}
    own = tree.get("eval", {}).get("sampling", {})
    try:
        found = OwnSampling.model_validate({key: named[key] for key in known if key in named} | own)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RecipeError(f"--set eval.sampling.{first['loc'][0]}: {first['msg']}.") from None
    return found.model_dump(exclude_none=True)


def row_of_log(log: "ImportedLog") -> dict[str, Any]:
    """Return what the log of a task says, and the share of right answers with its interval."""
    from distill.evaluation.scoring import scores_of
    from distill.scores.intervals import mean_interval, mean_score

    scores = list(scores_of(log.verdicts).values())
    return {
        "task": log.task,
        "scorer": log.scorer,
        "status": log.status,
        "why_incomplete": log.why_incomplete,
        "num_problems": len(log.problems),
        "metrics": {f"{one.scorer}/{one.name}": one.value for one in log.metrics},
        "pass_at_1": mean_score(scores) if scores else None,
        "interval_95": mean_interval(scores) if scores else None,
        "num_ungraded": log.num_ungraded,
    }


def lines_of_row(row: Mapping[str, Any]) -> list[str]:
    """Return what a task says of a model, in lines."""
    told = ", ".join(f"{key} {value:.3f}" for key, value in row["metrics"].items())
    lines = [f"{row['model']}, {row['task']} by {row['scorer']}: {told or 'no score'}"]
    if row["interval_95"] is not None:
        low, high = row["interval_95"]
        ungraded = f", without {row['num_ungraded']:,} answers that are neither right nor wrong"
        lines.append(
            f"  right: {row['pass_at_1']:.1%} (95% interval {low:.1%} to {high:.1%})"
            f"{ungraded if row['num_ungraded'] else ''}"
        )
    lines += [f"  incomplete: {row['why_incomplete']}"] if row["why_incomplete"] else []
    return [*lines, f"  {row['num_problems']} problems; the log is in {row['folder']}/logs"]
