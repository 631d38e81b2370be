"""Short names of models, for folders and tables: telling, the same on every call, and in whatever order models stand.

Qwen/Qwen2.5-Math-1.5B            ->  Qwen-Qwen2.5-Math-1.5B
~/models/mine                     ->  mine
runs/a/sft/student                ->  a-student
runs/b/cold-start/sft/student     ->  b-cold-start-student
runs/a/rl/student                 ->  a-rl-student
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from distill.models.hub_names import names_folder
from distill.storage.layout import STUDENT
from distill.storage.run_files import REINFORCED, TRAINED
from distill.storage.run_folder import is_run

MAX_CHARS = 80
NUM_HASH_DIGITS = 8


def roles_of(models: Iterable[str]) -> dict[str, str]:
    """Return models by the name of their folder; those with one short name get a hash of their full names."""
    shorts = {name: short_name(name) for name in models}
    num_with = Counter(shorts.values())
    return {short if num_with[short] == 1 else with_hash(short, name): name for name, short in shorts.items()}


def short_name(model: str) -> str:
    """Return `org-name` of a name on the Hub, and the telling parts of a folder's path."""
    told = "-".join(_telling_parts(Path(model).expanduser().resolve())) if names_folder(model) else model
    return re.sub(r"[^A-Za-z0-9._-]+", "-", told)[-MAX_CHARS:].strip("-.") or "model"


def with_hash(short: str, full: str) -> str:
    """Return a short name with the first digits of the SHA-256 of what it stands for."""
    return f"{short}-{hashlib.sha256(full.encode()).hexdigest()[:NUM_HASH_DIGITS]}"


def _telling_parts(path: Path) -> list[str]:
    maker = path.parent.name
    if path.name != STUDENT or maker not in (TRAINED, REINFORCED):
        return [path.name]
    folder = path.parent.parent
    of_round = [folder.parent.name] if is_run(folder.parent) else []
    return [*of_round, folder.name, *([] if maker == TRAINED else [maker]), STUDENT]
