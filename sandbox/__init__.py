"""Five vendors' endpoints on one port, for trying and testing: 12traits, Traitly, Parcelvoy, Swrve and Teak.

Each vendor answers under its own path prefix (`/12traits`, `/traitly`, `/parcelvoy`, `/swrve`, `/teak`), as strictly
as its documents. `/` is a page, and `/_sandbox/` an API, that say what arrived, what no correct client would have
sent, and that inject faults. Nothing here knows anything about the relay's own code.

    python -m sandbox --port 9000
"""
