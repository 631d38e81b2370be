"""`push:`: what is published."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from distill.recipe.base import RepoId, Strict


class PushConfig(Strict):
    """Stage 5: student, and if asked the kept traces, go to the Hugging Face Hub."""

    repo: RepoId
    """Model repository on the Hub (`org/name`); created if it does not exist."""
    private: bool = True
    """Create repositories as private. An existing one keeps its visibility; with `true`, a public one is refused."""
    dataset: RepoId | None = None
    """Dataset repository for the kept traces; left out: they are not published."""
    dropped: bool = False
    """Publish dropped traces too, each with its reasons, as a configuration of their own; only with `dataset:`."""
    license: Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")] | None = None
    """Licence of the student, by its Hub identifier; left out: the base model's."""
    adapter: bool = True
    """With LoRA, publish the adapter beside the merged weights (in `adapter/`)."""
    checkpoints: bool = False
    """Publish training's checkpoints too, each as a branch `step-N`; training then keeps them all."""
    accept_licence: bool = False
    """Push although a licence forbids training on the teacher's output: you have an agreement with its owner."""
    replace_readme: bool = False
    """Replace a README.md on the Hub that distill did not write, or that was edited since."""

    @model_validator(mode="after")
    def _repositories_differ(self) -> Self:
        if self.dropped and self.dataset is None:
            raise ValueError("dropped: true needs dataset: org/name, which is where dropped traces would go")
        return self
