"""Hands hostile answers to every task of reasoning-gym, in this very process, and reports whatever ran of them.

    PYTHONHASHSEED=0 python tests/grading/fuzz_gym_tasks.py MARKER [--unread]

The last line is JSON: the number of tasks and answers, what ran, and what took too long. It is a program of its own: an
audit hook cannot be removed again, and the wall that would keep an attack from doing anything must not stand here. With
`--unread`, tasks that evaluate get their answers as they are, which shows that what runs is seen.
"""

import builtins
import contextlib
import json
import resource
import signal
import sys
import types
from dataclasses import replace

from distill.core.records import Problem
from distill.grading import gym
from distill.grading.gym_tasks import gym_questions, import_gym
from distill.isolation import server

MARKER = sys.argv[1]
CANARY = "canary_of_this_test"
CALL = f"{CANARY}('x')"
SYSTEM = f"__import__('os').system('touch {MARKER}')"
QUOTED = json.dumps(SYSTEM)
ANSWERS = {
    "call": CALL,
    "system": SYSTEM,
    "quoted call": QUOTED,
    "list of a quoted call": f"[{QUOTED}]",
    "nested lists": f"[[{QUOTED}], [[{QUOTED}]]]",
    "tuple": f"({QUOTED}, 1)",
    "set": f"{{{QUOTED}}}",
    "key": f"{{{QUOTED}: 1}}",
    "value": f'{{"a": {QUOTED}}}',
    "list of letters and a call": f"['a', {CALL}]",
    "bytes": f"b{QUOTED}",
    "f-string": f'f"{{{SYSTEM}}}"',
    "f-string in a list": f'[f"{{{CALL}}}"]',
    "nested quotes": json.dumps(QUOTED),
    "formatted text": f"'%s' % ({CALL},)",
    "text times a number": f"{QUOTED} * 1",
    "sum of texts": f"'{CANARY}' + '(1)'",
    "added to a number": f"1 + {QUOTED}",
    "walrus": f"(a := {CALL})",
    "walrus in a list": f"[a := {CANARY}, a('x')]",
    "dunder": f"().__class__.__base__.__subclasses__()[0].__init__.__globals__[{QUOTED}]",
    "attribute": f"x.__class__.{CANARY}",
    "method of sympy": f"x.subs(x, {QUOTED})",
    "sympify": f"sympify({QUOTED})",
    "S": f"S({QUOTED})",
    "Symbol": f"Symbol({QUOTED})",
    "lambdify": f"lambdify(x, {QUOTED})({CANARY})",
    "parse_expr": f"parse_expr({QUOTED})",
    "known function of a text": f"sin({QUOTED})",
    "known function of a call": f"sin({CALL})",
    "unknown keyword": f"sin(x, evaluate={CALL})",
    "starred": f"sin(*[{CALL}])",
    "comprehension": f"[{CANARY}(a) for a in 'x']",
    "generator": f"sum({CANARY}(a) for a in 'x')",
    "comprehension that renames": f"[sin('x') for sin in [{CANARY}]]",
    "lambda": f"(lambda: {CALL})()",
    "conditional": f"{CALL} if 1 else 2",
    "comparison": f"1 < {CALL}",
    "and": f"1 and {CALL}",
    "subscript": f"[{CANARY}][0]('x')",
    "slice": f"'x'[{CALL}:]",
    "await": f"await {CALL}",
    "yield": f"(yield {CALL})",
    "comment": f"1 #\n+ {CALL}",
    "continued line": f"1 \\\n+ {CALL}",
    "semicolon": f"1; {CALL}",
    "import": f"import os; os.system('touch {MARKER}')",
    "other letters": f"{CANARY[:-1]}\N{MATHEMATICAL BOLD SMALL T}('x')",
    "implied product": f"2{CALL}",
    "LaTeX text": rf"\text{{{CALL}}}",
    "LaTeX operator": rf"\operatorname{{{CANARY}}}('x')",
    "LaTeX fraction": rf"\frac{{{CALL}}}{{2}}",
    "LaTeX in quotes": rf"\text{{{QUOTED}}}",
    "exponents": "9**9**9**9",
    "exponent": "x**99999999",
    "LaTeX exponents": "9^{9^{9^{9}}}",
    "many digits": "9" * 9_000,
    "exponent notation": "1e999999999",
    "moves without end": "R999999999",
    "factorials": "9!!!!!!",
    "brackets": "(" * 20_000 + "1" + ")" * 20_000,
    "lists": "[" * 20_000 + "]" * 20_000,
    "JSON lists": "[" * 90 + "1" + "]" * 90,
    "signs": "-" * 9_000 + "1",
    "sums": "1" + "+1" * 4_900,
    "powers": "x" + "**x" * 900,
    "long": "a" * 500_000,
    "long list": "[" + "1," * 200_000 + "1]",
    "null": "1\0 + 2",
    "surrogate": "\ud800(1)",
    "path": "/etc/passwd",
    "URL": "file:///etc/passwd",
    "pickle": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu",
}
BANNED_EVENTS = frozenset(
    {
        *("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "subprocess.Popen"),
        *("pickle.find_class", "marshal.loads", "socket.connect", "urllib.Request", "ctypes.dlopen"),
    }
)
LIMIT_S, LIMIT_BYTES = 2, 3 << 30

ran: list[str] = []
now = ""


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note what an answer must never bring about."""
    if event == "exec" and isinstance(arguments[0], types.CodeType) and holds_canary(arguments[0]):
        ran.append(f"{now}: evaluated")
    elif now and event in BANNED_EVENTS:
        ran.append(f"{now}: {event}")
    elif event == "open" and now and str(arguments[0]) in (MARKER, "/etc/passwd"):
        ran.append(f"{now}: opened {arguments[0]}")
    elif event == "open" and now and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        ran.append(f"{now}: opened {arguments[0]} to write")


def holds_canary(code: types.CodeType) -> bool:
    """Whether a piece of code speaks of the canary or of the marker."""
    texts = [*code.co_names, *map(repr, code.co_consts)]
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return any(CANARY in text or MARKER in text for text in texts) or any(map(holds_canary, inner))


def called(*_: object) -> str:
    """Note that the canary was called."""
    ran.append(f"{now}: called")
    return "1"


def main() -> None:
    """Try every answer on every task."""
    global now
    server._wall = "bubblewrap"  # scores here, as a confined process does
    setattr(builtins, CANARY, called)
    slow: list[str] = []
    signal.signal(signal.SIGALRM, too_late)
    answers = ANSWERS
    tasks = sorted(import_gym().DATASETS.keys() - {"composite"})  # which cannot be made from plain options
    if "--unread" in sys.argv:
        tasks = sorted(gym.EVALUATING)
        gym.as_expression = gym.as_list = lambda answer, *_: answer
        answers = {name: ANSWERS[name] for name in ("call", "system", "quoted call", "list of a quoted call")}
    problems = [made_problem(task) for task in tasks]
    for problem in problems:
        with contextlib.suppress(Exception):
            gym.gym_score(problem, "0")  # whatever is imported late
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))  # as the pool does
    sys.addaudithook(watch)
    for problem in problems:
        tried = [(problem, name, answer) for name, answer in answers.items()]
        for gold in (SYSTEM, QUOTED, CALL):  # a problem of somebody else's, whose entry is another one
            tried += [
                (replace(problem, prompt=[], answer=gold), f"gold {gold}", answer) for answer in ("1", "[1]", gold)
            ]
        for asked, name, answer in tried:
            now = f"{problem.source}, {name}"
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
            try:
                if gym.gym_score(asked, answer) >= gym.FULL_SCORE and asked is problem:
                    ran.append(f"{now}: counted as right")
            except TooLateError:
                slow.append(now)
            except Exception as error:  # the pool calls it a crash
                del error
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        now = ""
    print(json.dumps({"tasks": len(problems), "answers": len(answers), "ran": ran, "slow": slow}))


class TooLateError(BaseException):
    """Raised by the alarm; not an `Exception`, which scorers catch."""


def too_late(*_: object) -> None:
    """End what takes too long."""
    raise TooLateError


def made_problem(task: str) -> Problem:
    """A problem of a task, as `load_problems` makes them."""
    recipe = {"task": task, "options": {}, "size": 1, "seed": 5}
    ((question, answer),) = gym_questions(recipe)
    prompt = [{"role": "user", "content": question}]
    return Problem("p", prompt, answer, "gym", f"gym:{task}", {"gym": {**recipe, "index": 0}})


with contextlib.suppress(KeyboardInterrupt):
    main()
