"""What a name may be on the Hugging Face Hub, and what is a path of this machine: told by the spelling.

Enters: a name as a recipe gives it. Leaves: what it stands for. `org/name` is the Hub's, also where a folder of that
name happens to lie here.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[.-](?![.-]))*(?<![.-])"
"""An owner's or a repository's name; the Hub allows no `..`, no `--`, and no dot or hyphen at either end."""
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
"""Names that `datasets` 5 takes for a reader of files in the working folder (`datasets.packaged_modules`)."""


def dataset_fault(name: str) -> str | None:
    """Explain why a text cannot be the name of a data set on the Hub; `None` where it can be one.

    The rules are those of `huggingface_hub.utils.validate_repo_id`, for ASCII.
    """
    expected = "expected hf:org/name, as on the Hub"
    if name.startswith(("/", ".", "~")) or "\\" in name or ".." in name.split("/"):
        return f"hf:{name} is a path; {expected}. A file of this machine is file:path"
    if "://" in name or name.startswith(("hf:", "file:")):
        return f"hf:{name} is an address; {expected}"
    if len(name) > MAX_NAME_CHARS or name.endswith(".git") or not DATASET.fullmatch(name):
        return f"hf:{name} is not a name of the Hub; {expected}, of letters, digits, '-', '_' and '.'"
    if name in LOADERS:
        return f"hf:{name} is a reader of local files, not a data set; {expected}"
    return None


def names_folder(model: str) -> bool:
    """Tell whether a model's name stands for a folder of this machine.

    `/…`, `./…`, `~/…` and what has more than one slash do, and a word without a slash where such a folder lies here.
    `org/name` never does, whatever lies here.
    """
    if "/" not in model and "\\" not in model:
        return 0 < len(model) < MAX_FILE_NAME and Path(model).is_dir()
    return model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1


def split_evaluation_set(entry: str) -> tuple[str, str | None]:
    """Split `hf:org/name[/config]`, an entry of `filter.decontaminate`, into the data set and its configuration.

    Raises:
        ValueError: it is of another form.
    """
    owner, slash, rest = entry.removeprefix("hf:").partition("/")
    name, has_config, config = rest.partition("/")
    fault = dataset_fault(f"{owner}{slash}{name}")
    if not name or fault or (has_config and not re.fullmatch(CONFIG, config)):
        why = f" ({fault})" if fault else ""
        raise ValueError(f"{entry!r} is no dataset; expected hf:org/dataset[/config]{why}")
    return f"{owner}/{name}", config or None


def _checked_source(source: str) -> str:
    """Refuse an `hf:` source that could be anything but a data set of the Hub."""
    if source.startswith("hf:") and (fault := dataset_fault(source.removeprefix("hf:"))):
        raise ValueError(fault)
    return source


def _checked_set(entry: str) -> str:
    """Refuse an `hf:` entry of `filter.decontaminate` that is not a data set of the Hub."""
    if entry.startswith("hf:"):
        split_evaluation_set(entry)
    return entry


CONFIG = r"^[^.<>:/\\|?*\x00-\x1f][^<>:/\\|?*\x00-\x1f]*$"
"""`datasets` allows no other characters in a configuration's name, which becomes a folder of its cache."""
Config = Annotated[str, Field(pattern=CONFIG)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$")]
"""A branch, a tag or a commit; no part of it can lead out of the cache's folder of revisions."""
Source = Annotated[str, Field(pattern=r"^(hf|file|gym):.+"), AfterValidator(_checked_source)]
TableSource = Annotated[str, Field(pattern=r"^(hf|file):.+"), AfterValidator(_checked_source)]
EvaluationSet = Annotated[str, AfterValidator(_checked_set)]
