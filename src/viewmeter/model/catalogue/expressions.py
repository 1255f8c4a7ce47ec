"""Formulas as data: a small tree over column names that can be evaluated, listed and written in words.

In: measures and numbers, combined with `+ - * /` and the functions below. Out: `evaluate` over numpy columns (any
engine's merged measures), `columns()` for the planner and `text()` for the reference page. A value over nothing
(x/0) is NaN, which answers as null.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
Columns = Mapping[str, Column]


class Expr:
    """A formula over columns. Subclasses say how it evaluates and how it reads."""

    def evaluate(self, columns: Columns) -> Column:
        """Return the value for each row; NaN where the formula has no value."""
        raise NotImplementedError

    def columns(self) -> frozenset[str]:
        """Return the names of the columns that the formula reads."""
        raise NotImplementedError

    def text(self) -> str:
        """Return the formula as a person would write it; parts that have a name by their names."""
        raise NotImplementedError

    def within(self) -> tuple[Expr, ...]:
        """Return the formulas that it is made of."""
        return ()

    def named(self) -> dict[str, Expr]:
        """Return the parts that `text` calls by name, each with its formula; what a part needs stands behind it."""
        found: dict[str, Expr] = {}
        for part in self.within():
            if isinstance(part, Part):
                found[part.name] = part.of
        for part in self.within():
            found |= {name: of for name, of in part.named().items() if name not in found}
        return found

    def __add__(self, other: Operand) -> Expr:
        return Binary("+", self, _lift(other))

    def __radd__(self, other: Operand) -> Expr:
        return Binary("+", _lift(other), self)

    def __sub__(self, other: Operand) -> Expr:
        return Binary("−", self, _lift(other))

    def __rsub__(self, other: Operand) -> Expr:
        return Binary("−", _lift(other), self)

    def __mul__(self, other: Operand) -> Expr:
        return Binary("·", self, _lift(other))

    def __rmul__(self, other: Operand) -> Expr:
        return Binary("·", _lift(other), self)

    def __truediv__(self, other: Operand) -> Expr:
        return Binary("/", self, _lift(other))

    def __rtruediv__(self, other: Operand) -> Expr:
        return Binary("/", _lift(other), self)


Operand = Expr | float | int


@dataclass(frozen=True)
class Ref(Expr):
    """A column by its name."""

    name: str

    def evaluate(self, columns: Columns) -> Column:
        """Return the column itself."""
        return columns[self.name]

    def columns(self) -> frozenset[str]:
        """Return the one name."""
        return frozenset((self.name,))

    def text(self) -> str:
        """Return the name."""
        return self.name


@dataclass(frozen=True)
class Const(Expr):
    """A number."""

    value: float

    def evaluate(self, columns: Columns) -> Column:  # noqa: ARG002 - a number is the same over any columns
        """Return the number, broadcastable to any row count."""
        return np.asarray(self.value, dtype=np.float64)

    def columns(self) -> frozenset[str]:
        """Return nothing: a number reads no column."""
        return frozenset()

    def text(self) -> str:
        """Return the number in its shortest form."""
        return f"{self.value:g}"


_OPERATIONS: Final[dict[str, Callable[[Column, Column], Column]]] = {
    "+": operator.add,
    "−": operator.sub,
    "·": operator.mul,
}
_BINDS: Final = {"+": 1, "−": 1, "·": 2, "/": 2}


@dataclass(frozen=True)
class Binary(Expr):
    """Two formulas and a sign between them. Division over nothing is NaN."""

    sign: str
    left: Expr
    right: Expr

    def evaluate(self, columns: Columns) -> Column:
        """Return the combination row by row."""
        left, right = self.left.evaluate(columns), self.right.evaluate(columns)
        if self.sign != "/":
            return _OPERATIONS[self.sign](left, right)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(right == 0, np.nan, np.divide(left, right))

    def columns(self) -> frozenset[str]:
        """Return the names of both sides."""
        return self.left.columns() | self.right.columns()

    def text(self) -> str:
        """Return both sides, in brackets where the order of reading needs them."""
        left, right = self.left.text(), self.right.text()
        if isinstance(self.left, Binary) and _BINDS[self.left.sign] < _BINDS[self.sign]:
            left = f"({left})"
        # Sums and products of equals need no brackets; a − (b − c) and a / (b · c) do.
        if isinstance(self.right, Binary) and not (
            _BINDS[self.right.sign] > _BINDS[self.sign] or self.right.sign == self.sign in ("+", "·")
        ):
            right = f"({right})"
        return f"{left} {self.sign} {right}"

    def within(self) -> tuple[Expr, ...]:
        """Return both sides."""
        return (self.left, self.right)


@dataclass(frozen=True)
class Call(Expr):
    """A function of one formula: `sqrt`, `exp`, or `known` (1 where there is a value, 0 where there is none)."""

    function: str
    argument: Expr

    def evaluate(self, columns: Columns) -> Column:
        """Return the function's value row by row."""
        value = self.argument.evaluate(columns)
        if self.function == "known":
            return np.where(np.isnan(value), 0.0, 1.0)
        if self.function == "or_zero":
            return np.nan_to_num(value, nan=0.0)
        if self.function == "at_least_zero":
            return np.maximum(value, 0.0)
        ufunc: Callable[[Column], Column] = {"sqrt": np.sqrt, "exp": np.exp}[self.function]
        return ufunc(value)

    def columns(self) -> frozenset[str]:
        """Return the argument's names."""
        return self.argument.columns()

    def text(self) -> str:
        """Return the call as written."""
        return f"{self.function}({self.argument.text()})"

    def within(self) -> tuple[Expr, ...]:
        """Return the argument."""
        return (self.argument,)


@dataclass(frozen=True)
class Part(Expr):
    """A formula with a name, by which larger formulas call it: a score of six lines reads as three words."""

    name: str
    of: Expr

    def evaluate(self, columns: Columns) -> Column:
        """Return the formula's value row by row."""
        return self.of.evaluate(columns)

    def columns(self) -> frozenset[str]:
        """Return the formula's columns."""
        return self.of.columns()

    def text(self) -> str:
        """Return the name."""
        return self.name

    def within(self) -> tuple[Expr, ...]:
        """Return the formula."""
        return (self.of,)


def sqrt(value: Expr) -> Expr:
    """Return the square root."""
    return Call("sqrt", value)


def exp(value: Expr) -> Expr:
    """Return e to the power of the value."""
    return Call("exp", value)


def at_least_zero(value: Expr) -> Expr:
    """Return the value, or 0 where it is below (NaN stays NaN)."""
    return Call("at_least_zero", value)


def known(value: Expr) -> Expr:
    """Return 1 where the value exists, else 0."""
    return Call("known", value)


def or_zero(value: Expr) -> Expr:
    """Return the value, or 0 where it does not exist. Only for weighting by `known`."""
    return Call("or_zero", value)


def _lift(value: Operand) -> Expr:
    return value if isinstance(value, Expr) else Const(float(value))
