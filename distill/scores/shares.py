"""A pooled share of things of which a problem may have several, with its interval and what missing ones could change.

pooled_share({"q1": [1.0, 0.0], "q2": [1.0, None]})  ->  value 2/3, interval (0.2, 0.94), bounds (0.5, 0.75)
"""

from collections.abc import Mapping, Sequence

from distill.results.eval import Figure
from distill.scores.intervals import weighted_interval


def pooled_share(outcomes: Mapping[str, Sequence[float | None]]) -> Figure | None:
    """Return the share over all outcomes; `None` if none is known.

    Args:
        outcomes: problem -> its outcomes, in [0, 1]; `None` for one that is missing or could not be told.
    """
    known = {name: [one for one in several if one is not None] for name, several in outcomes.items()}
    known = {name: several for name, several in known.items() if several}
    if not known:
        return None
    num_known = sum(map(len, known.values()))
    num_all = sum(map(len, outcomes.values()))
    total = sum(map(sum, known.values()))
    names = sorted(known)
    interval = weighted_interval([sum(known[n]) / len(known[n]) for n in names], [len(known[n]) for n in names])
    if num_all == num_known:
        return Figure(value=total / num_known, interval_95=interval)
    bounds = (total / num_all, (total + num_all - num_known) / num_all)
    return Figure(value=total / num_known, interval_95=interval, bounds=bounds)
