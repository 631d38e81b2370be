"""What would make a stage fit, in a sentence."""

from types import SimpleNamespace

import pytest

from distill.estimates import remedies
from distill.estimates.stage import StageEstimate


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        (["sft.max_length: 1024"], "sft.max_length: 1024 would do."),
        (["a: 1", "b: 2"], "Any of these would do: a: 1, b: 2."),
    ],
)
def test_one_way_out_is_not_called_several(monkeypatch, ways, says):
    monkeypatch.setattr(remedies, "_ways_to_train", lambda seen: iter(ways))
    trains = StageEstimate("sft", {}, trains=True)
    assert remedies.ways_to_fit(SimpleNamespace(machine=SimpleNamespace(num_gpus=0)), trains) == says
