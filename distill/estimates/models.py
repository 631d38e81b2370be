"""Facts of a model that are known without network access: size, shape, context, whether it is on this machine.

They come from a local folder, the Hub's cache, the student table or, failing these, the size in the model's name
(`…-7B`, `…-30B-A3B`).
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.engines.memory import BYTES_PER_WEIGHT, weights_gib
from distill.errors import DistillError, ModelError
from distill.models.hub import CONFIG, WEIGHTS, Model, resolve_model
from distill.models.hub_names import names_folder
from distill.models.rope import rope_of
from distill.models.shapes import ModelShape, shape_from_config
from distill.models.students import STUDENTS, hub_id_of, known_student

GIB = 2**30
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|m)(?:-a(\d+(?:\.\d+)?)b)?(?![a-z0-9])")

MIXTURES = {
    "deepseek-r1": (671e9, 37e9),
    "deepseek-v3": (671e9, 37e9),
    "deepseek-reasoner": (671e9, 37e9),
    "gpt-oss-120b": (117e9, 5.1e9),
    "gpt-oss-20b": (21e9, 3.6e9),
    "kimi-k2": (1_040e9, 32e9),
    "glm-4.5": (355e9, 32e9),
}
"""Part of a name -> total parameters and active parameters per token, from the model cards."""
FP8_MODELS = ("deepseek-r1", "deepseek-v3", "deepseek-reasoner", "kimi-k2")
"""Models published with one byte per weight."""

REASONERS = (
    "r1",
    "qwq",
    "thinking",
    "reason",
    "qwen3",
    "gpt-oss",
    "magistral",
    "kimi",
    "glm",
    "o1",
    "o3",
    "s1",
    "think",
)
"""Words in the names of models that write long chains of thought."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Known facts of a model."""

    name: str
    """Hub id or folder."""
    num_parameters: float | None
    """Total; `None`: not known."""
    active_parameters: float | None
    """Parameters used for each token; fewer than the total for a mixture of experts."""
    shape: ModelShape | None
    context: int | None
    """Longest sequence, in tokens; `None`: not known."""
    weights_gib: float | None
    """When loaded for sampling."""
    is_seen: bool
    """Whether its config.json was read, or it is in the student table."""
    local: Model | None
    """Its copy on this machine, with weights; `None`: it has to be downloaded, or is served elsewhere."""
    basis: str
    """`7.6B parameters`, with the source if that is not its own config."""
    is_quantised: bool = False
    """Whether its weights have a quantised format of their own."""
    dtype: str = "auto"
    """Dtype for sampling."""

    @property
    def kv_bytes_per_token(self) -> float:
        """Return the KV cache per token; for an unknown shape, that of the student nearest in size."""
        shape = self.shape or nearest_shape(self.active_parameters or 8e9)
        return 2 * BYTES_PER_WEIGHT[self.dtype] * shape.layers * shape.kv_width

    def flops_per_token(self, context: float) -> float:
        """Return the floating-point operations of a token's forward pass; infinite if the size is not known."""
        if self.shape is not None:
            return self.shape.flops_per_token(context)
        if self.active_parameters is None:
            return math.inf
        shape = nearest_shape(self.active_parameters)
        return 2 * self.active_parameters + 4 * shape.layers * shape.query_width * context


