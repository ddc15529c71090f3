"""Errors a user can mend, in words."""

from __future__ import annotations

from collections.abc import Sequence

from schemas import SchemaError
from transforms.credentials import CredentialError
from transforms.letter_stores import LetterError
from transforms.located import Problem, Problems
from transforms.read import NoInput


def explained(error: BaseException) -> list[str] | None:
    """The lines to show for an error that input, credentials, schemas or the relay file caused; None for a bug."""
    if isinstance(error, Problems):
        return [str(problem) for problem in error.problems]
    if isinstance(error, CredentialError | SchemaError | NoInput | LetterError):
        return [str(error)]
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else str(error)]
    if error.__cause__ is not None:
        return explained(error.__cause__)
    return None


def warned(warnings: Sequence[Problem]) -> list[str]:
    """The lines to show for a relay file's warnings: what is said of several keys is said once."""
    same: dict[tuple[str, str], list[Problem]] = {}
    for warning in warnings:
        same.setdefault((warning.file, warning.message), []).append(warning)
    lines = []
    for first, *others in same.values():
        shown = str(first)
        if others:
            also = ", ".join(f"{other.key} (line {other.line})" for other in others)
            shown += f"; so it is with {also}"
        lines.append(f"warning: {shown}")
    return lines
