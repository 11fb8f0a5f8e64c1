"""The success and failure conditions of an AnalysisTemplate: the part of Argo's expressions that ours use.

`result` is a vector as a list of numbers, or one number. Numbers, `&& || !`, comparisons, arithmetic, `result[n]`,
`len`, `isNaN`, `isInf`, `true` and `false` are known; anything else is refused when a template is read, not when a
canary waits for its verdict.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.rollout.errors import RolloutError

Result = list[float] | float
FUNCTIONS: dict[str, Callable[[Any], Any]] = {"len": len, "isNaN": math.isnan, "isInf": math.isinf}
NAMES = {"true": True, "false": False}
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
COMPUTE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class NotEvaluated(Exception):
    """The condition cannot be answered for this result: Argo counts the measurement as an error."""


@dataclass(frozen=True)
class Condition:
    """A condition that was understood; `holds` evaluates it."""

    text: str
    _tree: ast.expr

    @property
    def shown(self) -> str:
        """For people: what every one of ours begins with is said as `a value`."""
        return self.text.replace("len(result) > 0 && result[0]", "a value")

    def holds(self, result: Result) -> bool:
        """Raises NotEvaluated, as for `result[0]` of an empty vector."""
        try:
            found = _value(self._tree, result)
        except (ArithmeticError, IndexError, TypeError) as error:
            raise NotEvaluated(f"{self.text!r} for {result!r}: {error}") from None
        if not isinstance(found, bool):
            raise NotEvaluated(f"{self.text!r} gives {found!r}, not true or false")
        return found


def condition(text: str) -> Condition:
    """Raises RolloutError, naming what it does not know."""
    python = re.sub(r"!(?!=)", " not ", text.replace("&&", " and ").replace("||", " or "))
    try:
        tree = ast.parse(python.strip(), mode="eval").body
    except SyntaxError as error:
        raise RolloutError(f"condition {text!r} cannot be read: {error.msg}") from None
    _check(tree, text)
    return Condition(text, tree)


def _check(node: ast.expr, text: str) -> None:
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return
        case ast.Name(id=name) if name == "result" or name in NAMES:
            return
        case ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=part):
            parts = [part]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in COMPUTE:
            parts = [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
            parts = [left, right]
        case ast.Subscript(value=ast.Name(id="result"), slice=part):
            parts = [part]
        case ast.Call(func=ast.Name(id=name), args=[part], keywords=[]) if name in FUNCTIONS:
            parts = [part]
        case _:
            raise RolloutError(
                f"condition {text!r}: {ast.unparse(node)!r} is not evaluated on a laptop; known are numbers, && || !, "
                f"comparisons, + - * /, result, result[n], {', '.join(FUNCTIONS)}"
            )
    for part in parts:
        _check(part, text)


def _value(node: ast.expr, result: Result) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return result if name == "result" else NAMES[name]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, result) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, result) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _value(part, result)
        case ast.UnaryOp(operand=part):
            return -_value(part, result)
        case ast.BinOp(left=left, op=op, right=right):
            return COMPUTE[type(op)](_value(left, result), _value(right, result))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return COMPARE[type(op)](_value(left, result), _value(right, result))
        case ast.Subscript(slice=part):
            return result[_value(part, result)]  # type: ignore[index]
        case ast.Call(func=ast.Name(id=name), args=[part]):
            return FUNCTIONS[name](_value(part, result))
    raise AssertionError(ast.dump(node))
