"""Stage 4: improve the student by reinforcement learning on the training problems.

Writes `student/` (loads in vLLM and transformers), `adapter/` (with LoRA), `best/`, `rollouts/` and `metrics.jsonl`
(`distill.training.rl.job`), and the problems that it asks: `problems.jsonl`, `probe.jsonl`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.core.plurals import counted
from distill.core.progress import note
from distill.core.records import Problem
from distill.engines.memory import check_memory
from distill.engines.start import pick_engine
from distill.errors import ModelError, ProblemError, RecipeError, UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.measured import Measured
from distill.estimates.prices import Prices
from distill.estimates.rl_cost import RlCost, rl_quantities, trained_as
from distill.estimates.rl_remedies import ways_to_fit
from distill.estimates.stage import PARTLY, StageEstimate, StageProgress, priced
from distill.estimates.training_layouts import layout_here
from distill.execution.jobs import follow, run_job
from distill.execution.launchers import Follower
from distill.filters.decontaminate import Decontaminator
from distill.grading.gym import FULL_SCORE
from distill.models.hub import Model, resolve_model
from distill.models.rope import rope_of
from distill.models.students import find_student, hub_id_of
from distill.models.tokenizers import chat_template_of, check_same_tokens, load_tokenizer, template_text
from distill.recipe.lineage import command_of, deciding
from distill.recipe.model import Recipe
from distill.recipe.rl import Difficulty, RlConfig
from distill.recipe.rl_faults import R1_ZERO, judge_of, rl_warnings
from distill.recipe.sandbox import trained_programs
from distill.recipe.steps import MAKING_MODELS
from distill.results.filter import FilterMetrics
from distill.results.kinds import stage_with
from distill.results.rl import RlMetrics
from distill.rewards.rollouts import RULED, has_rule
from distill.sources.evaluation_sets import Pack
from distill.sources.problems import HELD_OUT, problems_fingerprint
from distill.stages import RunContext, always_useful, keeps_nothing, need_tests, reopen_to_train
from distill.storage.case_files import write_problems
from distill.storage.files import iter_jsonl, num_whole_lines, read_jsonl
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import ADAPTER, CHECKPOINTS, FACTS_FILE, METRICS, PROBE, PROBLEMS, STUDENT, VERDICTS
from distill.storage.run_folder import StageFolder, Summary
from distill.training.checkpoints import set_damaged_aside
from distill.training.layout import Layout
from distill.training.rl.job import BEST, POLICY, ROLLOUTS, SAVE_WITHIN_S, RlJob
from distill.training.rl.order import refuse_empty_band

JOB = "train_rl"
VERSION = 1
SECTION = "rl"
FROM_DATASETS = ("problems", "probe_problems", "evaluation_sets")
MODELS = ("base_model",)
SOMETIMES = ("best_step", "stopped_by", "gpu_peak_gib")
"""Metrics that are left out where the job has nothing to tell."""
keeps_results, finish = keeps_nothing, always_useful
reopen_if_lost = reopen_to_train(SECTION)


def runs_programs(recipe: Recipe) -> list[str]:
    """Return the keys of a recipe whose answers are programs."""
    return [key for key in trained_programs(recipe) if key.startswith("problems.")]


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the student, the teachers, an engine and the problems.

    Raises:
        ModelError: a model cannot be had, the base has no chat template and `rl.prompt_format` needs one, or a teacher
            here has another tokenizer than the student.
        ProblemError: there are fewer problems than a step or the probe needs.
        RecipeError: no part of the reward can vary for these problems, or the filter's verdicts leave none of them
            within `rl.difficulty`.
    """
    config = _config(run)
    base = run.base_model  # what earlier stages and rounds make of it may not be there yet
    pick_engine(config.compute.sampling)
    check_memory(base, config.compute.sampling)
    if fault := template_fault(run.recipe, base):
        raise ModelError(fault)
    context = rope_of(base.config).context
    if _asks_base(run.recipe) and context is not None and config.max_tokens >= context:
        raise ModelError(
            f"rl.max_tokens ({config.max_tokens}) leaves no room for a prompt in the context of {base.name} ({context} "
            "tokens). Lower it."
        )
    teachers = [resolve_model(hub_id_of(name)) for name in config.teachers if not _is_url(name)]
    if teachers and not run.folder(SECTION).is_complete:
        _need_same_tokens(base, teachers)
    problems, probe = problems_of(run), probe_of(run)
    _need_variance(config, problems)
    if not run.folder(SECTION).is_complete:
        refuse_empty_band([one.id for one in problems], _solved_already(run), config.difficulty)
    if config.prompts_per_step > len(problems):
        raise ProblemError(
            f"rl.prompts_per_step ({config.prompts_per_step}) exceeds the {counted(len(problems), 'problem')} that can "
            "be trained on (those whose answers can be graded, without eval.held_out and "
            "filter.decontaminate). Lower it, or add problems."
        )
    if config.probe.problems > len(probe):
        raise ProblemError(
            f"rl.probe.problems ({config.probe.problems}) exceeds the {counted(len(probe), 'held-out problem')}. Lower "
            "it, or raise eval.held_out."
        )
    need_tests(run, SECTION, [*problems, *probe])


