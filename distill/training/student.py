"""Save the trained student as vLLM and transformers load it, and check its answers to a few training prompts.

`student/` has safetensors, config.json, generation_config.json, tokenizer and chat template; with LoRA there is also
`adapter/` as peft loads it. Each appears complete or not at all, and holds no pickle. Result of the closing check:

    {"num_prompts": 8, "thinks": 8, "closes": 7, "answers": 7, "stops": 7, "max_new_tokens": 256, …, "warning": null}
"""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.core.thinking import THINK_CLOSE, THINK_OPEN, opens_thinking, split_reasoning
from distill.errors import StageError
from distill.models.hub_names import names_folder
from distill.models.tokenizers import Tokenizer, render_prompt
from distill.storage.files import disk_errors, read_json, replace_folder, sync_tree, write_json
from distill.storage.layout import ADAPTER, STUDENT
from distill.training.rows import source_row

if TYPE_CHECKING:
    import torch

MAX_FILE = "5GB"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")

SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0}
"""DeepSeek-R1's sampling; `top_k` 0 means no limit, while the default of transformers is 50."""

NUM_PROMPTS = 8
MAX_NEW_TOKENS = {"cpu": 256, "cuda": 4_096}


@dataclass(frozen=True, slots=True)
class Base:
    """The model that the student was made from."""

    name: str
    """As in the recipe: a Hub id or a folder."""
    path: Path
    revision: str | None = None
    """Commit on the Hub; meaningless for a folder."""


def save_student(
    model: Any, tokenizer: Tokenizer, out_dir: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None
) -> None:
    """Save the student, and with LoRA the unmerged adapter.

    Args:
        model: the trained model, or peft's wrapper around it.
        tokenizer: as used in training.
        out_dir: the stage's folder.
        base: the base model; the weights are saved in its dtype.
        weights: all weights by name (with LoRA: the adapter's) if the model is sharded.

    Raises:
        StoreError: the disk is full or not writable.
        StageError: the merged weights are not finite.
    """
    if hasattr(model, "peft_config"):
        save_adapter(model, out_dir, base, weights)
        model, weights = merged(out_dir / ADAPTER, base, plain_config(model)), None
    folder = out_dir / STUDENT
    staging = _staging(folder)
    with disk_errors(staging):
        write_weights(model, staging, base, weights)
        describe(staging, plain_config(model), tokenizer, base)
        _seal(staging, folder)


def save_adapter(model: Any, out_dir: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None) -> None:
    """Save peft's adapter, with the base's Hub id in its config.

    Raises:
        StoreError: the disk is full or not writable.
    """
    folder = out_dir / ADAPTER
    staging = _staging(folder)
    for config in model.peft_config.values():
        config.base_model_name_or_path = base.name
        config.revision = None if names_folder(base.name) else base.revision
    with disk_errors(staging):
        # Embeddings never change here; "auto" would ask the Hub to find out.
        # The adapter that is trained: reinforcement learning may keep an earlier one beside it, as its reference.
        model.save_pretrained(
            staging, state_dict=weights, save_embedding_layers=False, selected_adapters=[model.active_adapter]
        )
        (staging / "README.md").unlink(missing_ok=True)  # an unfilled template with local paths
        _seal(staging, folder)


def merged(adapter: Path, base: Base, config: Any) -> Any:
    """Merge base and adapter in float32 on CPU, whatever dtype they were trained in.

    Args:
        adapter: folder from `save_adapter`.
        base: its weights are loaded again, as in training they may be quantised or sharded.
        config: the trained model's.

    Raises:
        StageError: the merged weights are not finite.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(base.path, config=config, dtype=torch.float32, trust_remote_code=False)
    try:
        return PeftModel.from_pretrained(whole, str(adapter)).merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError(
            f"sft: the adapter cannot be merged ({str(error)[:200]}). Lower sft.learning_rate and train again."
        ) from error


def plain_config(model: Any) -> Any:
    """Return the model's config to save, without the quantisation used in training."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.use_cache = True
    return config