def model_facts(name: str, revision: str | None = None, dtype: str = "auto", weights: bool = True) -> ModelFacts:
    """Return the known facts of a model.

    Args:
        name: an alias, a Hub id or a folder.
        revision: on the Hub.
        dtype: of the weights in sampling.
        weights: whether a local copy must include the weights.
    """
    hub_id = hub_id_of(name)
    local = local_model(hub_id, revision, weights)
    config = local.config if local else _cached_config(hub_id, revision)
    student = known_student(hub_id)
    shape, context = student.shape if student else None, student.context if student else None
    if config:
        context = rope_of(config).context or context
        try:
            shape = shape_from_config(config, name)
        except ModelError:
            shape = None  # an unsupported architecture
    number, active, said = _size(hub_id, shape, local)
    gib = None
    if local is not None and weights:
        try:
            gib = weights_gib(local.path, dtype) or None
        except (DistillError, OSError):
            gib = None
    if gib is None and number is not None:
        per_weight = 1 if any(part in hub_id.lower() for part in FP8_MODELS) else BYTES_PER_WEIGHT[dtype]
        gib = number * (per_weight if _is_mixture(hub_id) else BYTES_PER_WEIGHT[dtype]) / GIB
    is_seen = bool(config) or student is not None
    is_quantised = bool((config or {}).get("quantization_config"))
    return ModelFacts(hub_id, number, active, shape, context, gib, is_seen, local, said, is_quantised, dtype)


def _size(hub_id: str, shape: ModelShape | None, local: Model | None) -> tuple[float | None, float | None, str]:
    """Return total and active parameters, and a text with both."""
    if shape is not None:
        return shape.num_parameters, shape.num_parameters, f"{_billions(shape.num_parameters)} parameters"
    low = hub_id.lower()
    if _is_mixture(hub_id):
        number, active = next(sizes for part, sizes in MIXTURES.items() if part in low)
        return number, active, f"{_billions(active)} active of {_billions(number)} parameters"
    found = _SIZE.search(low.rpartition("/")[2])
    if found:
        number = float(found[1]) * (1e9 if found[2] == "b" else 1e6)
        active = float(found[3]) * 1e9 if found[3] else number
        of = f"{_billions(active)} active of " if found[3] else ""
        return number, active, f"{of}{_billions(number)} parameters, by its name"
    if local is not None:
        try:
            number = weights_gib(local.path, "bfloat16") * GIB / 2
        except (DistillError, OSError):
            number = 0.0
        if number:
            return number, number, f"{_billions(number)} parameters, by its files"
    return None, None, "a model of unknown size"


def _is_mixture(hub_id: str) -> bool:
    low = hub_id.lower()
    return "distill" not in low.rpartition("/")[2] and any(part in low for part in MIXTURES)


def local_model(hub_id: str, revision: str | None = None, weights: bool = True) -> Model | None:
    """Return a complete local copy of a model without network access, or `None`."""
    if names_folder(hub_id):
        try:
            return resolve_model(hub_id, weights=weights)
        except DistillError:
            return None
    path = _snapshot(hub_id, revision)
    if path is None or not (path / CONFIG).exists() or (weights and not _has_weights(path)):
        return None
    return Model(hub_id, path, path.name)


def _has_weights(path: Path) -> bool:
    """Return whether all files that the index names are there."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return False
        return all((path / name).exists() for name in names)
    return any(path.glob(WEIGHTS))


def _snapshot(hub_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, CONFIG, revision=revision)
    except (HFValidationError, ValueError, OSError):
        return None
    return Path(found).parent if isinstance(found, str) else None


def _cached_config(hub_id: str, revision: str | None) -> dict[str, Any] | None:
    path = _snapshot(hub_id, revision)
    try:
        return json.loads((path / CONFIG).read_text()) if path else None
    except (OSError, ValueError):
        return None


def nearest_shape(num_parameters: float) -> ModelShape:
    """Return the shape of the student nearest in size, for a model of unknown shape."""
    shapes = [student.shape for student in STUDENTS.values() if student.shape is not None]
    return min(shapes, key=lambda shape: abs(math.log(shape.num_parameters / num_parameters)))


def is_reasoner(name: str) -> bool:
    """Return whether a model writes long chains of thought, judging by its name."""
    words = re.split(r"[^a-z0-9]+", name.lower().rpartition("/")[2])
    return any(word in REASONERS or word.startswith(("think", "reason", "qwq", "qwen3")) for word in words) or any(
        part in name.lower() for part in ("gpt-oss", "deepseek-reasoner")
    )


def _billions(number: float) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.3g}B"
    return f"{number / 1e6:.0f}M"
