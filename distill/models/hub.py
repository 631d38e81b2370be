"""What comes from the Hugging Face Hub: models to a local folder, datasets to rows, with errors that help offline.

Enters: a Hub id or a local folder. Leaves: a folder that every library can load without asking the network again.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError, ModelError, ProblemError
from distill.models.hub_names import dataset_fault, names_folder
from distill.storage.files import read_json

WEIGHTS = "*.safetensors"
MODEL_FILES = (WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt")
"""Weights as safetensors only: a pickle may run code."""

CONFIG = "config.json"
SAMPLE_BYTES = 1 << 20
READ_WHOLE_BYTES = 64 << 20
DatasetKey = tuple[str, str | None, str, str | None]
_loaded_commits: dict[DatasetKey, str] = {}
HUB_DATASETS = "hf://datasets/"
COMMIT = re.compile(r"[0-9a-f]{40}")
_COMMIT_FOLDER = re.compile(rf"[/\\]({COMMIT.pattern})[/\\]")


@dataclass(frozen=True, slots=True)
class Model:
    """A model on this machine."""

    name: str
    """As the recipe gives it: a Hub id, or a folder."""
    path: Path
    revision: str
    """The Hub's commit, or for a local folder a hash of its config and of samples of its weights."""

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        config: dict[str, Any] = read_json(self.path / CONFIG) or {}
        return config


def resolve_model(name: str | Path, revision: str | None = None, weights: bool = True) -> Model:
    """Find a model here or fetch it; no weights are loaded.

    Args:
        name: a Hub id or a folder, told apart by their spelling (`distill.models.hub_names`); a `Path` is a folder.
        revision: on the Hub; left out: its main branch.
        weights: whether they must be here; without them, config and tokenizer are fetched alone.

    Raises:
        ModelError: no such model, no access to it, no network and no copy here, or not a causal language model.
    """
    is_folder = isinstance(name, Path) or names_folder(name)
    model = _in_folder(str(name)) if is_folder else _fetch(str(name), revision, weights)
    _check(model, weights)
    return model


def _in_folder(name: str) -> Model:
    try:
        folder = Path(name).expanduser()
        is_there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name too long, no such home, a NUL
        is_there = False
    if not is_there:
        raise ModelError(f"{name}: no such folder here. Give the folder of a model, a Hub id (org/model) or an alias.")
    return Model(name, folder.resolve(), _folder_revision(folder))


def _fetch(name: str, revision: str | None, weights: bool) -> Model:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from distill.models.hub_errors import download_refusal

    try:
        patterns = [pattern for pattern in MODEL_FILES if weights or pattern != WEIGHTS]
        path = _snapshot(name, revision, patterns)
    except GatedRepoError:
        raise ModelError(
            f"{name}: this model is gated. Ask for access on https://huggingface.co/{name}, then `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"{name}: the Hub has no revision {revision!r} of it. Give a branch, a tag or a commit that it has."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"{name}: no such model on the Hub. Check the spelling; for a private model, `hf auth login`."
            f"{_folder_hint(name)}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if refusal := download_refusal(error):
            raise ModelError(f"{name}: not in the local cache, and {refusal}") from None
        raise ModelError(
            f"{name}: not in the local cache, and the Hub cannot be reached ({type(error).__name__}). "
            f"Connect to the network, fetch it once with `hf download {name}`, or give the path of a local copy "
            f"instead of the id.{_folder_hint(name)}"
        ) from None
    return Model(name, path, path.name)


def _folder_hint(name: str) -> str:
    """What to write where a folder of this machine was meant."""
    return f" For the folder of that name here, write ./{name}." if Path(name).is_dir() else ""


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The folder of a model's files, fetched where they are not here."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (httpx.TransportError, OfflineModeIsEnabled):
        # Given a commit, unlike a branch, the client asks for the list of files before it looks at what is here.
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))


