"""The stages: thin shells (files, processes) around pure cores. They never import each other.

Each stage module has

    VERSION                     raised when the same inputs give another result
    SECTION                     its section of a recipe
    FROM_DATASETS               keys of its identity that only loading datasets could check
    estimate(known, machine, prices)
                                what it will take, as a `StageEstimate`, `priced` if it computes; `None` if that
                                cannot be told
    prepare(run, is_due)        finds every model, engine and dataset that it needs, before any stage does work
    identity(run)               everything that decides the result
    check(run)                  verifies stored results
    keeps_results(changed)      whether a changed identity leaves stored results valid
    discard_if_empty(run)       whether an attempt left nothing worth keeping and may be replaced without --force
    reopen_if_lost(run, force)  what of a finished stage is missing or damaged; its folder is made ready to repeat it
    verify_inputs(run)          verifies the results of earlier stages that it reads
    run(run) -> Summary         does the work
    finish(run)                 refuses to continue where the result leaves later stages nothing to do
    headline(metrics)           its result in a line, from its metrics as an object (`metrics.num_rows`)

and, where the general answer is not enough,

    BEGINS_ANEW                 in words, that an interrupted attempt is not resumed
    MODELS                      the models whose files its identity reads: properties of `RunContext`
    assumed_identity(run, before)
                                its identity if the datasets have not changed, without loading them
    standing(run, found, seen, num_wanted)
                                how far it is, more precisely than by comparing identities
    take_part(run_dir, follower)
                                joins in as one of a launcher's other processes, if they can share its work
    runs_programs(recipe)       the keys of a recipe for which it runs programs that models wrote; a sandbox is looked
                                for before anything is loaded
    progress(folder)            how much of it an unfinished attempt has done, from its files alone

They share the state of a run in a `RunContext`. The models of what they record are in `distill.results`, their table in
`distill.stages.table`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.plurals import counted
from distill.core.records import Problem
from distill.errors import StoreError, UserError
from distill.evaluation.measured_sets import MeasuredSet, measured_sets, with_baselines
from distill.evaluation.progress import num_failed, num_not_run
from distill.execution.launchers import Leader
from distill.grading.code.grader import backend_of, check_tests
from distill.grading.sandbox import sandbox_fails
from distill.models.hub import Model, resolve_model
from distill.models.students import Student, find_student, hub_id_of, known_student
from distill.recipe.generate import GenerateConfig
from distill.recipe.lineage import check_lineage, command_of, revision_made, stages_before
from distill.recipe.model import Recipe
from distill.recipe.rounds import ROUND
from distill.recipe.steps import MAKING_MODELS
from distill.sources.evaluation_sets import Pack, load_packs
from distill.sources.problems import ProblemSets, load_problem_sets
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import ADAPTER, KEPT, STUDENT, TESTS
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder, damaged_outputs
from distill.training.rl.job import ROLLOUTS

SERVED = "served"
"""Revision of a teacher behind a server, whose real revision is unknown."""


class Asked(NamedTuple):
    """What an evaluation asks of every model."""

    sets: list[MeasuredSet]
    problems: dict[str, Problem]
    """All problems of the sets by id."""


@dataclass(frozen=True)
class RunContext:
    """A recipe without rounds, or one round, and its run folder. Slow lookups are cached."""

    recipe: Recipe
    run_dir: Path
    """`runs/<name>/`, or `runs/<name>/<round>/`."""
    retry_errors: bool = False
    """Whether to retry samples that ended in errors."""
    leader: Leader | None = None
    """Leads the other processes of a launcher (such as torchrun), if one started this process."""
    needs_weights: bool = True
    """Whether the student's weights are needed; its tokenizer and config are enough to check rows."""
    earlier: "Mapping[str, RunContext]" = field(default_factory=dict)
    """The rounds before this one, by name; empty for a recipe without rounds."""

    def folder(self, stage: str) -> StageFolder:
        """Return a stage's folder, which need not exist."""
        return StageFolder(self.run_dir / stage)

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.run_dir, self.recipe.making_stage)

    def if_loaded(self, name: str) -> Any:
        """Return one of the slow lookups (`problem_sets`, `base_model`, …) if it was done already, else `None`."""
        return self.__dict__.get(name)  # where cached_property stores it

    def with_loaded(self, **values: Any) -> "RunContext":
        """Return a context for looking only, without weights, whose slow lookups give these values."""
        made = RunContext(self.recipe, self.run_dir, needs_weights=False, earlier=self.earlier)
        made.__dict__.update(values)  # where cached_property finds them
        return made

    def finished(self, stage: str, wanted_by: str) -> dict[str, Any]:
        """Return the manifest of an earlier stage.

        Raises:
            UserError: that stage is not complete.
        """
        manifest = self.folder(stage).manifest
        if manifest is None:
            raise UserError(
                f"{wanted_by}: needs the results of {stage}, which are not complete in {self.run_dir}. "
                f"Run `{command_of(self.recipe, stage)}` first, or `distill run` for all stages."
            )
        return manifest

    def made_before(self, stage: str, same_split: bool = False) -> dict[str, dict[str, Any]]:
        """Return the manifests of the stages that a stage builds on, after checking that this recipe made them.

        Args:
            stage: the stage.
            same_split: see `distill.recipe.lineage.check_lineage`.

        Returns:
            Stage -> manifest, in running order.

        Raises:
            UserError: a stage is not complete, or the recipe has changed since.
            StoreError: a stage was made from another result of its predecessor than the one that is there now.
        """
        before = stages_before(self.recipe, stage)
        # Training needs only rows or a model, so a machine may have the filter's folder without the traces' folder.
        needed = before[-1:] if stage in MAKING_MODELS else before
        found = {name: self.finished(name, stage) for name in reversed(needed)}
        manifests = {name: found.get(name) or self.folder(name).manifest for name in before}
        complete = {name: manifest for name, manifest in manifests.items() if manifest is not None}
        check_lineage(self.recipe, complete, before, stage, same_split)
        self._check_earlier_rounds(complete, stage)
        return complete

    def _check_earlier_rounds(self, manifests: Mapping[str, Mapping[str, Any]], wanted_by: str) -> None:
        """Raise if a stage was made from another result of an earlier round than the one that is there now."""
        recipe = self.recipe
        made_from: list[tuple[str, Any, Any]] = []
        if (imported := manifests.get("import")) is not None and recipe.rollout_rounds:
            made_from.append(("import", imported["identity"].get("rollouts"), self.rollouts_made("import")))
        if (sampled := manifests.get("generate")) is not None and recipe.teacher_round is not None:
            made_from.append(("generate", sampled["identity"].get("teacher_revision"), self.teacher_model.revision))
        first = next((name for name in MAKING_MODELS if name in recipe.stage_names), "")
        if (trained := manifests.get(first)) is not None:
            if recipe.student_round is not None:
                made_from.append((first, trained["identity"].get("student_revision"), self.student_model.revision))
            if recipe.trains and list(self.row_sources) != [recipe.round_name]:
                made_from.append((first, trained["identity"].get("rows"), self.rows_made()))
        for stage, used, current in made_from:
            if used != current:
                raise StoreError(
                    f"{wanted_by}: {stage} of round {recipe.round_name} was made from another result of an earlier "
                    f"round than the one that is there now. Make it again with `{command_of(recipe, stage)} --force` "
                    "(what is there is moved aside)."
                )

    def rows_made(self) -> Any:
        """Return the SHA-256 (hex) of the kept rows to train on; by round if not only this round's are.

        Raises:
            UserError: they are not complete, or the recipe has changed since.
        """
        found = {name: one.made_before("sft")["filter"] for name, one in self.row_sources.items()}
        hashes = {name: manifest["outputs"][KEPT]["sha256"] for name, manifest in found.items()}
        return hashes[self.recipe.round_name] if list(hashes) == [self.recipe.round_name] else hashes

    def rollouts_made(self, wanted_by: str) -> dict[str, str]:
        """Return the SHA-256 (hex) of the rollouts that are imported, by round.

        Raises:
            UserError: they are not complete, or the recipe has changed since.
        """
        found = {}
        for name in self.recipe.rollout_rounds:
            one = self.earlier[name]
            made = one.finished(MAKING_MODELS[-1], wanted_by)
            one.made_before("eval")
            found[name] = str(made["outputs"][ROLLOUTS]["sha256"])
        return found

    def verify(self, stage: str, names: Sequence[str], wanted_by: str, way: str) -> None:
        """Check outputs of a finished stage against their checksums.

        Args:
            stage: the finished stage.
            names: of its outputs.
            wanted_by: the command that needs them.
            way: sentence for the error message: how to make them again.

        Raises:
            StoreError: an output is missing, truncated or changed.
        """
        folder = self.folder(stage)
        for name, what in damaged_outputs(
            folder.path, self.finished(stage, wanted_by)["outputs"], names, by_hash=True
        ).items():
            raise StoreError(f"{wanted_by}: {folder.path / name} is not what {stage} left there ({what}). {way}")

    @cached_property
    def problem_sets(self) -> ProblemSets:
        """Return the problems to train on and those to evaluate on.

        Raises:
            ProblemError: a source cannot be loaded, has unusable rows, or nothing is left to train on.
        """
        for one in self.earlier.values():  # rounds have the same problems held out, and mostly the same to train on
            if one.recipe.problems == self.recipe.problems:
                return one.problem_sets
        # What only looks at a run must not write into its folder.
        return load_problem_sets(self.recipe, self.run_dir / TESTS if self.needs_weights else None)

    @cached_property
    def asked(self) -> "Asked":
        """Return what is evaluated: the benchmarks, and their problems with the answers that a judge compares with.

        Raises:
            ProblemError: a source cannot be loaded.
            UserError: another wording for the judge cannot be read.
        """
        benchmarks = with_baselines(self.recipe, self.problem_sets.benchmarks)
        sets = measured_sets(self.recipe, benchmarks)
        return Asked(sets, {problem.id: problem for several in benchmarks.values() for problem in several})

    @cached_property
    def student(self) -> Student:
        """Return the student's row of the student table, or a new row for a model that is not in it.

        Raises:
            ModelError: the name is neither an alias nor a possible Hub id or folder.
        """
        return find_student(self.recipe.student)

    @cached_property
    def base_model(self) -> Model:
        """Return the local files and revision of the model that all training starts from, downloaded if needed.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
        """
        return resolve_model(self.student.hub_id, self.recipe.student_revision, self.needs_weights)

    @property
    def student_model(self) -> Model:
        """Return the model to train: the base, or what an earlier round made of it.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
            UserError: the earlier round has not made it yet, or its recipe has changed since.
        """
        name, first = self.recipe.student_round, next(s for s in MAKING_MODELS if s in self.recipe.stage_names)
        return self.base_model if name is None else self._made_by(name, first, self.student.hub_id)

    @property
    def reinforced_model(self) -> Model:
        """Return the model that `rl` trains: what `sft` made of the student here, or without it the student.

        Raises:
            ModelError: as `student_model`.
            UserError: it is not made yet, or the recipe has changed since.
        """
        first, stage = MAKING_MODELS
        if not self.recipe.trains:
            return self.student_model
        trained = self.made_before(stage)[first]
        path = (self.folder(first).path / STUDENT).resolve()
        return Model(self.student.hub_id, path, revision_made(first, trained))

    def made_by_stage(self, wanted_by: str) -> tuple[str, dict[str, Any]]:
        """Return the stage that makes the final model, and its manifest.

        Raises:
            UserError: it is not complete.
        """
        stage = self.recipe.making_stage or MAKING_MODELS[0]
        return stage, self.finished(stage, wanted_by)

    def _made_by(self, round_name: str, wanted_by: str, name: str) -> Model:
        """Return what an earlier round trained, called `name`; its revision tells the round and the weights."""
        one = self.earlier[round_name]
        _, made = one.made_by_stage(wanted_by)
        one.made_before("eval", same_split=True)
        sha256 = made["outputs"][STUDENT]["sha256"]
        return Model(name, one.files.student.resolve(), f"{ROUND}{round_name}@{sha256}")

    @property
    def row_sources(self) -> "dict[str | None, RunContext]":
        """Return the rounds whose kept rows are trained on, by name; `None` stands for a recipe without rounds."""
        own = self.recipe.round_name
        return {name: self if name in (None, own) else self.earlier[str(name)] for name in self.recipe.row_rounds}

    @property
    def measured_fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the evaluation's questions, which imported traces must not answer."""
        if self.recipe.eval is None:
            return ""
        return fingerprint({"questions": sorted(self.problem_sets.measured_questions)})

    @property
    def generate(self) -> GenerateConfig:
        """Return the recipe's `generate:`.

        Raises:
            UserError: the recipe imports its traces instead.
        """
        if self.recipe.generate is None:
            raise UserError(
                "generate: the recipe has no generate: section; its traces are made elsewhere "
                "(traces:). Import them with `distill import`."
            )
        return self.recipe.generate

    @cached_property
    def evaluation_packs(self) -> list[Pack]:
        """Return the evaluation sets whose problems are dropped (`filter.decontaminate`).

        Raises:
            ProblemError: a name is unknown, or a set cannot be loaded whole.
        """
        return load_packs(self.recipe.filter.decontaminate)

    @property
    def teacher_is_served(self) -> bool:
        """Return whether a server holds the teacher, so that no files of it are needed here."""
        return bool(self.generate.compute.base_urls)

    @property
    def teacher_model(self) -> Model:
        """Return the teacher's local files and revision; for a served teacher only its name, and `SERVED`.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
            UserError: the recipe imports its traces instead.
        """
        made_by = self.recipe.teacher_round
        if made_by is not None:
            return self._made_by(made_by, "generate", f"{ROUND}{made_by}")
        return self.teacher_base

    @cached_property
    def teacher_base(self) -> Model:
        """Return the teacher, or the model that it descends from if an earlier round makes it.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
            UserError: the recipe imports its traces instead.
        """
        made_by, name = self.recipe.teacher_round, self.generate.teacher
        if made_by is not None:
            return self.earlier[made_by].base_model
        if self.teacher_is_served:
            return Model(name, Path(), self.generate.revision or SERVED)
        return resolve_model(hub_id_of(name), self.generate.revision)


