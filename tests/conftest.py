"""Fixtures that tests of any folder may ask for."""

from __future__ import annotations

from emulator import emulator as emulator
