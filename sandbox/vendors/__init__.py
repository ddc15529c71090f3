"""The five vendors, each from its own documents."""

from __future__ import annotations

from sandbox.credentials import Credentials
from sandbox.vendors.base import Vendor
from sandbox.vendors.parcelvoy import Parcelvoy
from sandbox.vendors.swrve import Swrve
from sandbox.vendors.teak import Teak
from sandbox.vendors.traitly import Traitly
from sandbox.vendors.twelve_traits import TwelveTraits


def all_vendors(credentials: Credentials, keep: int) -> dict[str, Vendor]:
    """New vendors by path prefix; `keep` bounds what each remembers."""
    vendors: list[Vendor] = [
        TwelveTraits(credentials),
        Traitly(credentials, keep),
        Parcelvoy(credentials),
        Swrve(credentials),
        Teak(credentials),
    ]
    return {vendor.slug: vendor for vendor in vendors}
