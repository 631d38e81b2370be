"""Test one program: every test in a fork or a run of its own, what is expected compared outside the sandbox.

run_program_tests("def add(a, b):\\n    return a + b\\n", problem.tests).correct is True
"""

import contextlib
import json
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

from distill.core.records import CodeTests
from distill.grading.code.compare import (
    is_far_longer,
    same_output,
    same_value,
    shown_value,
    voted_output,
    voted_value,
)
from distill.grading.code.cpp_asserts import cpp_assert_outcomes
from distill.grading.code.names import called_names
from distill.grading.code.outcomes import Outcome, Shown, not_finished
from distill.grading.code.programs import prompt_module, python_source, with_methods
from distill.grading.code.verdicts import CodeVerdict, FailedTest, OutputsHash, end_in_words, ungraded
from distill.grading.sandbox import (
    BUBBLEWRAP,
    Backend,
    Callee,
    Limits,
    SandboxError,
    TestsRun,
    run_tests,
    sandbox_fails,
    submission,
)
from distill.grading.sandbox.inside.testing import BY_EITHER, BY_TEST
from distill.grading.sandbox.remote import RemoteSubmission
from distill.grading.sandbox.submission import Submission
from distill.storage.case_files import iter_cases

CODE_VERSION = 3
"""Increment with every change that may alter a verdict on a program."""
MAX_LIMITS_HIT = 3
"""After so many tests beyond a limit the rest count as not passed: each costs its whole limit, twice."""
LIMITS_HIT = ("time_limit", "memory_limit", "output_limit")
MAX_PROGRAM_BYTES = 4 << 20
CHECKER_LIMITS = Limits(cpu_s=20.0)
CHECK = "assert check(stdin, output, expected)"
NOT_RUN = ("bad_tests", "unsplittable")
"""How a checker ends that cannot be run."""
UNPLAIN = "is no plain value"
"""What the tests say of an object of the program's."""


def run_program_tests(
    program: str, tests: CodeTests, backend: Backend = BUBBLEWRAP, weaker: Collection[int] | None = None
) -> CodeVerdict:
    """Return what the tests say of a program.

    Args:
        program: as it stands in the answer.
        tests: the problem's.
        backend: where programs run.
        weaker: numbers of the tests whose assertions may be compared in the program's own process, because the
            problem's own solution needs that; `None`: those that the test itself makes so. A program cannot choose.

    Raises:
        StoreError: the file of the tests is missing or damaged.
    """
    if len(program.encode("utf-8", "replace")) > MAX_PROGRAM_BYTES:
        failed = FailedTest(1, "", "", "", end_in_words("compile_error"), f"longer than {MAX_PROGRAM_BYTES >> 20} MiB")
        return CodeVerdict(False, tests.num, failed=failed)
    if (why := sandbox_fails(backend)) is not None:
        return ungraded(tests.num, "ungraded_sandbox", why)
    try:
        return _tested(program, tests, backend, weaker)
    except SandboxError as error:
        return ungraded(tests.num, "ungraded_sandbox", str(error))


def _tested(program: str, tests: CodeTests, backend: Backend, weaker: Collection[int] | None) -> CodeVerdict:
    num_passed = num_hit = 0
    compared_inside: list[int] = []
    helped: list[int] = []
    failed: FailedTest | None = None
    is_known, outputs = True, OutputsHash()
    with contextlib.closing(_outcomes(program, tests, backend, weaker)) as outcomes:
        for number, outcome in enumerate(outcomes, start=1):
            if outcome.reason and failed is None:
                return ungraded(tests.num, outcome.reason, f"test {number}: {outcome.detail}")
            num_passed += outcome.passed is True
            compared_inside += [number] * outcome.is_weaker
            helped += [number] * outcome.may_be_helped
            num_hit += outcome.end in LIMITS_HIT
            is_known &= outcome.passed is not None
            outputs.add(outcome.given)
            if outcome.passed is False and failed is None:
                words = end_in_words(outcome.end)
                failed = FailedTest(number, *outcome.test, outcome.got, words, outcome.detail).shortened()
            if outcome.end == "compile_error" or num_hit >= MAX_LIMITS_HIT:
                outputs.add(None)
                break
    if failed is None and not is_known:
        why = "the expected output of some tests is not known"
        return replace(ungraded(tests.num, "ungraded_gold", why), outputs=outputs.text())
    found = CodeVerdict(failed is None, tests.num, num_passed, tuple(compared_inside), tuple(helped), failed)
    return replace(found, outputs=outputs.text())


