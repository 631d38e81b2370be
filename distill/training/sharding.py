"""Shard a model over several GPUs with FSDP2 or DeepSpeed ZeRO-3, through accelerate.

FSDP2 gathers and frees one unit at a time: each decoder layer, the embedding, the head. A checkpoint is a
`torch.distributed.checkpoint` folder (`pytorch_model_fsdp_0/`) with one file per process.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from distill.errors import ModelError
from distill.recipe.sft import SftConfig
from distill.storage.files import replace_folder
from distill.training.layout import Layout

SHARDED_WEIGHTS = "pytorch_model_fsdp_0"
"""Folder in a checkpoint in which accelerate saves the model's shards."""

MAX_FILE_BYTES = 5 * 10**9
"""Largest safetensors file, as in transformers; also the memory that consolidating needs."""

CONTEXT_PARALLEL_CHUNKS = 2
"""Pieces of a row per process: torch makes two, so that all processes have equal work in attention."""


def decoder_layers(model: torch.nn.Module) -> list[str]:
    """Return the class names of a model's decoder layers, which are gathered and recomputed as units.

    Raises:
        ModelError: the architecture does not declare them.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    present = {type(module).__name__ for module in base.modules()}
    names = sorted(present & set(getattr(base, "_no_split_modules", None) or ()))
    if not names:
        raise ModelError(
            f"{type(base).__name__} does not declare its decoder layers, so it cannot be sharded. "
            "Use sft.compute.sharding: none, or another student."
        )
    return names


def layer_names(model_path: Path) -> list[str]:
    """Return `decoder_layers` of a model without loading its weights.

    Raises:
        ModelError: the architecture does not declare them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
        return decoder_layers(AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def wrap_policy(model: torch.nn.Module) -> list[tuple[str, list[torch.nn.Module]]]:
    """Return the units that FSDP2 gathers and frees one by one, with their names, in the order of wrapping.

    These are the units that accelerate makes from `transformer_layer_cls_to_wrap`: each decoder layer, the embedding,
    the last norm with the head (and the embedding if the two are tied), and the root with the rest.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    names = set(decoder_layers(model))
    units = [(name, [module]) for name, module in model.named_modules() if type(module).__name__ in names]
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    is_tied = head is not None and embedding.weight is head.weight
    norm = [m for _, m in base.base_model.named_children() if "Norm" in type(m).__name__][-1:]
    # accelerate looks for the norm among the direct children of its model; peft's wrapper hides it.
    tail = [*([] if model is not base else norm), *([embedding] if is_tied else []), *([head] if head else [])]
    if not is_tied:
        units.append(("embedding", [embedding]))
    return [*units, ("tail", tail), ("root", [model])]


def sharding_arguments(layout: Layout, config: SftConfig, layers: list[str], recompute: bool) -> dict[str, Any]:
    """Return the sharding arguments of TRL's SFTConfig, and `gradient_checkpointing`.

    Args:
        layout: processes and sharding.
        config: `sft:` of the recipe.
        layers: from `decoder_layers`.
        recompute: whether activations are recomputed to save memory.

    Raises:
        ModelError: DeepSpeed is not installed, or the sharding does not support the recipe's method.
    """
    if layout.sharding == "none":
        return {"gradient_checkpointing": recompute}
    if layout.sharding == "zero3":
        if find_spec("deepspeed") is None:
            raise ModelError("sft.compute.sharding: zero3 needs DeepSpeed (`pip install deepspeed`). Or use fsdp.")
        if config.method == "qlora":
            raise ModelError("sft.compute.sharding: zero3 cannot shard 4-bit weights. Use fsdp with method: qlora.")
        return {"gradient_checkpointing": recompute, "deepspeed": deepspeed_config(config), **_shared_rows(layout)}
    # accelerate recomputes a layer without restoring the random state, so dropout would get another mask.
    has_dropout = config.lora is not None and config.lora.dropout > 0
    return {
        "fsdp": True,
        "fsdp_config": fsdp_config(config, layers, recompute and not has_dropout),
        "gradient_checkpointing": recompute and has_dropout,
        **_shared_rows(layout),
    }


def fsdp_config(config: SftConfig, layers: list[str], recompute: bool) -> dict[str, Any]:
    """Return `fsdp_config` of TrainingArguments, for FSDP2.

    Mixed precision comes from `bf16`: shards stay in float32, gathered weights are bfloat16, gradients are summed in
    float32.
    """
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": layers,
        "reshard_after_forward": True,
        "state_dict_type": "SHARDED_STATE_DICT",
        # Only rank 0 reads the weights; the others hold nothing until they get their shard. Not for 4-bit weights.
        "cpu_ram_efficient_loading": config.method != "qlora",
        "activation_checkpointing": recompute,
        "cpu_offload": config.compute.cpu_offload,
    }


def deepspeed_config(config: SftConfig) -> dict[str, Any]:
    """Return DeepSpeed's JSON configuration for ZeRO-3; the Trainer fills in `auto` values."""
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    if config.compute.cpu_offload:
        place = {"device": "cpu", "pin_memory": True}
        zero |= {"offload_param": place, "offload_optimizer": place}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        # torch's AdamW, as in every other layout; DeepSpeed's own has to be compiled.
        "zero_force_ds_cpu_optimizer": False,
    }


