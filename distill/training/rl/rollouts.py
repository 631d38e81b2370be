"""Answers with their rewards: the record, and the files that keep them.

A step's answers are in `rollouts/step-000012.parquet`, complete or not there. While it is sampled, each finished
answer is a line of `rollouts/step-000012.jsonl`. With several processes each has files of its own, such as
`step-000012.rank1-of-4.parquet`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from distill.core.records import FinishReason
from distill.errors import StoreError
from distill.storage.files import disk_errors
from distill.training.rl.job import ASIDE

GAMED = ("guess", "echo")
"""Faults of answers that a rule alone calls right: several results, or the question's own calculation, left undone."""


@dataclass(slots=True)
class Rollout:
    """One answer of the policy, and what it is worth."""

    step: int
    slot: int
    """Place of its group in the step."""
    round: int
    """How often the group of this place was replaced before."""
    draw: int
    """Number of its problem in the order of all passes (`order.Draw`)."""
    problem_id: str
    index: int
    """Number within its group."""
    seed: int
    policy: str
    """Hash of the weights that sampled it."""
    prompt_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    """Tokens of the answer, with the stop token."""
    logprobs: list[float] = field(default_factory=list)
    """Natural log of each token's probability when it was sampled, at the temperature of the rollouts."""
    teacher_logprobs: list[float] = field(default_factory=list)
    """Natural log of each token's probability to the teachers, on average; empty without teachers."""
    text: str = ""
    think_opened: bool = False
    """The prompt ends in `<think>`."""
    finish_reason: FinishReason = "stop"
    error: str = ""
    reward: float | None = None
    """`None`: it could not be graded."""
    parts: dict[str, float | None] = field(default_factory=dict)
    """Values of the reward's parts, unweighted."""
    correct: bool | None = None
    reason: str = ""
    """Why it could not be graded, or is wrong: a word of `distill.core.records.REASONS`."""
    fault: str = ""
    """What is wrong with its form (`distill.rewards.form.FAULTS`), or one of `GAMED`; empty if nothing is."""
    extracted_answer: str | None = None
    used: bool = True
    """Whether it was trained on; else its group was replaced."""

    @property
    def key(self) -> tuple[int, int]:
        """Return what tells it from all others: the number of its draw, and its number in the group."""
        return self.draw, self.index

    @property
    def is_sampled(self) -> bool:
        """Return whether the engine gave an answer."""
        return self.finish_reason != "error"


def rollout_seed(seed: int, step: int, problem_id: str, index: int) -> int:
    """Return the seed (31 bits) of an answer."""
    digest = hashlib.sha256(f"{seed}/{step}/{problem_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


class RolloutFiles:
    """The files of one process's answers.

    Args:
        folder: `rollouts/`; created.
        rank: number of this process.
        num_processes: all of them.
    """

    def __init__(self, folder: Path, rank: int = 0, num_processes: int = 1) -> None:
        self.folder = folder
        self._rank = rank
        self._suffixes = (
            [f".rank{one}-of-{num_processes}" for one in range(num_processes)] if num_processes > 1 else [""]
        )
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str, step: int) -> Path:
        """Return the file of a step's answers (`step`) or of those to the held-out problems before it (`probe`)."""
        return self.folder / f"{kind}-{step:06d}{self._suffixes[self._rank]}.parquet"

    def read(self, kind: str, step: int, policy: str) -> list[Rollout] | None:
        """Return the stored answers of a step if this policy sampled them; `None` if there are none.

        Answers of another policy or of another number of processes, and files that cannot be read, are moved aside.
        """
        if self._rank == 0:
            self._set_others_aside(f"{kind}-{step:06d}")
        path = self.path(kind, step)
        if not path.exists():
            return None
        try:
            found = read_rollouts(path)
        except StoreError:
            found = []
        if found and all(one.policy == policy for one in found):
            return found
        self._set_aside(path)
        return None

    def write(self, kind: str, step: int, rollouts: Sequence[Rollout]) -> None:
        """Store the answers of a step; what was written while it was sampled is no longer needed."""
        path = self.path(kind, step)
        with disk_errors(path):
            write_rollouts(path, rollouts)
            self._begun(kind, step).unlink(missing_ok=True)

    def append(self, kind: str, step: int, rollout: Rollout) -> None:
        """Store one answer of a step that is still sampled."""
        path = self._begun(kind, step)
        with disk_errors(path), path.open("a") as stream:
            stream.write(json.dumps(asdict(rollout)) + "\n")

    def begun(self, kind: str, step: int, policy: str) -> list[Rollout]:
        """Return the answers of a step that was interrupted while this policy was sampled, without torn lines."""
        path = self._begun(kind, step)
        found = []
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                try:
                    found.append(_from_json(json.loads(line)))
                except (ValueError, TypeError, KeyError):
                    continue
        own = [one for one in found if one.policy == policy]
        if len(own) < len(found):
            self.set_begun_aside(kind, step)
            for one in own:
                self.append(kind, step, one)
        return own

    def set_aside(self, kind: str, step: int) -> None:
        """Move the stored answers of a step aside."""
        self._set_aside(self.path(kind, step))

    def set_begun_aside(self, kind: str, step: int) -> None:
        """Move the answers of an interrupted step aside; they are not lost, and not trained on."""
        if (path := self._begun(kind, step)).exists():
            self._set_aside(path)

    def _set_others_aside(self, stem: str) -> None:
        """Move files of a step aside that another number of processes has left: they share its answers otherwise."""
        own = {f"{stem}{suffix}" for suffix in self._suffixes}
        for path in list(self.folder.glob(f"{stem}.*")):
            if path.suffix in (".parquet", ".jsonl") and path.stem not in own:
                self._set_aside(path)

    def _begun(self, kind: str, step: int) -> Path:
        return self.path(kind, step).with_suffix(".jsonl")

    def _set_aside(self, path: Path) -> None:
        aside = self.folder / ASIDE
        with disk_errors(aside):
            aside.mkdir(exist_ok=True)
            number = 1
            while (target := aside / f"{path.stem}.{number}{path.suffix}").exists():
                number += 1
            path.replace(target)


def write_rollouts(path: Path, rollouts: Iterable[Rollout]) -> None:
    """Write answers as Parquet, atomically; `parts` is JSON text, as its keys depend on the recipe."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [asdict(one) | {"parts": json.dumps(one.parts), "num_tokens": len(one.ids)} for one in rollouts]
    schema = pa.schema([*_columns(), ("num_tokens", pa.int64())])
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema), partial)
    partial.replace(path)


def read_rollouts(path: Path) -> list[Rollout]:
    """Return the answers in a Parquet file.

    Raises:
        StoreError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
        return [_from_json(row | {"parts": json.loads(row["parts"])}) for row in rows]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path}: cannot be read ({str(error)[:200]}).") from error


def _from_json(row: dict[str, Any]) -> Rollout:
    names = {one.name for one in fields(Rollout)}
    return Rollout(**{key: value for key, value in row.items() if key in names})


def _columns() -> list[tuple[str, Any]]:
    """Return name and Arrow type of each field of `Rollout`."""
    import pyarrow as pa

    types = {
        int: pa.int64(),
        str: pa.string(),
        bool: pa.bool_(),
        list[int]: pa.list_(pa.int32()),
        list[float]: pa.list_(pa.float64()),
        float | None: pa.float64(),
        bool | None: pa.bool_(),
        str | None: pa.string(),
    }
    return [(name, types.get(hint, pa.string())) for name, hint in get_type_hints(Rollout).items()]
