"""Value expressions to code: each emits what it needs into a block and gives the operand with its value."""

from __future__ import annotations

from transforms.mapping import language as l
from transforms.mapping.convert import fit
from transforms.mapping.emitter import Block, Emitter, Operand, Want


def value(em: Emitter, expression: l.Expression, block: Block, want: Want | None = None) -> Operand:
    """The operand with an expression's value, fitted to what is wanted. Null is always possible."""
    from transforms.mapping.expressions import EMITTERS  # they call this function in turn, for what is inside them

    return EMITTERS[type(expression)](em, expression, block, want)


def fitted(em: Emitter, operand: Operand, expression: l.Expression, block: Block, want: Want | None) -> Operand:
    """The operand as what is wanted, if anything is."""
    return operand if want is None else fit(em, operand, want, block, expression.node)
