"""Distinguish names on the Hugging Face Hub from local paths, by their spelling.

`org/name` is a name on the Hub, even if a local folder has that name.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[.-](?![.-]))*(?<![.-])"
"""The name of an owner or repository. The Hub does not allow `..`, `--`, or a dot or hyphen at either end."""
DATASET = re.compile(rf"(?:{PART}/)?{PART}")
MAX_NAME_CHARS = 96
MAX_FILE_NAME = 256
LOADERS = frozenset(
    {
        "arrow", "audiofolder", "conll", "csv", "eval", "fasta", "fastq", "genbank", "harbor", "hdf5", "iceberg",
        "imagefolder", "json", "lance", "meshfolder", "mmcif", "niftifolder", "pandas", "parquet", "pdb", "pdffolder",
        "text", "tsfile", "videofolder", "vortex", "webdataset", "xml",
    }
)  # fmt: skip
"""Names that `datasets` 5 takes for loaders of files in the working folder (`datasets.packaged_modules`)."""


def dataset_fault(name: str) -> str | None:
    """Return why a text cannot be the name of a dataset on the Hub; `None` if it can.

    The rules are those of `huggingface_hub.utils.validate_repo_id`, for ASCII.
    """
    expected = "expected hf:org/name, as on the Hub"
    if name.startswith(("/", ".", "~")) or "\\" in name or ".." in name.split("/"):
        return f"hf:{name} is a path; {expected}. A file of this machine is file:path"
    if "://" in name or name.startswith(("hf:", "file:")):
        return f"hf:{name} is an address; {expected}"
    if len(name) > MAX_NAME_CHARS or name.endswith(".git") or not DATASET.fullmatch(name):
        return f"hf:{name} is not a valid name on the Hub; {expected}, of letters, digits, '-', '_' and '.'"
    if name in LOADERS:
        return f"hf:{name} is a reader of local files, not a data set; {expected}"
    return None


def names_folder(model: str) -> bool:
    """Return whether a model's name stands for a local folder.

    It does if it starts with `/`, `.` or `~`, or has more than one slash. A name without a slash does if there is such
    a folder. `org/name` never does.
    """
    if "/" not in model and "\\" not in model:
        return 0 < len(model) < MAX_FILE_NAME and Path(model).is_dir()
    return model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1


def split_evaluation_set(entry: str) -> tuple[str, str | None]:
    """Split `hf:org/name[/config]`, an entry of `filter.decontaminate`, into the dataset and its configuration.

    Raises:
        ValueError: the entry has another form.
    """
    owner, slash, rest = entry.removeprefix("hf:").partition("/")
    name, has_config, config = rest.partition("/")
    fault = dataset_fault(f"{owner}{slash}{name}")
    if not name or fault or (has_config and not re.fullmatch(CONFIG, config)):
        why = f" ({fault})" if fault else ""
        raise ValueError(f"{entry!r} is not a dataset; expected hf:org/dataset[/config]{why}")
    return f"{owner}/{name}", config or None


def _checked_source(source: str) -> str:
    """Return the source, or raise if an `hf:` source could be anything but a dataset on the Hub."""
    if source.startswith("hf:") and (fault := dataset_fault(source.removeprefix("hf:"))):
        raise ValueError(fault)
    return source


def _checked_set(entry: str) -> str:
    """Return the entry of `filter.decontaminate`, or raise if an `hf:` entry is not a dataset on the Hub."""
    if entry.startswith("hf:"):
        split_evaluation_set(entry)
    return entry


CONFIG = r"^[^.<>:/\\|?*\x00-\x1f][^<>:/\\|?*\x00-\x1f]*$"
"""Characters that `datasets` allows in a configuration's name, which becomes a folder of its cache."""
Config = Annotated[str, Field(pattern=CONFIG)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$")]
"""A branch, tag or commit. No part of it can lead out of the cache's folder of revisions."""
RepoFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]
"""The path of a file in a repository. No part of it can lead out of the repository."""
Source = Annotated[str, Field(pattern=r"^(hf|file|gym):.+"), AfterValidator(_checked_source)]
TableSource = Annotated[str, Field(pattern=r"^(hf|file):.+"), AfterValidator(_checked_source)]
TraceOrigin = Annotated[str, Field(pattern=r"^(hf|file|round):.+"), AfterValidator(_checked_source)]
EvaluationSet = Annotated[str, AfterValidator(_checked_set)]
