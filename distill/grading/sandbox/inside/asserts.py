"""Test code rewritten so that its assertions tell what they compared."""

import ast
from collections.abc import Callable, Collection

_LEFT, _RIGHT, _HOLDS, _ERROR = "_distill_left", "_distill_right", "_distill_holds", "_distill_error"
FUNCTION = "_distill_function"
"""Stands for the program's function in the source of an expression that the program's process works out."""
_OF_PLAIN_VALUES = frozenset(
    name
    for kind in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
    for name in dir(kind)
)


def rewritten(code: str, names: Collection[str]) -> tuple[ast.Module, bool, dict[int, bool]]:
    """Return test code as a tree, whether it takes results of the program apart: `f(1).name`, `f(1)(2)`, and the lines
    where a variable gets a result that need not be plain.

    Each with whether it cannot be plain: the test takes an attribute that no plain value has (`root = Node(1)`,
    `root.left`). Other such variables are only handed to functions of the program.

    An assertion that does not hold raises `testing.Failed` there.

    Args:
        code: the test code.
        names: functions of the program.
    """
    tree = ast.parse(code)
    functions = {*names, "candidate"}  # what HumanEval calls the function that its `check` is given

    def takes_apart(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr not in _OF_PLAIN_VALUES and is_result(node.value)
        return isinstance(node, ast.Call) and is_result(node.func)

    def is_result(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions

    apart = any(map(takes_apart, ast.walk(tree)))
    unplain = _unplain_lines(tree, is_result)
    made: ast.Module = _Asserts().visit(tree)
    return made, apart, unplain


def _unplain_lines(tree: ast.Module, is_result: Callable[[ast.AST], bool]) -> dict[int, bool]:
    nodes = list(ast.walk(tree))
    kept = [node for node in nodes if isinstance(node, ast.Assign) and is_result(node.value)]
    variables = {one.id for node in kept for one in node.targets if isinstance(one, ast.Name)}
    attributes = [one for one in nodes if isinstance(one, ast.Attribute) and one.attr not in _OF_PLAIN_VALUES]

    def is_variable(node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in variables

    handed_on = [one for node in nodes if isinstance(node, ast.Call) and is_result(node) for one in node.args]
    is_object = any(is_variable(one.value) for one in attributes)
    if is_object or sum(map(is_variable, handed_on)) == sum(map(is_variable, nodes)):
        return {node.value.lineno: is_object for node in kept}
    return {}


class _Asserts(ast.NodeTransformer):
    """Have assertions tell what they compared."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        line, test = ast.Constant(node.lineno), node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            compared = ast.Compare(_name(_LEFT), test.ops, [_name(_RIGHT)])
            made = [
                _call("_distill_hold"),
                _worked_out(_LEFT, test.left),
                _worked_out(_RIGHT, test.comparators[0]),
                ast.Assign([ast.Name(_HOLDS, ast.Store())], compared),
                _call("_distill_release"),
                _unless(_name(_HOLDS), line, _name(_LEFT), _name(_RIGHT), ast.Constant(True)),
            ]
        else:
            made = [_unless(test, line)]
        return [ast.fix_missing_locations(ast.copy_location(one, node)) for one in made]


def _worked_out(name: str, side: ast.expr) -> ast.stmt:
    """Return the statement that works out one side, or has the program's process do so where its result is not plain.

    That is only done for a call and what is taken from its result, except by the attributes of plain values: a program
    could guess what their methods return (`f(1).startswith("a") == True`). Other arithmetic is never done where the
    program could redefine it.
    """
    plain = ast.Assign([ast.Name(name, ast.Store())], side)
    root, is_of_plain_value = side, False
    while isinstance(root, ast.Attribute | ast.Subscript | ast.Call) and not _is_call_by_name(root):
        is_of_plain_value |= isinstance(root, ast.Attribute) and root.attr in _OF_PLAIN_VALUES
        root = root.func if isinstance(root, ast.Call) else root.value
    if not _is_call_by_name(root) or is_of_plain_value:
        return plain
    function = root.func.id  # type: ignore[attr-defined]
    root.func.id = FUNCTION  # type: ignore[attr-defined]
    source = ast.unparse(side)
    root.func.id = function  # type: ignore[attr-defined]
    arguments = [_name(function), _name(_ERROR), ast.Constant(source)]
    rescued = ast.Call(_name("_distill_rescue"), arguments, [])
    handler = ast.ExceptHandler(_name("_distill_rescued"), _ERROR, [ast.Assign([ast.Name(name, ast.Store())], rescued)])
    return ast.Try([plain], [handler], [], [])


def _is_call_by_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _call(name: str) -> ast.stmt:
    return ast.Expr(ast.Call(_name(name), [], []))


def _unless(test: ast.expr, *arguments: ast.expr) -> ast.stmt:
    return ast.If(
        ast.UnaryOp(ast.Not(), test), [ast.Raise(ast.Call(_name("_distill_Failed"), list(arguments), []))], []
    )
