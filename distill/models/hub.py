"""Fetch models and datasets from the Hugging Face Hub, with errors that help offline.

A model becomes a local folder that every library can load without network access.
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
"""Weights only as safetensors, because a pickle may run code."""

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
    """A Hub id or a folder, as in the recipe."""
    path: Path
    revision: str
    """The Hub's commit, or for a local folder a hash of its config and of samples of its weights."""

    @property
    def config(self) -> dict[str, Any]:
        """Return its config.json."""
        config: dict[str, Any] = read_json(self.path / CONFIG) or {}
        return config


def resolve_model(name: str | Path, revision: str | None = None, weights: bool = True) -> Model:
    """Find a model locally or download it. Weights are not loaded.

    Args:
        name: a Hub id or a folder, distinguished by their spelling (`distill.models.hub_names`); a `Path` is a folder.
        revision: on the Hub. Default: its main branch.
        weights: whether they are needed. Otherwise only config and tokenizer are downloaded.

    Raises:
        ModelError: no such model, no access to it, neither a network nor a local copy, or not a causal language model.
    """
    is_folder = isinstance(name, Path) or names_folder(name)
    model = _in_folder(str(name)) if is_folder else _fetch(str(name), revision, weights)
    _check(model, weights)
    return model


def _in_folder(name: str) -> Model:
    try:
        folder = Path(name).expanduser()
        is_there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, an unknown home or a NUL byte
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
    """Return a hint for a name that may have meant a local folder."""
    return f" For the folder of that name here, write ./{name}." if Path(name).is_dir() else ""


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Return the folder of a model's files, downloading those that are missing."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (httpx.TransportError, OfflineModeIsEnabled):
        # For a commit, unlike a branch, the client requests the list of files before it looks into the cache.
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))


def _folder_revision(folder: Path) -> str:
    """Return 40 hex digits that change with the weights and stay the same when the folder is copied."""
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if any(p.match(pattern) for pattern in MODEL_FILES)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= READ_WHOLE_BYTES:
                digest.update(stream.read())
                continue
            # Training changes every weight, so samples suffice; reading hundreds of gigabytes would take minutes.
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
            f"{model.name}: {', '.join(kinds)} is not a causal language model, which distill needs. Use another model."
        )
    if weights and not any(model.path.glob(WEIGHTS)):
        raise ModelError(f"{model.name}: {model.path} has no *.safetensors weights. Convert the model to safetensors.")


def load_hub_dataset(name: str, config: str | None, split: str, revision: str | None) -> Iterable[Mapping[str, Any]]:
    """Load a split of a dataset from the Hub, never from a local folder.

    Args:
        name: `name` or `org/name`.
        config: configuration (subset).
        split: in the syntax of `datasets`.
        revision: branch, tag or commit. Default: the main branch.

    Raises:
        ProblemError: no such dataset, configuration or split; no access; neither a network nor a local copy; or the
            dataset names files outside its repository.
    """
    with _dataset_errors(name):
        builder = _hub_builder(name, config, revision)
        builder.download_and_prepare()
        rows: Iterable[Mapping[str, Any]] = builder.as_dataset(split=split)
    _loaded_commits[name, config, split, revision] = builder.hash
    return rows


def hub_dataset_file(name: str, file: str, key: DatasetKey) -> Path:
    """Return one file of a dataset's repository on the Hub, downloaded if needed.

    Args:
        name: `name` or `org/name`.
        file: its path in the repository.
        key: by which `loaded_commit` will know its commit; its last part is the revision to fetch.

    Raises:
        ProblemError: no such dataset or file; no access; neither a network nor a local copy.
    """
    from huggingface_hub import hf_hub_download

    if fault := dataset_fault(name):
        raise ProblemError(fault)
    with _dataset_errors(name):
        path = Path(hf_hub_download(name, file, repo_type="dataset", revision=key[-1]))
    commit = next((part for part in path.parts if COMMIT.fullmatch(part)), None)
    if commit is not None:
        _loaded_commits[key] = commit
    return path


def _hub_builder(name: str, config: str | None, revision: str | None) -> Any:
    """Return the `datasets` builder for a name, checked before any data is read."""
    import datasets

    if fault := dataset_fault(name):
        raise ProblemError(fault)
    datasets.disable_progress_bars()
    # The prefix keeps `datasets` 5 from preferring a local folder. `datasets` itself refuses a card whose `data_files`
    # are outside its repository.
    builder = datasets.load_dataset_builder(f"{HUB_DATASETS}{name}", config, revision=revision)
    # Without a network, `datasets` searches its cache by name, and may find a local folder that was loaded before.
    if not COMMIT.fullmatch(str(builder.hash)):
        raise ProblemError(
            f"hf:{name}: the copy in the cache was not loaded from the Hub. Load it once with network access."
        )
    if revision and COMMIT.fullmatch(revision) and builder.hash != revision:
        raise ProblemError(
            f"hf:{name}: the copy in the cache is of commit {builder.hash[:12]}, not of {revision[:12]} as requested. "
            "Load it once with network access."
        )
    return builder


def loaded_commit(key: DatasetKey) -> str | None:
    """Return the commit from which this process has loaded (name, config, split, revision); `None` if it has not."""
    return _loaded_commits.get(key)


@contextmanager
def _dataset_errors(name: str) -> Iterator[None]:
    """Translate errors of `datasets` into a ProblemError that says what to do."""
    import datasets
    from huggingface_hub import constants

    from distill.models.hub_errors import download_refusal, is_gated, status_of

    try:
        yield
    except ValueError as error:  # unknown configuration or split; the message lists the known ones
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
    except Exception as error:  # a repository's card and files can cause any exception
        raise ProblemError(
            f"hf:{name}: `datasets` cannot read it ({type(error).__name__}: {_first_line(error)}). "
            "Save it as JSONL or Parquet and use file:path/to/it instead."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200].rstrip(".")


def dataset_splits(name: str, config: str | None) -> list[str]:
    """Return the names of a Hub dataset's splits.

    Raises:
        ProblemError: no such dataset or configuration; no access; neither a network nor a local copy.
    """
    import datasets

    with _dataset_errors(name):
        builder = _hub_builder(name, config, None)
        found = builder.info.splits or datasets.get_dataset_split_names(f"{HUB_DATASETS}{name}", config)
        return [str(split) for split in found]


def dataset_revision(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the commit that loaded rows come from, as named by their cache folder; empty if unknown."""
    files = getattr(rows, "cache_files", [])
    found = (_COMMIT_FOLDER.search(file["filename"]) for file in files)
    return next((match[1] for match in found if match), "")
