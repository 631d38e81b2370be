"""The `push:` section: what is published."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.recipe.base import RepoId, Strict


class PushConfig(Strict):
    """Stage 5: publish the student, and optionally the kept traces, on the Hugging Face Hub."""

    repo: RepoId
    """Model repository on the Hub (`org/name`); created if it does not exist."""
    round: str | None = None
    """In a recipe with `rounds:`, whose model is published. Default: the last round that makes one."""
    private: bool = True
    """Create repositories as private. An existing one keeps its visibility; with `true`, a public one is an error."""
    dataset: RepoId | None = None
    """Dataset repository for the kept traces. Default: they are not published."""
    dropped: bool = False
    """Also publish dropped traces with their reasons, as a separate configuration; only with `dataset:`."""
    license: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] | None = None
    """Licence of the student, as a Hub identifier. Default: the base model's."""
    adapter: bool = True
    """With LoRA, publish the adapter beside the merged weights (in `adapter/`)."""
    checkpoints: bool = False
    """Also publish the training checkpoints, each as a branch `step-N`; training then keeps all of them."""
    accept_licence: bool = False
    """Push even though a licence forbids training on the teacher's output, for example if its owner has agreed."""
    replace_readme: bool = False
    """Replace a README.md on the Hub that distill did not write, or that was edited since."""

    @model_validator(mode="after")
    def _repositories_differ(self) -> Self:
        if self.dropped and self.dataset is None:
            raise ValueError("dropped: true needs dataset: org/name, the repository for the dropped traces")
        return self
