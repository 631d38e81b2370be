"""Stage 5: publish the student, and optionally its training data, on the Hugging Face Hub.

Each repository gets one commit. `model_card.md`, `dataset_card.md` and `files.json` record what was published.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.plurals import counted
from distill.errors import UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, span
from distill.estimates.stage import SECONDS, StageEstimate
from distill.publish.access import check_access, connect
from distill.publish.facts import RunFacts, gather
from distill.publish.licences import flags, licence_of
from distill.publish.plan import AskHubs, Plan, make_plan, names_are_valid
from distill.publish.preview import plan_json
from distill.publish.upload import publish, still_there
from distill.recipe.lineage import command_of
from distill.recipe.push import PushConfig
from distill.results.push import Flag, PushMetrics
from distill.stages import RunContext, always_useful, no_inputs
from distill.storage.files import atomic_write, write_json
from distill.storage.layout import CERTIFICATE
from distill.storage.run_folder import Summary

if TYPE_CHECKING:
    from huggingface_hub import HfApi

VERSION = 1
SECTION = "push"
FROM_DATASETS = ()
verify_inputs, finish = no_inputs, always_useful
MODEL_CARD, DATASET_CARD, FILES = "model_card.md", "dataset_card.md", "files.json"
SCRATCH = "scratch"
GIB_PER_S = Range(0.005, 0.1)
LOOK_TIMEOUT_S = 10.0
NOT_IDENTITY = {"accept_licence", "replace_readme", "round"}


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides what is published."""
    return {
        "version": VERSION,
        "name": run.recipe.name,
        "description": run.recipe.description,
        "stages": {stage: manifest["fingerprint"] for stage, manifest in _manifests(run).items()},
        "finished_at": {stage: manifest["finished_at"] for stage, manifest in _manifests(run).items()},
        **_config(run).model_dump(mode="json", exclude=NOT_IDENTITY),
    }


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate:
    """Return how long the upload will take."""
    size = Range.exact(known.student.weights_gib or 1.0)
    seconds = size.over(GIB_PER_S).plus(Range(5, 30))
    basis = f"{span(size)} GiB at {span(GIB_PER_S.times(1024))} MiB/s"
    return StageEstimate(SECTION, {SECONDS: seconds.because(basis)})


