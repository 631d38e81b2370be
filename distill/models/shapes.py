"""A decoder's architecture in numbers, which determine its parameters, memory and compute. Imports no torch.

    ModelShape(hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1_536, vocab=49_152, tied=True)

Covers dense decoders like Llama: grouped-query attention, a gated MLP of three matrices, RMSNorm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import ModelError

QKV_BIAS_TYPES = frozenset({"qwen2"})
"""`model_type`s whose query, key and value projections have biases that `config.json` does not mention."""

QK_NORM_TYPES = frozenset({"qwen3"})
"""`model_type`s that normalise each head's query and key."""

KNOWN_TYPES = frozenset({"llama", "mistral"}) | QKV_BIAS_TYPES | QK_NORM_TYPES
"""`model_type`s whose layers consist of what `ModelShape` counts, and of nothing else."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions that determine a decoder's size and compute."""

    hidden: int
    """Width of the residual stream."""
    layers: int
    """Number of decoder layers."""
    heads: int
    """Query heads per layer."""
    kv_heads: int
    """Key and value heads per layer."""
    head_dim: int
    """Width of a head."""
    intermediate: int
    """Width of the gated MLP."""
    vocab: int
    """Rows of the embedding, including padding."""
    tied: bool = False
    """Whether the output projection shares the embedding's weights."""
    qkv_bias: bool = False
    """Whether query, key and value projections have a bias."""
    qk_norm: bool = False
    """Whether queries and keys are normalised per head."""

    @property
    def query_width(self) -> int:
        """Return the width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Return the width of all key heads together, which equals that of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Return the projections of a layer: name -> (in, out)."""
        return {
            "q_proj": (self.hidden, self.query_width),
            "k_proj": (self.hidden, self.kv_width),
            "v_proj": (self.hidden, self.kv_width),
            "o_proj": (self.query_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Return the number of weights in the projections of all layers, which LoRA adapts and QLoRA quantises."""
        return self.layers * sum(width_in * width_out for width_in, width_out in self.linears.values())

    @property
    def layer_parameters(self) -> int:
        """Return the number of parameters of one decoder layer."""
        biases = self.query_width + 2 * self.kv_width if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.linear_parameters // self.layers + biases + norms

    @property
    def embedding_parameters(self) -> int:
        """Return the number of parameters of the embedding alone."""
        return self.vocab * self.hidden

    @property
    def num_parameters(self) -> int:
        """Return the number of all parameters. A tied output projection counts once."""
        ends = self.embedding_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + ends + self.hidden

    def lora_parameters(self, r: int, targets: str | list[str] = "all-linear") -> int:
        """Return the number of parameters of an adapter of rank `r` on the targeted projections."""
        return self.layers * sum(r * sum(self.linears[name]) for name in self.lora_targets(targets))

    def lora_targets(self, targets: str | list[str]) -> list[str]:
        """Return the projections of a layer that an adapter is applied to.

        Raises:
            ModelError: a name that no layer has.
        """
        if targets == "all-linear":
            return list(self.linears)
        named = [targets] if isinstance(targets, str) else targets
        unknown = sorted(set(named) - self.linears.keys())
        if unknown:
            raise ModelError(
                f"sft.lora.target_modules: the planner knows {', '.join(self.linears)} and not {', '.join(unknown)}."
            )
        return named

    def flops_per_token(self, context: float) -> float:
        """Return the floating-point operations of one token's forward pass.

        Args:
            context: mean number of tokens that a token attends to, itself included: half the row under causal
                attention.
        """
        # One multiplication and one addition per weight, and the same for attention scores and for their weighted sum.
        projections = 2 * (self.linear_parameters + self.embedding_parameters)
        return projections + 4 * self.layers * self.query_width * context


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape of a model from its `config.json`.

    Args:
        config: the file as a dict.
        name: the model's, for messages.

    Raises:
        ModelError: not a dense decoder of a known type.
    """
    text = config.get("text_config") or config
    kind = text.get("model_type", "")
    if kind not in KNOWN_TYPES:
        raise ModelError(
            f"{name}: memory use cannot be estimated for model_type {kind!r}. Known: "
            f"{', '.join(sorted(KNOWN_TYPES))}. Training it may still work."
        )
    try:
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        return ModelShape(
            hidden=hidden,
            layers=int(text["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            intermediate=int(text["intermediate_size"]),
            vocab=int(text["vocab_size"]),
            tied=bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))),
            qkv_bias=kind in QKV_BIAS_TYPES or bool(text.get("attention_bias")),
            qk_norm=kind in QK_NORM_TYPES,
        )
    except KeyError as missing:
        raise ModelError(f"{name}: its config.json has no {missing}, so its memory use cannot be estimated.") from None
