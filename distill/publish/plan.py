"""Plans a push without network access: each repository with its exact files, and the licence problems.

`distill push --dry-run` shows the `Plan`, `distill.publish.upload` carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.core.redaction import local_name, secrets
from distill.core.secrets import SecretFinder
from distill.errors import UserError
from distill.publish.dataset_card import dataset_card
from distill.publish.eval_results import eval_result_files
from distill.publish.facts import RunFacts
from distill.publish.files import (
    CARD,
    PublishedFile,
    checked_hashes,
    checkpoint_files,
    file_list,
    model_files,
    stored_file,
    text_file,
)
from distill.publish.licences import (
    AskHub,
    Licence,
    ask_nobody,
    card_metadata,
    flags,
    licence_of,
    stated_licence,
    student_licence,
)
from distill.publish.markdown import front_matter
from distill.publish.model_card import MARKER, licence_metadata, model_card
from distill.publish.reproduce import reproduction_files
from distill.publish.secret_rows import refuse_secrets
from distill.recipe.push import PushConfig
from distill.recipe.steps import MAKING_ROWS, PUBLISHING
from distill.results.kinds import KINDS
from distill.results.push import Flag
from distill.storage.layout import SEAL

Kind = Literal["model", "dataset"]
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")


@dataclass(frozen=True)
class Publication:
    """The planned content of one branch of one repository."""

    kind: Kind
    repo: str
    private: bool
    files: tuple[PublishedFile, ...]
    branch: str = "main"

    @property
    def num_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def card(self) -> str:
        """Return the content of README.md."""
        source = next(file.source for file in self.files if file.path == CARD)
        assert isinstance(source, bytes)
        return source.decode()


@dataclass(frozen=True)
class Plan:
    """Everything that a push would publish, in order."""

    publications: tuple[Publication, ...]
    flags: tuple[Flag, ...]
    left_out: tuple[str, ...]
    """What was requested but is not published, and why."""


@dataclass(frozen=True)
class AskHubs:
    """Lookups for licences that are not known locally."""

    model: AskHub = ask_nobody
    dataset: AskHub = ask_nobody


def make_plan(facts: RunFacts, config: PushConfig, scratch: Path, ask: AskHubs = AskHubs()) -> Plan:
    """Return the plan of a push.

    Args:
        facts: of the run.
        config: the recipe's `push:`.
        scratch: folder for tables that must be rewritten.
        ask: licence lookups on the Hub; by default none.

    Raises:
        StoreError: something that would be published is damaged or must not be published.
        UserError: the requested checkpoints do not exist, or rows hold secrets.
    """
    refuse_secrets(
        [
            folder
            for one in facts.row_runs
            for folder in ((one.files.kept, one.files.dropped) if config.dropped else (one.files.kept,))
        ],
        SecretFinder(secrets()),
    )
    teachers = [(name, licence_of(name, _folder(name), ask.model)) for name, _ in facts.source_teachers]
    base_licence = licence_of(facts.base_name, _folder(facts.base_name), ask.model)
    licence = student_licence(config.license, base_licence, [one for _, one in teachers])
    named_teachers = [(local_name(name), one) for name, one in teachers]
    found = flags(config.repo, licence, (facts.base, base_licence), named_teachers)
    warnings = [flag.text for flag in found]
    checkpoints = _checkpoints(facts) if config.checkpoints else []
    has_adapter = config.adapter and facts.made.method != "full"
    branches = [_branch(path) for path, files in checkpoints if files]
    card = model_card(
        facts,
        config.repo,
        config.dataset,
        licence,
        base_licence,
        teachers,
        warnings,
        {"adapter": has_adapter, "branches": branches},
    )
    publications = []
    left_out = [f"{path.name}: has no safetensors" for path, files in checkpoints if not files]
    if config.dataset is not None:
        dataset, notes = _dataset(facts, config, config.dataset, teachers, warnings, scratch, ask)
        publications.append(dataset)
        left_out += notes
    publications.append(_model(facts, config, card, base_licence, teachers, has_adapter))
    publications += [_checkpoint(facts, config, path, files, licence) for path, files in checkpoints if files]
    return Plan(tuple(publications), tuple(found), tuple(left_out))


def _model(
    facts: RunFacts,
    config: PushConfig,
    card: str,
    base_licence: Licence,
    teachers: Sequence[tuple[str, Licence]],
    has_adapter: bool,
) -> Publication:
    files = [text_file(CARD, card)]
    for folder, inside in ((facts.files.student, ""), *([(facts.files.adapter, "adapter/")] if has_adapter else [])):
        remake = f"Train again with `{facts.command_for(folder)} --force` (what is there is moved aside)."
        hashes = checked_hashes(folder, facts.hash_of(folder), remake)
        files += model_files(folder, hashes, facts.base, inside)
    files += _licence_files(facts, (base_licence, *(one for _, one in teachers)))
    files += eval_result_files(facts, config.repo)
    files += reproduction_files(facts, [name for name in KINDS if name != PUBLISHING])
    return Publication("model", config.repo, config.private, _sorted([*files, file_list(files)]))


def _dataset(
    facts: RunFacts,
    config: PushConfig,
    repo: str,
    teachers: Sequence[tuple[str, Licence]],
    warnings: Sequence[str],
    scratch: Path,
    ask: AskHubs,
) -> tuple[Publication, list[str]]:
    if not facts.row_runs:
        raise UserError(f"push.dataset ({repo}): no rows were trained on, so there are none to publish. Remove it.")
    left_out = []
    tables = _tables([(one, one.files.kept) for one in facts.row_runs], scratch)
    num_dropped = None
    if config.dropped:
        num_dropped = facts.filtered.num_traces - facts.filtered.num_kept
    if num_dropped == 0:
        num_dropped = None
        left_out.append("dropped: no trace was dropped, and `datasets` cannot load a table without rows")
    if num_dropped is not None:
        tables += _tables([(one, one.files.dropped) for one in facts.row_runs], scratch)
    source_licences = [
        (name, stated_licence(_dataset_metadata(name) or ask.dataset(name))) for name in facts.hub_datasets
    ]
    text = dataset_card(facts, repo, config.repo, teachers, source_licences, warnings, num_dropped)
    files = [text_file(CARD, text), *tables, *reproduction_files(facts, MAKING_ROWS)]
    return Publication("dataset", repo, config.private, _sorted([*files, file_list(files)])), left_out


def _tables(folders: Sequence[tuple[RunFacts, Path]], scratch: Path) -> list[PublishedFile]:
    """Return the files of a table; those of several rounds begin with the round's name."""
    found = []
    for one, folder in folders:
        remake = f"Run `{one.command_for(folder)}`, which makes it again."
        prefix = f"{one.recipe.round_name}-" if len(folders) > 1 else ""
        for file, sha256 in checked_hashes(folder, one.hash_of(folder), remake).items():
            found.append(_table(folder / file, f"{folder.name}/{prefix}{file}", sha256, scratch))
    return found


