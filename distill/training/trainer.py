"""TRL's SFTTrainer with three things of our own: which rows a step has, sealed checkpoints, and an orderly stop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from distill.training.batches import StepBatches
from distill.training.checkpoints import Sealing
from distill.training.layout import Layout


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on token rows, the last of which is the empty one that `StepBatches` fills up with."""

    def __init__(
        self,
        layout: Layout,
        lengths: Sequence[int],
        owner: str,
        num_kept: int | None,
        group_by_length: bool,
        **arguments: Any,
    ) -> None:
        """Take SFTTrainer's `arguments`.

        Args:
            layout: processes, rows at once, accumulation.
            lengths: tokens of each row, the empty one left out.
            owner: fingerprint that checkpoints bear.
            num_kept: checkpoints that stay, the newest; `None`: all.
            group_by_length: whether rows of similar length go through the model together.
            arguments: SFTTrainer's own.
        """
        self._layout, self._lengths, self._group = layout, lengths, group_by_length
        self._sealing = Sealing(owner, num_kept)
        super().__init__(**arguments)

    def batches(self) -> StepBatches:
        """This rank's micro-batches, standing at epoch 0."""
        layout = self._layout
        return StepBatches(
            self._lengths,
            batch_size=layout.batch_size,
            num_ranks=layout.data_parallel,
            accumulation=layout.accumulation,
            rank=self.args.process_index // layout.sequence_parallel,
            seed=self.args.data_seed,
            group_by_length=self._group,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> StepBatches:
        # A kind of BatchRebalanceSampler, so that the Trainer takes it for one that knows its rank.
        self._sampler = self.batches()
        return self._sampler

    def _run_epoch(self, *, epoch: int, **arguments: Any) -> None:
        # Going on amid an epoch, several processes have the sampler wrapped once more than the Trainer looks through:
        # without this they would skip and take the rows of epoch 0 again.
        self._sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **arguments)

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train; all checkpoints are sealed when it returns."""
        with self._sealing:
            return super().train(*arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        self._sealing.check()
        return super().training_step(*arguments, **named)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # One at a time: the checkpoint before is there whole, whatever happens to this one.
        self._sealing.finish()
        super()._save_checkpoint(model, trial)
        # The other processes write files of their own into the checkpoint.
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._sealing.start(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
