"""What of a request reaches vLLM."""

import pytest

from distill.engines.base import Request
from distill.engines.vllm import VllmEngine
from distill.recipe.sampling import Sampling


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "room", "sent"),
    [
        (None, 900, (0.7, 0.9, 20, 90)),
        (Sampling(temperature=0.0, top_p=1.0, max_tokens=800), 900, (0.0, 1.0, 0, 800)),
        (Sampling(temperature=1.0, top_p=0.5, top_k=5, max_tokens=800), 300, (1.0, 0.5, 5, 300)),
    ],
)
def test_a_request_is_drawn_by_its_own_sampling_within_the_room_that_its_prompt_leaves(own, room, sent):
    pytest.importorskip("vllm")
    engine = object.__new__(VllmEngine)  # without a model: only its settings are looked at
    engine._sampling = Sampling(temperature=0.7, top_p=0.9, top_k=20, max_tokens=90)
    engine._stop_ids = [2]
    engine._logprobs = False
    params = engine.sampling_params(Request(("p", 0), [], 11, own), room)
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == sent
    assert params.seed == 11