def _table(path: Path, name: str, sha256: str, scratch: Path) -> PublishedFile:
    """Return a Parquet file, rewritten only if its teachers are named by local folders."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if "teacher" not in pq.read_schema(path).names:
        return stored_file(name, path, sha256)
    teachers = pc.unique(pq.read_table(path, columns=["teacher"])["teacher"]).to_pylist()
    names = {teacher: local_name(teacher) for teacher in teachers if teacher is not None}
    if all(old == new for old, new in names.items()):
        return stored_file(name, path, sha256)
    target = scratch / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetFile(path) as table, pq.ParquetWriter(target, table.schema_arrow) as writer:
        place = table.schema_arrow.get_field_index("teacher")
        for batch in table.iter_batches():
            renamed = pa.array([names.get(teacher) for teacher in batch.column(place).to_pylist()], pa.string())
            writer.write_batch(batch.set_column(place, "teacher", renamed))
    return stored_file(name, target)


def _checkpoints(facts: RunFacts) -> list[tuple[Path, list[PublishedFile]]]:
    """Return each complete checkpoint with its files to publish, in the order of steps.

    Raises:
        UserError: training kept none.
    """
    folder = facts.files.checkpoints
    whole = sorted(
        (marker.parent for marker in folder.glob(f"checkpoint-*/{SEAL}")),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    if not whole:
        raise UserError(
            f"push.checkpoints is true, but training has kept no checkpoint in {folder}: they are kept only where the "
            f"key was set before training. Set push.checkpoints: false, or move {folder.parent} aside and train again "
            f"with `{facts.command_for(folder)}`."
        )
    return [(path, checkpoint_files(path, facts.base)) for path in whole]


def _branch(checkpoint: Path) -> str:
    return f"step-{checkpoint.name.rpartition('-')[2]}"


def _checkpoint(
    facts: RunFacts, config: PushConfig, path: Path, files: Sequence[PublishedFile], licence: Licence
) -> Publication:
    step, num_steps = path.name.rpartition("-")[2], facts.made.num_steps
    is_adapter = all("adapter" in file.path for file in files if file.path.endswith(".safetensors"))
    metadata = {
        **licence_metadata(licence),
        "library_name": "peft" if is_adapter else "transformers",
        "base_model": facts.base if facts.base_is_on_hub else None,
        "base_model_relation": ("adapter" if is_adapter else "finetune") if facts.base_is_on_hub else None,
    }
    text = (
        f"{front_matter(metadata)}\n{MARKER}\n\n# Step {step} of {num_steps}\n\n"
        f"A checkpoint of the training of [{config.repo}](https://huggingface.co/{config.repo})"
        f"{', its LoRA adapter alone' if is_adapter else ''}; see the card of the branch `main`.\n"
    )
    whole = [text_file(CARD, text), *files]
    return Publication("model", config.repo, config.private, _sorted([*whole, file_list(whole)]), _branch(path))


def _licence_files(facts: RunFacts, licences: Sequence[Licence]) -> list[PublishedFile]:
    """Return the base's licence files, if they are on this machine, and the notices that licences require."""
    files = []
    folder = _folder(facts.base_name) or _cached_folder(facts)
    for name in LICENCE_FILES:
        if folder is not None and (path := folder / name).is_file() and path.stat().st_size < 1 << 20:
            text = path.read_text(encoding="utf-8", errors="replace")
            files.append(text_file(name, text))
    notices = "".join(dict.fromkeys(licence.notice for licence in licences))
    if notices and not any(file.path.startswith("NOTICE") for file in files):
        files.append(text_file("NOTICE", notices))
    return files


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def _cached_folder(facts: RunFacts) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if not facts.base_is_on_hub:
        return None
    config = try_to_load_from_cache(facts.base_name, "config.json", revision=facts.base_revision or None)
    return Path(config).parent if isinstance(config, str) else None


def _dataset_metadata(name: str) -> dict[str, object]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        card = try_to_load_from_cache(name, "README.md", repo_type="dataset")
    except HFValidationError:
        return {}
    return card_metadata(Path(card)) if isinstance(card, str) else {}


def _sorted(files: Sequence[PublishedFile]) -> tuple[PublishedFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def names_are_valid(config: PushConfig) -> None:
    """Refuse repository names that the Hub does not accept.

    Raises:
        UserError: a name is invalid; the message gives its key and the reason.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    for key, name in (("push.repo", config.repo), ("push.dataset", config.dataset)):
        try:
            if name is not None:
                validate_repo_id(name)
        except HFValidationError as error:
            raise UserError(f"{key}: {name!r} is not a valid repository name. {str(error).splitlines()[0]}") from None