def keeps_results(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return `True`: the Hub keeps versions, so another result or repository can always be pushed."""
    return True


def discard_if_empty(run: RunContext) -> bool:
    """Return `False`; never called, since `keeps_results` is always true and so no change is refused."""
    return False


def check(run: RunContext) -> list[str]:
    """Check that the Hub still has what was pushed, and return a message for each branch that has changed.

    If the Hub cannot be reached, nothing is reported.
    """
    folder = run.folder("push")
    manifest = folder.manifest
    if manifest is None or _is_outdated(run):
        return []
    try:
        api = connect()
    except UserError:
        return []
    found = []
    for pushed in PushMetrics.from_json(manifest["metrics"]).pushed:
        there = still_there(api, pushed, LOOK_TIMEOUT_S)
        if there is None:
            return []
        if not there:
            found.append(f"{pushed.repo} ({pushed.branch}) has changed since it was pushed; pushing again")
    if found:
        folder.reopen()
    return found


def reopen_if_lost(run: RunContext, force: bool) -> str | None:
    """Return `None`: the results are on the Hub, where `check` has looked."""
    return None


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find out whether a push could work, unless nothing of the run is left to do.

    Raises:
        UserError: as `check_before`.
    """
    if is_due():
        check_before(run)


def check_before(run: RunContext) -> None:
    """Check that a push can work, before any expensive stage runs.

    Raises:
        UserError: no token, no right to write, a card that distill did not write, an invalid repository name, or a
            licence that forbids publishing.
    """
    config = _config(run)
    names_are_valid(config)
    used = [one.recipe.generate for one in (*made_from(run).values(), run)]
    teachers = [(one.teacher, licence_of(one.teacher)) for one in used if one is not None]
    if teachers:
        base = run.student.hub_id, licence_of(run.student.hub_id)
        _refuse(flags(config.repo, base[1], base, teachers), config)
    check_access(connect(), config)


def dry_run(run: RunContext) -> Plan:
    """Return the plan of a push without contacting the Hub."""
    config = _config(run)
    names_are_valid(config)
    return make_plan(_facts(run), config, run.folder("push").path / SCRATCH)


def run(run: RunContext) -> Summary:
    """Publish to each repository, the dataset first: the model's card links to it."""
    config = _config(run)
    folder = run.folder("push").path
    api = connect()
    plan = make_plan(_facts(run), config, folder / SCRATCH, AskHubs(_asker(api, "model"), _asker(api, "dataset")))
    _refuse(plan.flags, config)
    _write_cards(folder, plan)
    pushed = [publish(api, one, config.replace_readme, run.recipe.name) for one in plan.publications]
    metrics = PushMetrics(
        repo=config.repo,
        url=next(one.url for one in pushed if one.kind == "model"),
        already_there=all(one.already_there for one in pushed),
        num_files=sum(one.num_files for one in pushed),
        num_files_changed=sum(one.num_changed for one in pushed),
        num_bytes_changed=sum(one.num_bytes_changed for one in pushed),
        pushed=pushed,
        flags=list(plan.flags),
        left_out=list(plan.left_out),
    )
    outputs: dict[str, int | None] = {MODEL_CARD: None, FILES: None}
    if config.dataset is not None:
        outputs[DATASET_CARD] = None
    return Summary(metrics.to_json(), outputs, scratch=(SCRATCH,))


def _facts(run: RunContext) -> RunFacts:
    manifests = _manifests(run)
    for one in run.row_sources.values():
        way = f"Run `{command_of(one.recipe, 'filter')}`, which makes it again."
        one.verify("filter", [CERTIFICATE], "push", way)
    earlier: dict[str, RunFacts] = {}
    for name, one in made_from(run).items():
        stages = {stage: found for stage in one.recipe.stage_names if (found := one.folder(stage).manifest) is not None}
        earlier[name] = gather(one.recipe, one.run_dir, stages, dict(earlier))
    return gather(run.recipe, run.run_dir, manifests, earlier)


def made_from(run: RunContext) -> dict[str, RunContext]:
    """Return the earlier rounds that a round was made from, directly or not, by name and in order."""
    recipe = run.recipe
    direct = {recipe.student_round, recipe.teacher_round, *recipe.rollout_rounds, *recipe.row_rounds} - {
        None,
        recipe.round_name,
    }
    found = {name for one in direct for name in (one, *made_from(run.earlier[str(one)]))}
    return {name: one for name, one in run.earlier.items() if name in found}


def _manifests(run: RunContext) -> dict[str, dict[str, Any]]:
    return run.made_before("push")


def _is_outdated(run: RunContext) -> bool:
    return run.folder("push").identity != identity(run)


def _config(run: RunContext) -> PushConfig:
    """Return the recipe's `push:`.

    Raises:
        UserError: there is none.
    """
    if run.recipe.push is None:
        raise UserError("push: the recipe has no push: section. Add one, or name a repository: --repo org/name.")
    return run.recipe.push


def _refuse(found: Sequence[Flag], config: PushConfig) -> None:
    refusals = [flag for flag in found if flag.level == "refusal"]
    if refusals and not config.accept_licence:
        raise UserError(
            "push: a licence forbids this.\n"
            + "\n".join(f"  {flag.text}" for flag in refusals)
            + "\nIf you have another agreement with its owner, say so with push.accept_licence: true "
            "(--accept-licence); the card still states the restriction."
        )


def _write_cards(folder: Path, plan: Plan) -> None:
    for kind, name in (("model", MODEL_CARD), ("dataset", DATASET_CARD)):
        card = next((one.card for one in plan.publications if (one.kind, one.branch) == (kind, "main")), None)
        if card is not None:
            atomic_write(folder / name, card)
    shown = plan_json(plan)
    for publication in shown["publications"]:
        del publication["card"]
    write_json(folder / FILES, shown)


def _asker(api: "HfApi", kind: str) -> Any:
    """Return an `AskHub` for models or datasets; if the Hub does not answer, the licence stays unknown."""

    def ask(name: str) -> dict[str, Any]:
        import httpx
        from huggingface_hub.errors import HFValidationError

        if name.count("/") != 1:
            return {}
        try:
            about: Any = api.repo_info(name, repo_type=kind, timeout=LOOK_TIMEOUT_S)
        except (OSError, httpx.HTTPError, HFValidationError):
            return {}
        card = about.card_data
        return card.to_dict() if card is not None else {}

    return ask


def headline(metrics: PushMetrics) -> str:
    """Return how many files were sent where."""
    if metrics.already_there:
        return f"already there: {metrics.url}"
    return f"{metrics.num_files_changed:,} of {counted(metrics.num_files, 'file')} to {metrics.url}"