def contexts_of(recipe: Recipe, run_dir: Path, **settings: Any) -> list[RunContext]:
    """Return the context of each round, in order; one context for a recipe without rounds.

    Args:
        recipe: the whole recipe.
        run_dir: `runs/<name>/`.
        settings: further fields of every `RunContext`.
    """
    found: dict[str, RunContext] = {}
    for part in recipe.parts:
        name = part.round_name
        if name is None:
            return [RunContext(part, run_dir, **settings)]
        found[name] = RunContext(part, run_dir / name, earlier=dict(found), **settings)
    return list(found.values())


def keeps_nothing(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return `False`; a `keeps_results` for stages that are redone in full after any change."""
    return False


def nothing_to_check(run: RunContext) -> list[str]:
    """Return no findings; a `check` for stages that rely on the runner's check of file sizes."""
    return []


def no_inputs(run: RunContext) -> None:
    """Do nothing; a `verify_inputs` for stages that read nothing of earlier ones."""


def always_useful(run: RunContext) -> None:
    """Do nothing; a `finish` for stages after which the next one can always go on."""


def reopen_if_damaged(stage: str) -> Callable[[RunContext, bool], str | None]:
    """Return a `reopen_if_lost` for a stage whose results are simply made again."""

    def reopen(run: RunContext, force: bool) -> str | None:
        folder = run.folder(stage)
        lost = lost_outputs(folder)
        if lost is not None:
            folder.reopen()
        return None if lost is None else f"{lost}; made again"

    return reopen


def reopen_to_train(stage: str) -> Callable[[RunContext, bool], str | None]:
    """Return a `reopen_if_lost` for a stage that trains, which is too expensive to repeat unasked."""

    def reopen(run: RunContext, force: bool) -> str | None:
        """Return what of the model is missing or damaged, moved aside to train again; `None` if nothing is.

        Raises:
            StoreError: the model is damaged and `force` is not set.
        """
        folder = run.folder(stage)
        outputs = (folder.manifest or {}).get("outputs", {})
        lost = lost_outputs(folder, [one for one in outputs if one in (STUDENT, ADAPTER)], by_hash=force)
        if lost is None:
            return None
        if not force:
            raise StoreError(
                f"{stage}: {lost}, though the training is complete. `{command_of(run.recipe, stage)} --force` trains "
                "again (what is there is moved aside)."
            )
        return f"{lost}; trained again, and what was there is in {folder.set_aside()}"

    return reopen


def reopen_to_retry(stage: str) -> Callable[[RunContext], list[str]]:
    """Return a `check` for a stage that evaluates: if asked to, what failed in a finished one is done again."""

    def check(run: RunContext) -> list[str]:
        folder = run.folder(stage)
        if not (run.retry_errors and folder.is_complete):
            return []
        found = []
        if num := num_failed(folder.path):
            found.append(f"asking again for {num:,} samples and verdicts that failed")
        if (num := num_not_run(folder.path)) and sandbox_fails(backend_of(run.recipe.sandbox)) is None:
            found.append(f"{counted(num, 'program')} that no sandbox could run: graded again")
        if found:
            folder.reopen()
        return found

    return check


def lost_outputs(folder: StageFolder, names: Sequence[str] | None = None, by_hash: bool = False) -> str | None:
    """Return which outputs of a finished stage are missing or damaged, in words; `None` if all are as they were."""
    lost = damaged_outputs(folder.path, (folder.manifest or {}).get("outputs", {}), names, by_hash=by_hash)
    return "; ".join(f"{folder.path / output}: {what}" for output, what in lost.items()) or None


def need_tests(run: RunContext, stage: str, problems: Iterable[Problem]) -> None:
    """Refuse to sample answers to problems whose tests cannot be run, unless the stage is done.

    Raises:
        StageError: that is so.
    """
    if not run.folder(stage).is_complete:
        check_tests(backend_of(run.recipe.sandbox), problems, stage)


def chat_format_of(model_name: str) -> str | None:
    """Return the chat format for a model of the student table that has no template of its own."""
    student = known_student(model_name)
    return None if student is None else student.chat_format