def _outcomes(program: str, tests: CodeTests, backend: Backend, weaker: Collection[int] | None) -> Generator[Outcome]:
    """Yield the outcome of each test in order."""
    limits = Limits(cpu_s=tests.time_s, memory_mib=tests.memory_mib)
    if tests.language == "cpp":
        yield from _cpp_outcomes(program, tests, limits, backend)
        return
    source = python_source(program, tests)
    functions = frozenset(_functions(tests))
    source = with_methods(source, functions)
    with submission("python", source, backend=backend) as one:
        for number, case in enumerate(iter_cases(tests), start=1):
            if case["kind"] == "stdin":
                yield _of_stdin(one, case, tests, limits)
            elif case["kind"] == "call":
                yield _of_call(one, case, limits)
            else:
                outcome = _of_asserts(one, case, tests, limits, None if weaker is None else number in weaker)
                yield outcome._replace(may_be_helped=_may_be_helped(case, tests))


def _functions(tests: CodeTests) -> Iterator[str]:
    """Yield the functions that calls name; those of assertions are found when they run."""
    if tests.entry_point:
        yield tests.entry_point
    for case in iter_cases(tests):
        if case["kind"] != "call":
            return
        yield case["function"]


def _of_stdin(one: Submission | RemoteSubmission, case: Mapping[str, Any], tests: CodeTests, limits: Limits) -> Outcome:
    done = one.run(case["stdin"].encode("utf-8", "replace"), limits)
    wanted = _wanted(case)
    test = Shown(case["stdin"], wanted[0] or "")
    if done.end != "finished":
        return not_finished(done, test)
    output = done.stdout.decode("utf-8", "replace")
    if wanted == [None]:
        return Outcome(None, "finished", test, output, given=voted_output(output))
    right = [one for one in wanted if one is not None]
    is_long = is_far_longer(output, right)
    passed = not is_long and any(same_output(output, one) for one in right)
    if not passed and tests.checker:
        run = _checked(tests, case["stdin"], output, wanted[0] or "")
        if run.end in (*NOT_RUN, "sandbox_error"):
            why = f"its checker cannot be run: {run.detail or run.end}"
            return Outcome(None, "finished", reason=_fault(run.end), detail=why)
        passed = run.end == "finished"
    return Outcome(passed, "finished", test, output, done.detail, None if is_long else voted_output(output))


def _no_program() -> Any:
    raise SandboxError("a checker calls no function of the program")


def _checked(tests: CodeTests, stdin: str, output: str, expected: str) -> TestsRun:
    """Have the problem's checker look at an output, in the tests' process.

    A checker that runs with the expected output can be run: else a program could choose, by an output that its checker
    cannot read, to be ungraded rather than wrong.
    """
    run = _check(tests, stdin, output, expected)
    if run.end in NOT_RUN and _check(tests, stdin, expected, expected).end not in (*NOT_RUN, "sandbox_error"):
        return replace(run, end="failed")
    return run


def _check(tests: CodeTests, stdin: str, output: str, expected: str) -> TestsRun:
    given = {"stdin": stdin, "output": output, "expected": expected}
    try:
        return run_tests(
            CHECK, tests.checker, (), Callee(_no_program, _no_program, CHECKER_LIMITS), CHECKER_LIMITS, given
        )
    except ValueError as error:
        return TestsRun("bad_tests", detail=f"the output cannot be given to it ({error})")


def _wanted(case: Mapping[str, Any]) -> list[Any]:
    """Return the results that are right."""
    return list(case["accepted"]) if "accepted" in case else [case.get("expected")]


