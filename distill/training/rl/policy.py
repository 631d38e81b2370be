"""The identity of the weights that sampled an answer."""

import hashlib
from typing import Any

import torch

CHUNK = 1 << 24
"""Numbers added up at a time."""


@torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
def policy_hash(model: Any, owner: str) -> str:
    """Return a hash (16 hex digits) of the weights that are trained.

    It tells whether stored answers were sampled by these very weights, as after a resume. It adds up the bits of each
    weight, which a GPU does without copying them.

    Args:
        model: of a sharded one, this process's shards.
        owner: fingerprint of the training, which tells the weights that are not trained.
    """
    digest = hashlib.sha256(owner.encode())
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        local = weight.to_local() if hasattr(weight, "to_local") else weight
        bits = local.detach().contiguous().view(-1).view(torch.int32 if local.element_size() == 4 else torch.int16)
        total = sum(int(part.sum(dtype=torch.int64)) for part in bits.split(CHUNK))
        # The first numbers too: a sum does not see two of them change places.
        digest.update(f"{name} {tuple(local.shape)} {total} {bits[:8].tolist()}".encode())
    return digest.hexdigest()[:16]