def template_fault(recipe: Recipe, base: Model) -> str:
    """Return why the base cannot be asked in the format that `rl:` wants; empty if it can.

    Args:
        recipe: one with `rl:`.
        base: the student's files, of which the tokenizer's are read.
    """
    assert recipe.rl is not None
    if recipe.rl.prompt_format == R1_ZERO or not _asks_base(recipe):
        return ""
    if chat_template_of(base.path, find_student(recipe.student).chat_format) is not None:
        return ""
    return (
        f"rl.prompt_format: {base.name} has no chat template. Set rl.prompt_format: r1-zero, which is for base models, "
        "or train another student."
    )


def _need_same_tokens(base: Model, teachers: Sequence[Model]) -> None:
    """Raise if a teacher on this machine calls tokens by other numbers than the student, which has its base's."""
    from transformers import AutoTokenizer

    # Without a template, which an earlier stage may yet give the student.
    try:
        student = AutoTokenizer.from_pretrained(base.path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{base.path}: the tokenizer cannot be loaded ({str(error).splitlines()[0]}).") from None
    for one in teachers:
        check_same_tokens(load_tokenizer(one.path, None, key="rl.teachers"), student, one.name)


def _need_variance(config: RlConfig, problems: Sequence[Problem]) -> None:
    """Raise if all answers to each of the problems would be worth the same, so that nothing could be learnt."""
    if not config.uses_rewards:
        return
    tasks = {problem.task if has_rule(problem) else "judge" for problem in problems}
    if not tasks or config.reward.varying(tasks, RULED):
        return
    keys = " and ".join(f"rl.reward.{name}" for name in config.reward.weights)
    raise RecipeError(
        f"rl.reward: no part of the reward can vary: {keys} {'do' if ' and ' in keys else 'does'} not apply to answers "
        f"of task: {', '.join(sorted(tasks))}, so all answers to a problem would be worth the same. Give "
        "rl.reward.accuracy a weight, or use other problems."
    )


def problems_of(run: RunContext) -> list[Problem]:
    """Return the problems to train on.

    They are those whose answers a rule, or the reward's judge, can grade, without those that repeat an item of
    `filter.decontaminate`.
    """
    is_judged = judge_of(run.recipe) is not None
    gradable = [one for one in run.problem_sets.train if is_judged or has_rule(one)]
    if not (packs := _packs(run)):
        return gradable
    hits = Decontaminator(packs).hits_of_all([one.questions for one in gradable])
    return [one for one, found in zip(gradable, hits, strict=True) if not found]


def _packs(run: RunContext) -> list[Pack]:
    """Return the evaluation sets that must not be trained on: a round without rows has those of its student's."""
    earlier = run.earlier.get(run.recipe.student_round or "")
    return run.evaluation_packs or ([] if earlier is None else _packs(earlier))


def probe_of(run: RunContext) -> list[Problem]:
    """Return the held-out problems that are answered while training."""
    # The held-out split is in an order drawn at random, so its first problems are a sample of it.
    return run.problem_sets.benchmarks.get(HELD_OUT, [])[: _config(run).probe.problems]


def check(run: RunContext) -> list[str]:
    """Move damaged checkpoints aside and return a message for each; training resumes from the latest intact one."""
    return set_damaged_aside(run.folder(SECTION).path / CHECKPOINTS)


def discard_if_empty(run: RunContext) -> bool:
    """Return whether an unfinished training left neither a student nor a checkpoint nor rollouts."""
    folder = run.folder(SECTION)
    left = [folder.path / STUDENT, *(folder.path / CHECKPOINTS).glob("checkpoint-*")]
    left += (folder.path / ROLLOUTS).glob("*.parquet")
    return not folder.is_complete and not any(path.exists() for path in left)


def verify_inputs(run: RunContext) -> None:
    """Verify the weights to start from, if this run made them.

    Raises:
        StoreError: they are not those that an earlier stage or round wrote.
    """
    name = run.recipe.student_round
    if not run.recipe.trains and name is None:
        return
    one = run if run.recipe.trains else run.earlier[str(name)]
    stage = MAKING_MODELS[0] if one is run else one.made_by_stage(SECTION)[0]
    way = f"Train again with `{command_of(one.recipe, stage)} --force` (what is there is moved aside)."
    one.verify(stage, [STUDENT], SECTION, way)


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate | None:
    """Return what sampling and training will take."""
    if (config := known.recipe.rl) is None:
        return None

    def takes(config: RlConfig, machine: Machine) -> RlCost:
        return rl_quantities(known.recipe, config, known.work, known.rows, known.student, machine, known.seen)

    found = takes(config, machine)
    return StageEstimate(
        SECTION,
        priced(found.quantities, machine, found.num_gpus, prices),
        tuple(found.notes),
        found.num_gpus,
        trains=True,
        no_layout=found.notes[-1] if found.layout is None else "",
        to_fit=ways_to_fit(takes, config, machine),
    )


def standing(run: RunContext, found: StageProgress, seen: Measured, num_wanted: float) -> StageProgress:
    """Return how much of the training is left, from the steps that are logged."""
    num_done, wanted = num_whole_lines(run.folder(SECTION).path / METRICS), _config(run).steps
    if found.state != PARTLY or not num_done:
        return found
    return StageProgress(PARTLY, f"resumes after step {num_done:,} of {wanted:,}", max(0.0, 1 - num_done / wanted))


def progress(folder: Path) -> dict[str, Any]:
    """Return the logged steps of an unfinished training."""
    wanted = (StageFolder(folder).identity or {}).get("steps")
    return {"num_done": num_whole_lines(folder / METRICS), "num_wanted": wanted, "unit": "steps"}


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the student."""
    student, config = run.reinforced_model, _config(run)
    return {
        "version": VERSION,
        "student": student.name,
        "student_revision": student.revision,
        "seed": run.recipe.seed,
        "problems": problems_fingerprint(run.problem_sets.train),
        "evaluation_sets": {pack.name: pack.sha256 for pack in _packs(run)},
        "probe_problems": problems_fingerprint(probe_of(run)),
        **deciding(_settings(run)),
        "learning_rate": config.peak_learning_rate,
        "chat_template": _template(run),
        "teacher_revisions": [_teacher(name)["revision"] for name in config.teachers],
        "solved": _verdicts_made(run),
        # Where nothing else is asked for, trainings of before there was this key stay as they are.
        **({} if _gym_min_score(run) == FULL_SCORE else {"gym_min_score": _gym_min_score(run)}),
    }


def _config(run: RunContext) -> RlConfig:
    """Return the recipe's `rl:`; a stage runs only where it is there."""
    assert run.recipe.rl is not None
    return run.recipe.rl


def _settings(run: RunContext) -> dict[str, Any]:
    """Return `rl:` with the judge that rewards, which `filter:` may name."""
    settings = _config(run).model_dump(mode="json")
    if (judge := judge_of(run.recipe)) is not None:
        settings["reward"]["judge"]["by"] = judge.model_dump(mode="json")
    return settings


def _asks_base(recipe: Recipe) -> bool:
    """Return whether the base itself is trained, without a stage or a round before."""
    return not recipe.trains and recipe.student_round is None


def _template(run: RunContext) -> str | None:
    """Return the chat template that replaces the model's own; a student of an earlier stage is saved with its own."""
    if _config(run).prompt_format == R1_ZERO:
        return template_text(R1_ZERO)
    return template_text(run.student.template_override) if _asks_base(run.recipe) else None


def _gym_min_score(run: RunContext) -> float:
    """Return the score at which a gym answer is right: a round without rows has that of its student's."""
    earlier = run.earlier.get(run.recipe.student_round or "")
    return run.recipe.filter.gym_min_score if run.recipe.has_traces or earlier is None else _gym_min_score(earlier)


def _verdicts_made(run: RunContext) -> str | None:
    """Return the SHA-256 (hex) of the verdicts that tell how often problems were solved; `None`: none are used."""
    filtered = stage_with(FilterMetrics)
    # The default band takes every problem, so that nothing need be known of them, and no folder of the filter.
    if _config(run).difficulty == Difficulty() or filtered not in run.recipe.stage_names:
        return None
    return str(run.finished(filtered, SECTION)["outputs"][VERDICTS]["sha256"])


def _solved(run: RunContext) -> dict[str, tuple[int, int]]:
    """Return problem id -> (right answers, graded answers), from the filter's verdicts."""
    if _verdicts_made(run) is None:
        return {}
    graded: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for row in iter_jsonl(run.files.verdicts):
        if row.get("correct") is not None:
            graded[str(row["problem_id"])] += 1
            right[str(row["problem_id"])] += bool(row["correct"])
    return {name: (right[name], num) for name, num in graded.items()}


def _solved_already(run: RunContext) -> dict[str, tuple[int, int]]:
    """Return what `_solved` does where the filter is done and is not to be made again; empty if it is not."""
    if not run.recipe.has_traces:
        return {}
    try:
        run.made_before(MAKING_MODELS[0])  # what comes before a training on rows: the filter, and its traces
        return _solved(run)
    except UserError:
        return {}


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _teacher(name: str) -> dict[str, Any]:
    """Return a teacher's name, and its folder or URL; its revision is unknown if a server holds it."""
    if _is_url(name):
        url, _, model = name.partition("#")
        return {"name": model or url, "path": None, "url": url, "revision": ""}
    found = resolve_model(hub_id_of(name))
    return {"name": found.name, "path": str(found.path), "url": None, "revision": found.revision}


def rl_job(run: RunContext, folder: Path, only_check: bool = False) -> RlJob:
    """Write the problems into a folder, and return the job that writes there too.

    Args:
        run: the recipe and its folder.
        folder: the stage's, or another one for a check.
        only_check: sample and reward a handful of answers, and train nothing.
    """
    config, student = _config(run), run.reinforced_model
    write_problems(folder / PROBLEMS, problems_of(run))
    if probe := probe_of(run):
        write_problems(folder / PROBE, probe)
    is_base = _asks_base(run.recipe)
    template = _template(run)
    return RlJob(
        model_name=student.name,
        model_path=str(student.path),
        model_revision=student.revision,
        chat_template=template,
        chat_format=run.student.chat_format if is_base else None,
        stop_token=run.student.stop_token if is_base and template is None else None,
        problems=str(folder / PROBLEMS),
        probe=str(folder / PROBE) if probe else None,
        solved=_solved(run),
        facts=str(run.run_dir / FACTS_FILE),
        sandbox=run.recipe.sandbox.model_dump(mode="json"),
        out_dir=str(folder),
        seed=run.recipe.seed,
        owner=fingerprint(identity(run)),
        project=run.recipe.name,
        run_name=SECTION if run.recipe.round_name is None else run.recipe.round_name,
        layout=layout_of(run).to_json(),
        config=_settings(run),
        teachers=tuple({key: told[key] for key in ("name", "path", "url")} for told in map(_teacher, config.teachers)),
        gym_min_score=_gym_min_score(run),
        only_check=only_check,
    )


def layout_of(run: RunContext) -> Layout:
    """Return how the processes of this machine, or of a launcher, share the answers of a step."""
    world_size = None if run.leader is None else run.leader.place.world_size
    config = _config(run)
    return layout_here(config, trained_as(config), run.base_model.config, run.student.alias, world_size)


def run(run: RunContext) -> Summary:
    """Sample and train in child processes."""
    for warning in rl_warnings(run.recipe):
        note(warning)
    folder, config = run.folder(SECTION).path, _config(run)
    job, layout = rl_job(run, folder), layout_of(run)
    trained, peak = run_job(
        JOB, job, folder, SAVE_WITHIN_S, layout.num_processes, is_group=layout.needs_group, leader=run.leader
    )
    trained = {key: value for key, value in trained.items() if value is not None or key not in SOMETIMES}
    metrics = RlMetrics(
        student=job.model_name,
        student_revision=job.model_revision,
        algorithm=config.algorithm,
        teachers=[one["name"] for one in job.teachers],
        loss=config.loss,
        method=config.method,
        num_problems=num_whole_lines(Path(job.problems)),
        num_wanted_steps=config.steps,
        prompts_per_step=config.prompts_per_step,
        group_size=config.group_size,
        learning_rate=config.peak_learning_rate,
        **{"layout": job.layout, **trained, "history": read_jsonl(folder / METRICS)},
    )
    outputs: dict[str, int | None] = {STUDENT: None, METRICS: len(metrics.history), ROLLOUTS: None}
    outputs |= {PROBLEMS: metrics.num_problems}
    outputs |= {name: None for name in (ADAPTER, BEST) if (folder / name).is_dir()}
    if job.probe is not None:
        outputs[PROBE] = config.probe.problems
    keeps_checkpoints = run.recipe.push is not None and run.recipe.push.checkpoints
    scratch = (POLICY,) if keeps_checkpoints else (POLICY, CHECKPOINTS)
    return Summary(metrics.to_json(), outputs, peak, scratch)


def take_part(run_dir: Path, follower: Follower) -> None:
    """Take part in training as a launcher's process other than rank 0, which does everything else."""
    follow(JOB, run_dir / SECTION, follower, SAVE_WITHIN_S)


def headline(metrics: RlMetrics) -> str:
    """Return steps, answers, the reward at the end and the probe before and after."""
    found = f"{counted(metrics.num_steps, 'step')}, {counted(metrics.num_rollouts, 'rollout')}"
    if metrics.mean_reward is not None:
        found += f", reward {metrics.mean_reward:.3f}"
    shares = [point.pass_at_1 for point in metrics.probe if point.pass_at_1 is not None]
    if shares:
        found += f", held out {shares[0]:.1%} -> {shares[-1]:.1%}"
    if metrics.stopped_by is not None:
        found += f"; stopped by {metrics.stopped_by} after {metrics.num_steps:,} of {metrics.num_wanted_steps:,} steps"
    elif metrics.warnings:
        found += f"; {counted(len(metrics.warnings), 'warning')}"
    return found