def _of_call(one: Submission | RemoteSubmission, case: Mapping[str, Any], limits: Limits) -> Outcome:
    arguments, wanted = list(case["arguments"]), _wanted(case)
    shown = ", ".join(json.dumps(value, ensure_ascii=False) for value in arguments)
    test = Shown(f"{case['function']}({shown})", json.dumps(wanted[0], ensure_ascii=False))
    try:
        with one.test(limits) as callee:
            done = callee.call(case["function"], arguments, {})
    except ValueError as error:
        return Outcome(None, "bad_tests", reason="ungraded_gold", detail=f"its arguments cannot be sent: {error}")
    if done.end != "finished":
        return not_finished(done, test)
    if done.value is None:
        return Outcome(False, "finished", test, done.detail or "no plain value")
    value = done.value.plain
    passed = any(same_value(value, other) for other in wanted)
    return Outcome(passed, "finished", test, shown_value(value), given=voted_value(value))


def _of_asserts(
    one: Submission | RemoteSubmission,
    case: Mapping[str, Any],
    tests: CodeTests,
    limits: Limits,
    may_be_weaker: bool | None,
) -> Outcome:
    prompt, setup = prompt_module(tests.prompt) if tests.prompt else "", case.get("setup", "")
    run = _run(one, case["code"], _joined(prompt, setup), tests, limits)
    if run.end == "bad_tests" and setup and run.detail.startswith("NameError"):  # of a class of the program's
        run = _run(one, _joined(setup, case["code"]), prompt, tests, limits)
    test = Shown(run.line or case["code"], run.expected or "")
    if run.end == "unsplittable" or (run.end == "failed" and UNPLAIN in f"{run.got} {run.detail}"):
        if may_be_weaker or (may_be_weaker is None and run.by == BY_TEST):
            return _weaker(one, case, limits, test)
        if may_be_weaker is None and run.by == BY_EITHER:
            why = f"it cannot be split, and no solution of the problem's own tells whether it has to be: {run.detail}"
            return Outcome(None, run.end, reason="ungraded_gold", detail=why)
        return Outcome(False, "failed", test, run.got or "", run.detail)
    if run.end in ("bad_tests", "sandbox_error"):
        return Outcome(None, run.end, reason=_fault(run.end), detail=run.detail or run.end)
    if run.end == "finished":
        return Outcome(True, run.end, test, given="passed")
    return Outcome(False, run.end, test, run.got or "", run.detail, run.got)


def _may_be_helped(case: Mapping[str, Any], tests: CodeTests) -> bool:
    """Return whether a function of the program may stand for a helper that the tests lack, such as `isclose`."""
    trusted = _joined(prompt_module(tests.prompt) if tests.prompt else "", case.get("setup", ""))
    return not tests.entry_point and len(called_names(case["code"], trusted)) > 1


def _run(one: Submission | RemoteSubmission, code: str, trusted: str, tests: CodeTests, limits: Limits) -> TestsRun:
    names = (tests.entry_point,) if tests.entry_point else called_names(code, trusted)
    with one.test(limits) as callee:
        return run_tests(code, trusted, names, callee, limits)


def _joined(*parts: str) -> str:
    return "\n".join(filter(None, parts))


def _weaker(one: Submission | RemoteSubmission, case: Mapping[str, Any], limits: Limits, test: Shown) -> Outcome:
    """Return the outcome of assertions that run in the program's own process."""
    with one.test(limits) as callee:
        done = callee.check(_joined(case.get("setup", ""), case["code"]))
    if done.end == "finished":
        return Outcome(True, done.end, test, given="passed", is_weaker=True)
    if done.raised == "AssertionError":
        return Outcome(False, "failed", test, is_weaker=True)
    return not_finished(done, test)._replace(is_weaker=True)


def _fault(end: str) -> str:
    """Return why a program cannot be graded whose tests ended so."""
    return "ungraded_sandbox" if end == "sandbox_error" else "ungraded_gold"


def _cpp_outcomes(program: str, tests: CodeTests, limits: Limits, backend: Backend) -> Generator[Outcome]:
    """Yield the outcomes of a C++ program, which is compiled once for all tests of a kind."""
    kinds = {case["kind"] for case in iter_cases(tests)}
    if kinds == {"stdin"}:
        with submission("cpp", program, backend=backend) as one:
            for case in iter_cases(tests):
                yield _of_stdin(one, case, tests, limits)
    elif kinds == {"asserts"}:
        yield from cpp_assert_outcomes(program, tests, limits, backend)
    else:
        why = f"C++ programs are tested by inputs or by assertions, and these tests are {' and '.join(sorted(kinds))}"
        yield Outcome(None, "bad_tests", reason="ungraded_gold", detail=why)