def _shared_rows(layout: Layout) -> dict[str, Any]:
    """Return arguments for GPUs that share rows: context parallelism with FSDP2, Ulysses with ZeRO-3."""
    if layout.sequence_parallel == 1:
        return {}
    from accelerate import ParallelismConfig

    sizes = parallelism(layout)
    return {"parallelism_config": ParallelismConfig(**sizes), "pad_to_multiple_of": row_multiple(layout)}


def parallelism(layout: Layout) -> dict[str, int]:
    """Return the arguments of accelerate's ParallelismConfig."""
    kind = "cp_size" if layout.sharding == "fsdp" else "sp_size"
    return {"dp_shard_size": layout.data_parallel, kind: layout.sequence_parallel}


def row_multiple(layout: Layout) -> int:
    """Return the multiple of tokens to which rows are padded, so that their pieces are equal."""
    is_context_parallel = layout.sharding == "fsdp" and layout.sequence_parallel > 1
    return layout.sequence_parallel * (CONTEXT_PARALLEL_CHUNKS if is_context_parallel else 1)


def environment(layout: Layout, config: SftConfig, on_gpu: bool) -> dict[str, str]:
    """Return the variables that `accelerate launch` would set, to be set before TrainingArguments are made.

    They tell transformers' `from_pretrained` whether only rank 0 reads the weights, and accelerate whether the process
    group has to move CPU tensors too.
    """
    if layout.sharding == "fsdp":
        return {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": "2",
            "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
            "FSDP_CPU_RAM_EFFICIENT_LOADING": str(config.method != "qlora").lower(),
            "FSDP_OFFLOAD_PARAMS": str(config.compute.cpu_offload).lower(),
        }
    # Otherwise accelerate names the device cpu:0, for which torch refuses to load an optimiser's state.
    return {} if on_gpu or not layout.needs_group else {"ACCELERATE_TORCH_DEVICE": "cpu"}


def gathered_weights(trainer: Any, layout: Layout) -> dict[str, torch.Tensor] | None:
    """Gather the trained weights of a sharded model; every process has to call this.

    Returns:
        All weights by name on rank 0, in CPU memory (with LoRA only the adapter's), and none on other ranks; `None` if
        the model is not sharded.
    """
    if layout.sharding == "none":
        return None
    is_adapter = hasattr(trainer.model, "peft_config")
    if layout.sharding == "zero3":
        weights = trainer.deepspeed._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=is_adapter) or {}
    else:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=is_adapter)
        weights = get_model_state_dict(trainer.model, options=options)
    # Tied tensors are separate once they are gathered, and would be saved twice.
    return {name: tensor for name, tensor in weights.items() if name not in tied_names(trainer.model)}


