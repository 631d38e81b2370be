"""Compute the memory of a training step from the model's shape and the setting. Imports no torch.

Example: GiB of one GPU, or of one process on CPU:

    plan(shape, Setting(method="lora", row_tokens=4_096)).total_gib

Nothing here is fitted to a measurement. Each term is a tensor that is allocated: what autograd saves in transformers'
decoder layers, the tiles in which TRL computes its loss, AdamW's two moments, the buffers that FSDP2 and ZeRO-3 gather
into. Memory can peak at four moments of a step, and the highest peak counts:

- loss: the forward pass is done, everything is saved for the backward pass, the loss is computed tile by tile;
- backward: the backward pass of the loss, or that of the last layer;
- end of backward: activations are freed, all gradients exist;
- update: weights, gradients and moments.

Only `CUDA_CONTEXT_GIB`, `NCCL_GIB` and `FRAGMENTATION` are assumed. Fused kernels (Liger) need less than computed here.
"""

from dataclasses import dataclass, field
from typing import Literal

from distill.models.shapes import ModelShape

Method = Literal["full", "lora", "qlora"]
Sharding = Literal["none", "fsdp", "zero3"]
Attention = Literal["flash", "sdpa", "eager", "rows"]
Loss = Literal["trl", "once"]

GIB = 2**30
FP32, BF16 = 4, 2
ADAMW = 2 * FP32
"""Bytes of AdamW's two moments per trained parameter."""
NF4 = 0.5 + (1 + FP32 / 256) / 64
"""Bytes of a weight quantised to 4 bits: one byte of scale per 64 weights, one float per 256 scales."""

LOSS_TOKENS = 4_096
"""Tokens of a tile in TRL's loss (`trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE`)."""
LOSS_VOCAB = 32_768
"""Vocabulary of a tile in TRL's loss (`trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE`)."""
TILE_FORWARD, TILE_BACKWARD = 3 * FP32, 7 * FP32 + 1
"""Most bytes of temporaries per number of a tile, besides the tile itself, in TRL's loss without Triton."""

ONCE_TILE = 1 << 24
"""Number of logits of a tile in the loss of `distill.training.cpu`."""

ZERO3_LIVE_PARAMETERS = 1e9
"""Most parameters that ZeRO-3 keeps gathered (DeepSpeed's stage3_max_live_parameters)."""
ZERO3_SUB_GROUP = 1e9
"""Parameters that ZeRO-3 updates at a time (DeepSpeed's sub_group_size)."""

CUDA_CONTEXT_GIB = 0.8
"""Assumed: the CUDA context, loaded kernels and the cuBLAS workspace."""
NCCL_GIB = 0.7
"""Assumed: NCCL's buffers, with several GPUs."""
FRAGMENTATION = 0.06
"""Assumed: share of a GPU's other memory that the allocator reserves and cannot use."""

