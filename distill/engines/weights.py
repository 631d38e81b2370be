"""Weights of a policy in training as an engine takes them: names as in the model's files, one tensor at a time.

engine.update_weights(policy_weights(trainer.model))
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.engines.base import Weights
from distill.errors import ModelError

CHECKPOINTED = "_checkpoint_wrapped_module."
"""In the names of layers whose activations are recomputed under FSDP."""
TIED = "lm_head.weight"
"""The head's weight, which a model with tied embeddings may have in its files or leave out."""


def policy_weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the weights of a plain module, or of a PEFT module with its active LoRA adapters merged.

    Nothing is merged in place, as TRL's `merge_adapter` and `unmerge_adapter` do (1.16, `vllm_generation.py`): in
    floating point, the second does not quite undo the first, and the frozen weights would drift with each step.

    Args:
        model: a `PreTrainedModel` or a `PeftModel`. Weights sharded by FSDP2 are gathered one at a time, so that every
            process has to ask for all of them; those of ZeRO-3 cannot be had like this.

    Raises:
        ModelError: an adapter is none of plain LoRA's, or is one of tied embeddings.
    """
    if not hasattr(model, "peft_config"):
        for name, tensor in model.named_parameters():
            yield name.replace(CHECKPOINTED, ""), _whole(tensor.detach())
        return
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    deltas: dict[str, Any] = {}
    with torch.no_grad():
        for name, module in base.named_modules():
            if isinstance(module, BaseTunerLayer):
                if not isinstance(module, LoraLayer) or module.lora_variant:
                    raise ModelError(f"{name}: only plain LoRA can be brought into an engine, no other adapter.")
                if isinstance(module.get_base_layer(), torch.nn.Embedding) and base.config.tie_word_embeddings:
                    # PEFT computes it without the adapter where it is the head, and no one weight is both.
                    raise ModelError(f"{name}: an adapter of embeddings whose layer shares its weight with the head.")
                deltas[name + ".base_layer.weight"] = module
        for name, tensor in base.named_parameters():
            tensor = _whole(tensor.detach())
            if name in deltas:
                module = deltas[name]
                for adapter in () if module.merged else module.active_adapters:
                    if adapter in module.scaling:
                        tensor = tensor + module.get_delta_weight(adapter).to(tensor.dtype)
            elif ".lora_" in name or "original_module" in name:
                continue
            yield (
                name.replace(CHECKPOINTED, "").replace(".base_layer.", ".").replace("modules_to_save.default.", ""),
                tensor,
            )


def _whole(tensor: Any) -> Any:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def file_names(folder: Path) -> set[str]:
    """Return the names of all weights in a model's safetensors files, without the head's if it may be tied."""
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            names |= json.loads(stream.read(size)).keys()
    config = json.loads((folder / "config.json").read_text())
    tied = config.get("tie_word_embeddings", True)
    return names - {"__metadata__"} - ({TIED} if tied else set())


def checked(weights: Weights, wanted: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the weights as they are; after the last, check that none is missing.

    Args:
        weights: the new weights.
        wanted: names of all those that have to come.

    Raises:
        ModelError: one did not come, so that the engine would go on with its old value.
    """
    missing = set(wanted)
    for name, tensor in weights:
        missing.discard(name)
        yield name, tensor
    if missing:
        raise ModelError(
            f"new weights for an engine lack {len(missing)} of {len(wanted)}, {min(missing)} among them. Names are "
            "those in the model's files."
        )