def tied_names(model: torch.nn.Module) -> set[str]:
    """Return the names of tensors that are tied to others."""
    return set(getattr(model, "all_tied_weights_keys", None) or ())


def sharding_plan(model: torch.nn.Module, num_shares: int) -> dict[str, Any]:
    """Return how FSDP2 would shard a model, from shapes alone; the model may be on the meta device.

    FSDP2 cuts each parameter along its first dimension into `num_shares` pieces, the first ones rounded up.

    Returns:
        `num_parameters`; `per_gpu`: parameters on the fullest GPU; `largest_unit`: most parameters gathered at once;
        `num_units`.
    """
    seen: set[int] = set()
    sizes = []
    for _, modules in wrap_policy(model):
        own = {id(p): p for module in modules for p in module.parameters() if id(p) not in seen}
        seen |= own.keys()
        sizes.append(sum(p.numel() for p in own.values()))
    parameters = list(model.parameters())
    return {
        "num_parameters": sum(p.numel() for p in parameters),
        "per_gpu": sum(math.ceil(p.shape[0] / num_shares) * p[0].numel() for p in parameters),
        "largest_unit": max(sizes),
        "num_units": len(sizes),
    }


def consolidate(
    checkpoint: Path,
    out_dir: Path,
    dtype: torch.dtype | None = None,
    skip: Collection[str] = (),
    max_file_bytes: int = MAX_FILE_BYTES,
) -> list[str]:
    """Convert a sharded checkpoint to safetensors files with an index, as transformers and vLLM load them.

    It runs in one process and holds the tensors of one file at a time. The folder appears complete or not at all.

    Args:
        checkpoint: folder of the shards (`SHARDED_WEIGHTS` of a checkpoint).
        out_dir: output folder.
        dtype: of the written weights; left out: unchanged.
        skip: names of tied tensors to leave out.
        max_file_bytes: largest file; a larger tensor gets a file of its own.

    Returns:
        Names of the tensors.
    """
    from safetensors.torch import save_file
    from torch.distributed.checkpoint import FileSystemReader

    metadata = FileSystemReader(checkpoint).read_metadata()
    tensors, paths = metadata.state_dict_metadata, metadata.planner_data
    # accelerate nests each tensor under "model"; its own name comes last.
    names_in_model = {name: paths[name][-1] for name in tensors if paths[name][-1] not in skip}
    sizes = {name: _num_bytes(tensors[name], dtype) for name in names_in_model}
    groups = list(_groups(sizes, max_file_bytes))
    staging = out_dir.with_name(f"{out_dir.name}.partial")
    staging.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        found = _load(checkpoint, {name: tensors[name] for name in names})
        loaded = {names_in_model[name]: tensor.to(dtype or tensor.dtype) for name, tensor in found.items()}
        save_file(loaded, staging / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(loaded, file)
    if len(groups) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (staging / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    replace_folder(staging, out_dir)
    return sorted(weight_map)


def _num_bytes(tensor: Any, dtype: torch.dtype | None) -> int:
    """Return the size of a tensor once written, from the checkpoint's metadata."""
    item: torch.dtype = dtype or tensor.properties.dtype
    return int(math.prod(tensor.size) * item.itemsize)


def _groups(sizes: Mapping[str, int], most: int) -> Iterator[list[str]]:
    """Yield names in order, in groups of at most `most` bytes."""
    group: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if group and filled + size > most:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += size
    yield group


def _load(checkpoint: Path, tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Load some tensors of a sharded checkpoint, unsharded."""
    from torch.distributed import checkpoint as dcp

    loaded = {name: torch.empty(found.size, dtype=found.properties.dtype) for name, found in tensors.items()}
    dcp.load(loaded, storage_reader=dcp.FileSystemReader(checkpoint), no_dist=True)
    return loaded
