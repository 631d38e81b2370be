"""Graded answers per CPU second behind this machine's wall, over the same workers without a wall.

Makes answers that need a worker (sympy, and a reasoning-gym scorer) and has a pool grade them, taking turns: behind the
best wall of this machine, and with limits of memory and file size alone. Time is the CPU time of this process and of
its workers, once they have started, so other jobs on the machine count little.

    python benchmarks/isolation.py [--rounds 7] [--answers 3000] [--workers 2]

The last line is JSON: the ratio of the medians (behind the wall / without) and every round.
"""

import argparse
import json
import random
import statistics
import time

from distill.core.records import Problem
from distill.grading import grade_all
from distill.grading.pool import GradingPool, usage
from distill.isolation.walls import Wall, best_wall
from distill.recipe.problems import ProblemSource
from distill.sources.problems import load_problems


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each (the median counts)")
    parser.add_argument("--answers", type=int, default=3_000, help="answers a round")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    options = parser.parse_args()
    walls: tuple[Wall, ...] = (best_wall(), "rlimits")
    rates: dict[str, list[float]] = {wall: [] for wall in walls}
    answers = made_answers(options.answers)
    for turn in range(options.rounds):
        for wall in walls if turn % 2 == 0 else reversed(walls):
            with GradingPool(options.workers, wall=wall) as pool:
                list(grade_all(answers[: 4 * options.workers], pool))  # starting is not measured
                started = cpu_s(pool)
                list(grade_all(answers, pool))
                rates[wall].append(len(answers) / (cpu_s(pool) - started))
            print(f"{wall:>12}: {rates[wall][-1]:,.0f} answers a CPU second", flush=True)
    medians = {wall: statistics.median(found) for wall, found in rates.items()}
    print(json.dumps({"ratio": medians[walls[0]] / medians["rlimits"], "per_cpu_second": medians, "rounds": rates}))


def cpu_s(pool: GradingPool) -> float:
    """CPU time that this process and the pool's workers have used, in seconds."""
    return time.process_time() + sum(usage(worker.process.pid)[1] for worker in pool._workers)


def made_answers(num: int) -> list[tuple[Problem, str]]:
    """Answers that no comparison of strings settles: half of them mathematics, half of a reasoning-gym task."""
    drawn = random.Random(11)
    gym = load_problems(ProblemSource(source="gym:chain_sum", limit=50), seed=3)
    answers = []
    for number in range(num):
        a, b = drawn.randint(2, 99), drawn.randint(2, 99)
        if number % 2:
            problem = gym[number % len(gym)]
            answers.append((problem, rf"\boxed{{{drawn.randint(10**7, 10**8)}}}"))
        else:
            problem = Problem(f"p{number}", [], rf"\frac{{x+{a}}}{{{b}}}", "math", "made")
            answers.append((problem, rf"\boxed{{\frac{{x}}{{{b}}}+\frac{{{a}}}{{{b}}}}}"))
    return answers


if __name__ == "__main__":
    main()