PARTS = ("weights", "gradients", "optimiser", "activations", "logits", "other")


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of a training that affect memory."""

    method: Method = "full"
    rows: int = 1
    """Rows per pass."""
    row_tokens: int = 2_048
    """Longest row of a pass, in tokens; the others are padded to it or packed."""
    accumulation: int = 1
    """Passes per step."""
    lora_r: int = 32
    lora_targets: str | list[str] = field(default_factory=lambda: "all-linear")
    device: Literal["gpu", "cpu"] = "gpu"
    num_processes: int = 1
    """GPUs, or processes on CPU."""
    sharding: Sharding = "none"
    sequence_parallel: int = 1
    """GPUs that share each row."""
    cpu_offload: bool = False
    """Whether shards of weights, gradients and moments stay in the machine's memory."""
    gradient_checkpointing: bool = True
    bf16: bool = True
    """Whether passes are computed in bfloat16, or else in float32."""
    attention: Attention = "flash"
    """`flash`: rows are kept apart without a mask; `rows`: one row after the other, by `distill.training.cpu`."""
    padded: bool = False
    """Whether rows of a pass differ in length, so that sdpa and eager attention need a mask."""
    loss: Loss = "trl"
    """`trl`: TRL's, which computes tiles forward and again backward; `once`: that of `distill.training.cpu`."""

    @property
    def tokens(self) -> int:
        """Return the tokens per pass on one GPU."""
        return -(-self.rows * self.row_tokens // self.sequence_parallel)

    @property
    def shards(self) -> int:
        """Return the number of GPUs over which weights, gradients and moments are sharded."""
        return 1 if self.sharding == "none" else self.num_processes

    @property
    def compute_bytes(self) -> int:
        return BF16 if self.bf16 else FP32

    @property
    def stored_bytes(self) -> int:
        """Return the bytes of an unquantised weight; full fine-tuning always keeps float32 master weights."""
        return FP32 if self.method == "full" else self.compute_bytes

    @property
    def stream_bytes(self) -> int:
        """Return the bytes of a number in hidden states, which float32 weights make float32 even under autocast."""
        return self.compute_bytes if self.sharding != "none" else self.stored_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """Peak memory of one GPU, in GiB by part."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    """The loss: tiles of logits, and the gradient of the projection to the vocabulary."""
    other: float
    """Gathered and cast weights, communication buffers, the CUDA context, fragmentation."""
    moment: str
    """Moment of the peak: loss, backward, end of backward, or update."""
    host_gib: float = 0.0
    """Memory of the machine for offloaded tensors, in GiB per GPU."""

    @property
    def total_gib(self) -> float:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Return part -> GiB, in the order of `PARTS`."""
        return {part: getattr(self, part) for part in PARTS}


Bytes = dict[str, float]
"""Bytes by part, of one moment."""


def plan(shape: ModelShape, setting: Setting) -> Estimate:
    """Return the memory of training `shape` with `setting`.

    Raises:
        ModelError: LoRA targets that the model does not have.
    """
    moments = {
        "loss": _loss(shape, setting),
        "backward": _backward(shape, setting),
        "end of backward": _end_of_backward(shape, setting),
        "update": _update(shape, setting),
    }
    standing = _standing(shape, setting)
    host = 0.0
    if setting.cpu_offload:
        host = sum(standing.values()) + trained_parameters(shape, setting) * FP32 / setting.shards
        standing = dict.fromkeys(standing, 0.0)
    moment, highest = max(moments.items(), key=lambda item: sum(item[1].values()))
    parts = {part: standing.get(part, 0.0) + highest.get(part, 0.0) for part in PARTS}
    if setting.device == "gpu":
        parts["other"] += FRAGMENTATION * sum(parts.values()) + CUDA_CONTEXT_GIB * GIB
        parts["other"] += NCCL_GIB * GIB if setting.num_processes > 1 else 0
    return Estimate(**{part: value / GIB for part, value in parts.items()}, moment=moment, host_gib=host / GIB)


def trained_parameters(shape: ModelShape, setting: Setting) -> int:
    """Return the number of parameters with gradients."""
    if setting.method == "full":
        return shape.num_parameters
    return shape.lora_parameters(setting.lora_r, setting.lora_targets)


def _standing(shape: ModelShape, setting: Setting) -> Bytes:
    """Return what is allocated all the time: weights and AdamW's moments."""
    trained = trained_parameters(shape, setting)
    weights = float(shape.num_parameters * setting.stored_bytes)
    if setting.method == "qlora":
        weights -= shape.linear_parameters * (setting.stored_bytes - NF4)
    if setting.method != "full":
        weights += trained * FP32
    elif setting.sharding == "zero3" and setting.bf16:
        weights += shape.num_parameters * BF16  # besides the float32 master weights
    return {"weights": weights / setting.shards, "optimiser": ADAMW * trained / setting.shards}


def _all_gradients(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of all gradients: float32 (bfloat16 with ZeRO-3 in bfloat16), sharded as the weights are."""
    size = BF16 if setting.sharding == "zero3" and setting.bf16 else FP32
    return size * trained_parameters(shape, setting) / setting.shards


def _kept_gradients(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of gradients of earlier passes of the step, which stay on the GPU during the next pass."""
    return _all_gradients(shape, setting) if setting.accumulation > 1 and not setting.cpu_offload else 0.0


def _head_gradient(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of the gradient of the projection to the vocabulary, which each GPU sums up whole in float32."""
    return FP32 * shape.embedding_parameters if setting.method == "full" else 0.0


# --- activations ---


def saved_per_layer(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes that autograd saves in one decoder layer per token."""
    size, trains_all = setting.compute_bytes, setting.method == "full"
    hidden, query, keys, mlp = shape.hidden, shape.query_width, shape.kv_width, shape.intermediate
    copies = _input_copies(shape, setting)
    norm = _saved_by_norm(hidden, setting.stream_bytes if trains_all else 0, 1)
    saved = 2 * norm + size * sum(width * num for width, num in copies.items())
    if shape.qk_norm:
        weighted = size if trains_all else 0
        saved += _saved_by_norm(query, weighted, shape.heads) + _saved_by_norm(keys, weighted, shape.kv_heads)
    if not trains_all:
        saved += size * setting.lora_r * len(shape.lora_targets(setting.lora_targets))
    saved += size * (2 * query + 2 * keys) + FP32 * shape.heads  # q, k, v, the attention output and its log-sum-exp
    saved += _mask_per_token(shape, setting)
    return saved + 3 * size * mlp  # gate, silu(gate), up


def _saved_by_norm(width: int, weighted_bytes: int, groups: int) -> float:
    """Return the bytes of RMSNorm's float32 input, its inverse RMS and, if the weight is trained, what that scales."""
    return FP32 * width + FP32 * groups + weighted_bytes * width


def _input_copies(shape: ModelShape, setting: Setting) -> dict[int, int]:
    """Return width -> number of input tensors that the layer's projections save, besides those counted elsewhere."""
    hidden, query, mlp = shape.hidden, shape.query_width, shape.intermediate
    targets = list(shape.linears) if setting.method == "full" else shape.lora_targets(setting.lora_targets)
    num_q, num_m = (len({"q_proj", "k_proj", "v_proj"} & {*targets}), len({"gate_proj", "up_proj"} & {*targets}))
    copies = {hidden: 0, query: 0, mlp: 0}
    if setting.bf16 and (setting.method != "full" or setting.sharding == "none"):
        # Cast again for each projection, from float32 or, with adapters, through float32.
        copies[hidden] += num_q + num_m
        copies[query] += int("o_proj" in targets and setting.method != "full")
    else:
        copies[hidden] += (num_q > 0) + (num_m > 0)
    copies[mlp] += int("down_proj" in targets)
    return copies


def _mask_per_token(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes that attention saves per token for a mask, for scores, or for separate rows."""
    size = setting.compute_bytes
    if setting.attention == "eager":
        # the float32 softmax and its cast; keys and values repeated for each query head
        scores = shape.heads * setting.row_tokens * (FP32 + (size if setting.bf16 else 0))
        return scores + 2 * size * (shape.query_width - shape.kv_width)
    if setting.attention == "rows":
        return size * shape.query_width  # the output of each row, and their concatenation
    if setting.attention == "sdpa" and setting.padded:
        # the mask as numbers, made in each layer; keys and values repeated for each query head
        return size * setting.row_tokens + 2 * size * (shape.query_width - shape.kv_width)
    return 0.0


def _activations(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes saved by the forward pass: all layers', or with checkpointing only each layer's input."""
    per_token = (
        setting.stream_bytes * shape.hidden if setting.gradient_checkpointing else saved_per_layer(shape, setting)
    )
    # The last norm and its output; below also the hidden states that the loss takes.
    end = _saved_by_norm(shape.hidden, setting.stream_bytes if setting.method == "full" else 0, 1)
    return setting.tokens * (shape.layers * per_token + end + setting.stream_bytes * shape.hidden + _mask(setting))


def _mask(setting: Setting) -> float:
    """Return the bytes per token of the attention mask that all layers share."""
    if setting.attention == "sdpa" and setting.padded:
        return setting.row_tokens  # as booleans
    return setting.compute_bytes * setting.row_tokens if setting.attention == "eager" else 0.0


def _layer_backward(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of one layer's backward pass, besides what the forward pass saved."""
    size, mlp = setting.compute_bytes, shape.intermediate
    stream = setting.stream_bytes * shape.hidden
    through_mlp = 2 * size * mlp
    if setting.method != "full" and setting.bf16:
        through_mlp += FP32 * mlp  # the adapter's gradient goes through float32
    recomputed = saved_per_layer(shape, setting) if setting.gradient_checkpointing else 0.0
    return setting.tokens * (stream + through_mlp + recomputed)


# --- the loss ---


def _tile(shape: ModelShape, setting: Setting, temporaries: int) -> float:
    """Return the bytes of a tile of logits and its temporaries, of which Triton on a GPU needs none."""
    num = min(setting.tokens, LOSS_TOKENS) * min(shape.vocab, LOSS_VOCAB)
    return num * (setting.compute_bytes + (temporaries if setting.device == "cpu" else 0))


def _cast_slice(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of a tile's part of the projection, cast to bfloat16."""
    return BF16 * min(shape.vocab, LOSS_VOCAB) * shape.hidden if setting.bf16 else 0.0


def _once(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of the loss of `distill.training.cpu`: logits and probabilities of a tile, and gradients."""
    hidden = setting.tokens * setting.stream_bytes * shape.hidden
    tile = max(ONCE_TILE // shape.vocab, 1) * shape.vocab
    tiles = min(tile, setting.tokens * shape.vocab) * (2 * FP32 + (setting.compute_bytes if setting.bf16 else 0))
    cast = BF16 * shape.embedding_parameters if setting.bf16 else 0
    of_tile = setting.compute_bytes * shape.embedding_parameters if setting.method == "full" else 0
    # The last norm's output and the scored part of it, besides their gradient.
    return 2 * hidden + tiles + cast + of_tile + _head_gradient(shape, setting)


def _loss(shape: ModelShape, setting: Setting) -> Bytes:
    of_trl = _tile(shape, setting, TILE_FORWARD) + _cast_slice(shape, setting)
    return {
        "gradients": _kept_gradients(shape, setting),
        "activations": _activations(shape, setting),
        "logits": of_trl if setting.loss == "trl" else _once(shape, setting),
        "other": _gathered(shape, setting) + _cast_weights(shape, setting, forward=True) + _buckets(shape, setting),
    }


def _backward(shape: ModelShape, setting: Setting) -> Bytes:
    """Return the bytes of the loss's backward pass, or of the last layer's if that is more."""
    hidden_gradient = FP32 * setting.tokens * shape.hidden
    of_loss: float = hidden_gradient
    if setting.loss == "trl":
        of_loss += _tile(shape, setting, TILE_BACKWARD) + _cast_slice(shape, setting)
    of_layer = _layer_backward(shape, setting)
    activations = _activations(shape, setting)
    return {
        "gradients": _kept_gradients(shape, setting),
        "activations": activations + (of_layer if of_layer > of_loss else 0.0),
        "logits": _head_gradient(shape, setting) + (of_loss if of_loss >= of_layer else 0.0),
        "other": _gathered(shape, setting) + _cast_weights(shape, setting, forward=False) + _buckets(shape, setting),
    }


def _end_of_backward(shape: ModelShape, setting: Setting) -> Bytes:
    """Return the bytes after the first layer's backward pass, when the embedding's gradient is allocated."""
    embedding = _head_gradient(shape, setting)
    gradients = 0.0 if setting.cpu_offload else _all_gradients(shape, setting)
    if setting.sharding == "none" and setting.accumulation == 1:
        # The new gradient becomes the parameter's own; a tied embedding also has the projection's part.
        embedding = embedding if shape.tied else 0.0
    elif shape.tied:
        embedding *= 2
    return {
        "gradients": gradients + embedding,
        "activations": setting.tokens * setting.stream_bytes * shape.hidden,
        "other": _gathered(shape, setting) + _buckets(shape, setting),
    }


def _update(shape: ModelShape, setting: Setting) -> Bytes:
    gradients = 0.0 if setting.cpu_offload else _all_gradients(shape, setting)
    widened = 0.0
    if setting.sharding == "zero3" and setting.bf16 and not setting.cpu_offload:
        widened = FP32 * min(trained_parameters(shape, setting) / setting.shards, ZERO3_SUB_GROUP)
    return {"gradients": gradients + widened, "other": _buckets(shape, setting)}


# --- on top for several GPUs and for mixed precision ---


def _gathered(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of gathered weights: two layers (one in use, one prefetched) and the embedding."""
    size = setting.compute_bytes
    if setting.method == "qlora":
        # One projection is dequantised at a time.
        dequantised = size * max(width_in * width_out for width_in, width_out in shape.linears.values())
        if setting.sharding == "none":
            return dequantised
        two_layers = 2 * NF4 * shape.linear_parameters / shape.layers
        return dequantised + two_layers + size * shape.embedding_parameters
    if setting.sharding == "none":
        return 0.0
    two_layers = 2.0 * shape.layer_parameters
    if setting.sharding == "zero3":
        two_layers = max(two_layers, min(ZERO3_LIVE_PARAMETERS, shape.num_parameters - shape.embedding_parameters))
    # Gradients of a layer are unsharded until they are reduced over all GPUs.
    whole_gradients = 2 * size * shape.layer_parameters if setting.method == "full" else 0.0
    return size * (two_layers + shape.embedding_parameters) + whole_gradients


def _cast_weights(shape: ModelShape, setting: Setting, forward: bool) -> float:
    """Return the bytes of the bfloat16 copies that autocast makes of float32 weights."""
    # They live until the end of the forward pass, or as long as the graph. With checkpointing the backward pass makes
    # those of one layer at a time again.
    if not setting.bf16 or setting.method != "full" or setting.sharding != "none":
        return 0.0
    all_of_them = BF16 * float(shape.linear_parameters)
    return all_of_them if forward or not setting.gradient_checkpointing else all_of_them / shape.layers


def _buckets(shape: ModelShape, setting: Setting) -> float:
    """Return the bytes of DistributedDataParallel's buckets: a second copy of all gradients."""
    if setting.sharding == "none" and setting.num_processes > 1:
        return FP32 * float(trained_parameters(shape, setting))
    return 0.0