def _folder_revision(folder: Path) -> str:
    """40 hex digits that change with the weights and stay when the folder is copied.

    Read are files up to 64 MiB whole, and of a larger one its size, beginning, middle and end: training moves every
    weight, and reading hundreds of gigabytes to see that would cost minutes.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if any(p.match(pattern) for pattern in MODEL_FILES)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= READ_WHOLE_BYTES:
                digest.update(stream.read())
                continue
            for start in (0, size // 2, size - SAMPLE_BYTES):
                stream.seek(start)
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:40]


def _check(model: Model, weights: bool) -> None:
    config = model.config
    if not config:
        raise ModelError(
            f"{model.name}: {model.path} has no config.json, so it is not a model. "
            "Give a folder with config.json and *.safetensors, a Hub id or an alias."
        )
    kinds = config.get("architectures") or []
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for kind in kinds):
        raise ModelError(
            f"{model.name}: {', '.join(kinds)} is not a causal language model, which distill needs. Take another model."
        )
    if weights and not any(model.path.glob(WEIGHTS)):
        raise ModelError(f"{model.name}: {model.path} has no *.safetensors weights. Convert the model to safetensors.")


def load_hub_dataset(name: str, config: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    """Load a split of a data set of the Hub, never a folder of this machine.

    Args:
        name: `name` or `org/name`.
        config: configuration (subset).
        split: as `datasets` takes it.
        revision: branch, tag or commit; left out: the main branch.

    Raises:
        ProblemError: no such dataset, configuration or split; no access; no network and no copy here; or the data set
            names files that are not its own.
    """
    with _dataset_errors(name):
        builder = _hub_builder(name, config, revision)
        builder.download_and_prepare()
        rows: Iterable[Mapping[str, Any]] = builder.as_dataset(split=split)
    _loaded_commits[name, config, split, revision] = builder.hash
    return rows


def _hub_builder(name: str, config: str | None, revision: str | None) -> Any:
    """What `datasets` would read for a name, checked before anything of it is read.

    `hf://datasets/` keeps `datasets` 5 from preferring a folder, and `datasets` itself refuses a card whose
    `data_files` are not of its own repository. One way to local files remains: without a network the cache is searched
    by name, where a folder that was loaded before lies under its own.
    """
    import datasets

    if fault := dataset_fault(name):
        raise ProblemError(fault)
    datasets.disable_progress_bars()
    builder = datasets.load_dataset_builder(f"{HUB_DATASETS}{name}", config, revision=revision)
    if not COMMIT.fullmatch(str(builder.hash)):
        raise ProblemError(
            f"hf:{name}: the copy in the cache was not loaded from the Hub. Load it with a network once."
        )
    if revision and COMMIT.fullmatch(revision) and builder.hash != revision:
        raise ProblemError(
            f"hf:{name}: the copy in the cache is of commit {builder.hash[:12]}, and {revision[:12]} is asked for. "
            "Load it with a network once."
        )
    return builder


def loaded_commit(key: DatasetKey) -> str | None:
    """The commit from which this process has loaded (name, config, split, revision); `None` where it has not."""
    return _loaded_commits.get(key)


@contextmanager
def _dataset_errors(name: str) -> Iterator[None]:
    """What `datasets` raises, as a ProblemError that tells what to do."""
    import datasets
    from huggingface_hub import constants

    from distill.models.hub_errors import download_refusal, is_gated, status_of

    try:
        yield
    except ValueError as error:  # unknown configuration or split; the message lists what there is
        raise ProblemError(f"hf:{name}: {_first_line(error)}") from None
    except (OSError, datasets.exceptions.DatasetsError) as error:
        if is_gated(error):
            page = f"https://huggingface.co/datasets/{name}"
            raise ProblemError(f"hf:{name}: gated. Ask for access on {page}, then `hf auth login`.") from None
        if status_of(error) not in (None, 401, 404):
            raise ProblemError(f"hf:{name}: {download_refusal(error)}") from None
        offline = " (HF_HUB_OFFLINE is set)" if constants.is_offline_mode() else ""
        raise ProblemError(
            f"hf:{name}: cannot be loaded{offline}: {_first_line(error)}. Check the id and the network; "
            "without a network, save the dataset as JSONL or Parquet and use file:path/to/it instead."
        ) from None
    except DistillError:
        raise
    except Exception as error:  # the repository's card and files decide what is raised
        raise ProblemError(
            f"hf:{name}: `datasets` cannot read it ({type(error).__name__}: {_first_line(error)}). "
            "Save it as JSONL or Parquet and use file:path/to/it instead."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200].rstrip(".")


def dataset_splits(name: str, config: str | None) -> list[str]:
    """The names of a Hub dataset's splits.

    Raises:
        ProblemError: no such dataset or configuration; no access; no network and no copy here.
    """
    import datasets

    with _dataset_errors(name):
        builder = _hub_builder(name, config, None)
        found = builder.info.splits or datasets.get_dataset_split_names(f"{HUB_DATASETS}{name}", config)
        return [str(split) for split in found]


def dataset_revision(rows: Iterable[Mapping[str, Any]]) -> str:
    """The commit that loaded rows come from, as `datasets` names its cache folder; empty where it cannot be told."""
    files = getattr(rows, "cache_files", [])
    found = (_COMMIT_FOLDER.search(file["filename"]) for file in files)
    return next((match[1] for match in found if match), "")
