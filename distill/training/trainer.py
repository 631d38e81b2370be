"""TRL's SFTTrainer with `StepBatches` as the sampler and sealed checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl.trainer.sft_trainer import SFTTrainer

from distill.training.batches import StepBatches
from distill.training.checkpoints import CheckpointSealer
from distill.training.layout import Layout


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer for token rows, the last of which is the empty row that `StepBatches` fills up with."""

    def __init__(
        self,
        layout: Layout,
        lengths: Sequence[int],
        owner: str,
        num_kept: int | None,
        group_by_length: bool,
        **arguments: Any,
    ) -> None:
        """Create the trainer.

        Args:
            layout: processes, rows per pass, accumulation.
            lengths: tokens of each row, without the empty one.
            owner: fingerprint stored with checkpoints.
            num_kept: number of newest checkpoints to keep; `None`: all.
            group_by_length: whether to put rows of similar length into a micro-batch.
            arguments: SFTTrainer's own.
        """
        self._layout, self._lengths, self._group = layout, lengths, group_by_length
        self._sealing = CheckpointSealer(owner, num_kept)
        super().__init__(**arguments)

    def batches(self) -> StepBatches:
        """Return this rank's micro-batches, at epoch 0."""
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
        # The Trainer does not shard a BatchRebalanceSampler by rank again.
        self._sampler = self.batches()
        return self._sampler

    def _run_epoch(self, *, epoch: int, **arguments: Any) -> None:
        # When several processes resume within an epoch, the sampler has one more wrapper than the Trainer's set_epoch
        # looks through, so they would skip and repeat rows of epoch 0.
        self._sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **arguments)

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train; all checkpoints are sealed on return."""
        with self._sealing:
            return super().train(*arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        self._sealing.check()
        return super().training_step(*arguments, **named)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # One at a time, so that the previous checkpoint is complete whatever happens to this one.
        self._sealing.finish()
        super()._save_checkpoint(model, trial)
        # Other processes write files of their own into the checkpoint.
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._sealing.start(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
