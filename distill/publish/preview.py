"""A plan as text or JSON: the output of `distill push --dry-run`."""

from typing import Any

from distill.core.formatting import size
from distill.publish.markdown import one_line
from distill.publish.plan import Plan, Publication


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan in the schema of `distill push --dry-run --json`."""
    return {
        "schema_version": 1,
        "publications": [
            {
                "kind": one.kind,
                "repo": one.repo,
                "branch": one.branch,
                "private": one.private,
                "num_bytes": one.num_bytes,
                "files": [{"path": f.path, "num_bytes": f.size, "sha256": f.sha256} for f in one.files],
                "card": one.card,
            }
            for one in plan.publications
        ],
        "flags": [flag.to_json() for flag in plan.flags],
        "left_out": list(plan.left_out),
    }


def plan_text(plan: Plan, width: int = 100) -> str:
    """Return the plan as text: each repository with file sizes and card, then what is left out and what to check."""
    parts = [part for publication in plan.publications for part in _publication_lines(publication, width)]
    if plan.left_out:
        parts += ["Not published:", *(f"  {one_line(what)}" for what in plan.left_out), ""]
    if plan.flags:
        parts.append("To look at:")
        for flag in plan.flags:
            parts.append(f"  {'STOPS THE PUSH: ' if flag.level == 'refusal' else ''}{one_line(flag.text)}")
        parts.append("")
    parts.append("This was a dry run: nothing was sent and the Hub was not contacted.")
    return "\n".join(parts)


def _publication_lines(publication: Publication, width: int) -> list[str]:
    seen = "private" if publication.private else "public"
    branch = "" if publication.branch == "main" else f", branch {publication.branch}"
    head = f"{publication.kind} {publication.repo}{branch} ({seen} if new)"
    room = max(len(file.path) for file in publication.files)
    files = [f"  {file.path:<{room}}  {size(file.size):>9}" for file in publication.files]
    total = f"  {f'{len(files)} files':<{room}}  {size(publication.num_bytes):>9}"
    bar = "-" * width
    return [head, "", *files, total, "", f"README.md {bar[10:]}", publication.card.rstrip("\n"), bar, ""]
