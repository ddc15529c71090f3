"""Errors a user can mend, in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from apache_beam.io.filesystem import BeamIOError

from schemas import SchemaError
from transforms.credentials import CredentialError
from transforms.ledger_reader import StateError
from transforms.letter_stores import LetterError
from transforms.located import Problem, Problems
from transforms.read import NoInput
from transforms.subscriber import SubscriptionError


def explained(error: BaseException) -> list[str] | None:
    """The lines to show for an error that input, credentials, schemas or the relay file caused; None for a bug."""
    if getattr(error, "_tagged_with_step", False) and error.__context__ is not None:
        return explained(error.__context__)  # Beam's own, which names the step, in place of what happened there
    if isinstance(error, Problems):
        return [str(problem) for problem in error.problems]
    if isinstance(error, CredentialError | SchemaError | NoInput | StateError | LetterError | SubscriptionError):
        return [str(error)]
    if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError):
        return [f"the ledger in the state folder: {error}; nothing was acknowledged that is not in it"]
    if isinstance(error, BeamIOError):
        return list(_of_store(error))
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else str(error)]
    if error.__cause__ is not None:
        return explained(error.__cause__)
    return None


def _of_store(error: BeamIOError) -> Iterator[str]:
    """The lines of an error of cloud storage: Beam keeps one of each path, and errors inside of errors."""
    details = error.exception_details
    if not isinstance(details, dict) or not details:
        yield str(error)
        return
    for path, inner in details.items():
        while isinstance(inner, BeamIOError) and isinstance(inner.exception_details, dict) and inner.exception_details:
            inner = next(iter(inner.exception_details.values()))
        yield f"{path}: {inner}; it must be there, and whoever runs this be allowed to use it"


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