def write_weights(model: Any, folder: Path, base: Base, weights: Mapping[str, "torch.Tensor"] | None = None) -> None:
    """Write the weights as safetensors in the base's dtype; tied weights are written once.

    Args:
        model: determines the names of the weights.
        folder: output folder, created.
        base: the base model.
        weights: all weights by name if the model is sharded.
    """
    dtype = base_dtype(base)
    model.generation_config = generation_config(base, model.config.eos_token_id, model.config.pad_token_id)
    model.save_pretrained(folder, state_dict=_cast(weights or model.state_dict(), dtype), max_shard_size=MAX_FILE)


def describe(folder: Path, config: Any, tokenizer: Tokenizer, base: Base) -> None:
    """Write everything but the weights: config, generation config, tokenizer and chat template."""
    config = copy.deepcopy(config)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    dtype = base_dtype(base)
    if dtype is not None:
        config.dtype = dtype
    config.save_pretrained(folder)
    generation_config(base, tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _settle_tokenizer(folder / "tokenizer_config.json")


def generation_config(base: Base, stop_token_id: int, pad_token_id: int | None) -> Any:
    """Return the student's default generation config: R1's sampling, and every token that ends its text.

    The trained stop token comes first. The base's own end tokens follow, as the student may still use them.
    """
    from transformers import AutoConfig, GenerationConfig

    own = AutoConfig.from_pretrained(base.path, trust_remote_code=False).get_text_config()
    listed = read_json(base.path / "generation_config.json") or {}
    ends = [stop_token_id]
    for found in (listed.get("eos_token_id"), getattr(own, "eos_token_id", None)):
        ends += [found] if isinstance(found, int) else found or []
    ends = list(dict.fromkeys(ends))
    return GenerationConfig(
        bos_token_id=listed.get("bos_token_id", getattr(own, "bos_token_id", None)),
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=pad_token_id,
        **SAMPLING,
    )


def base_dtype(base: Base) -> Any:
    """Return the torch.dtype of the base's weights, or `None` if its config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.path, trust_remote_code=False)
    return config.dtype or config.get_text_config().dtype


def _cast(weights: Mapping[str, "torch.Tensor"], dtype: Any) -> dict[str, "torch.Tensor"]:
    """Return the weights on CPU in `dtype`; tied weights still share memory, so that they are saved once."""
    done: dict[tuple[Any, ...], torch.Tensor] = {}
    cast = {}
    for name, tensor in weights.items():
        same = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if same not in done:
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            done[same] = tensor.detach().to(device="cpu", dtype=wanted)
        cast[name] = done[same]
    return cast


def _staging(folder: Path) -> Path:
    staging = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def _seal(staging: Path, folder: Path) -> None:
    """Move a finished folder into place.

    Raises:
        StageError: the folder contains a pickle.
    """
    pickles = [path.name for path in staging.rglob("*") if path.suffix in PICKLES]
    if pickles:
        raise StageError(
            f"sft: {', '.join(pickles)} was about to be saved with the student; pickles may "
            "run code. Use a student whose weights are safetensors."
        )
    sync_tree(staging)
    replace_folder(staging, folder)


def _settle_tokenizer(tokenizer_config: Path) -> None:
    """Set padding to the left, as generation needs, and remove local paths and loading options."""
    settings = read_json(tokenizer_config)
    for key in ("name_or_path", "is_local", "local_files_only"):
        settings.pop(key, None)
    write_json(tokenizer_config, {**settings, "padding_side": "left"})


# --- the closing check ---


@dataclass(frozen=True, slots=True)
class StudentCheck:
    """Settings of the closing check."""

    student: str
    """Folder of the saved student."""
    kept: str
    """Folder of the kept rows."""
    num_rows: int
    """Number of kept rows."""
    typical_tokens: int
    """95th percentile of row lengths, in tokens: the limit for an answer."""
    seed: int


def check_student(task: StudentCheck) -> dict[str, Any]:
    """Load the saved student from disk and generate answers to a few of its training prompts.

    Returns:
        num_prompts; how many answers open a thought (thinks), close it (closes), answer after it (answers) and stop by
        themselves (stops); max_new_tokens; num_limited (cut off there); example; warning (`None`: all as expected).

    Raises:
        StageError: the student cannot be loaded, or its logits are not finite.
    """
    import torch

    folder = Path(task.student)
    tokenizer, model = _load_afresh(folder)
    numbers = {round(i * (task.num_rows - 1) / max(1, NUM_PROMPTS - 1)) for i in range(NUM_PROMPTS)}
    rows = [source_row(Path(task.kept), number) for number in sorted(numbers)]
    prompts = [render_prompt(tokenizer, row.prompt) for row in rows]
    limit = min(max(16, task.typical_tokens), MAX_NEW_TOKENS[model.device.type])
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(task.seed)
        texts, stopped = _answers(model, tokenizer, prompts, limit)
    seen = _count(prompts, texts)
    expects_thought = any(THINK_CLOSE in row.completion[-1]["content"] for row in rows)
    result = {
        "num_prompts": len(rows),
        **seen,
        "stops": sum(stopped),
        "num_limited": len(rows) - sum(stopped),
        "max_new_tokens": limit,
        "example": {"row": rows[0].name, "prompt": prompts[0], "text": texts[0]},
    }
    return {**result, "warning": _warning(result, expects_thought, could_end=limit >= task.typical_tokens)}


def _load_afresh(folder: Path) -> tuple[Tokenizer, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    on_gpu = torch.cuda.is_available()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left", trust_remote_code=False
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype="auto" if on_gpu else torch.float32,
            device_map="auto" if on_gpu else None,
        )
    except Exception as error:  # any failure here would stop every user
        raise StageError(
            f"{folder}: the saved student cannot be loaded ({str(error)[:300]}). If it is "
            "damaged, move the sft folder away and train again with `distill sft`."
        ) from error
    if tokenizer.pad_token is None:  # some bases have none; padding is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model.eval()


def _answers(model: Any, tokenizer: Tokenizer, prompts: Sequence[str], limit: int) -> tuple[list[str], list[bool]]:
    """Return the student's answer to each prompt, and whether it stopped by itself."""
    import torch

    batch = tokenizer(list(prompts), add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
    # Logits at padding may be anything. Padding is on the left, so the last position is always a real token.
    if not torch.isfinite(model(**batch, logits_to_keep=1).logits).all():
        raise StageError("sft: the saved student's logits are not finite. Lower sft.learning_rate and train again.")
    ids = model.generate(**batch, max_new_tokens=limit)[:, batch["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([ends] if isinstance(ends, int) else ends, device=ids.device)
    stopped = torch.isin(ids, ends).any(dim=1).tolist()
    texts = []
    for row in ids:
        places = torch.isin(row, ends).nonzero()
        texts.append(tokenizer.decode(row[: places[0]] if len(places) else row))
    return texts, stopped


def _count(prompts: Sequence[str], texts: Sequence[str]) -> dict[str, int]:
    splits = [split_reasoning(text, opens_thinking(prompt)) for prompt, text in zip(prompts, texts, strict=True)]
    thinks = [opens_thinking(prompt) or THINK_OPEN in text for prompt, text in zip(prompts, texts, strict=True)]
    return {
        "thinks": sum(thinks),
        "closes": sum(split.state == "closed" for split in splits),
        "answers": sum(split.state != "unclosed" and bool(split.content) for split in splits),
    }


def _warning(result: Mapping[str, Any], expects_thought: bool, could_end: bool) -> str | None:
    """Return a warning about what the student was trained to do and does in none of its answers, or `None`.

    Args:
        result: the counts of `check_student`.
        expects_thought: whether it was trained to think.
        could_end: whether the limit was high enough for answers of usual length.
    """
    missing = []
    if expects_thought and not result["thinks"]:
        missing.append(f"open a thought with {THINK_OPEN}")
    elif expects_thought and could_end and not result["closes"]:
        missing.append(f"close its thought with {THINK_CLOSE}")
    elif could_end and not result["answers"]:
        missing.append("answer")
    if could_end and not result["stops"]:
        missing.append("stop by itself")
    if not missing:
        return None
    return (
        f"asked {result['num_prompts']} of its training prompts, the student did not once {' or '.join(missing)} "
        f"within {result['max_new_tokens']} tokens. It may need more rows, more epochs or a higher sft.learning_rate."
    )
