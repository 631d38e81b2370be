"""accelerate offers FSDP on GPUs alone: on CPU, the branch that picks the kind of distribution is replaced."""

import accelerate.state as state
from accelerate.utils import DistributedType

original = state.AcceleratorState.__init__


def shared_on_cpu(self, *args, fsdp_plugin=None, **more):
    original(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = self.distributed_type


state.AcceleratorState.__init__ = shared_on_cpu
