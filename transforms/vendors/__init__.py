"""The vendors. Adding one is a module here, its schemas, its tests and one line in `_MODULES`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transforms.vendors.base import Vendor

_MODULES = {
    "12traits": "transforms.vendors.twelve_traits",
    "traitly": "transforms.vendors.traitly",
    "parcelvoy": "transforms.vendors.parcelvoy",
    "swrve": "transforms.vendors.swrve",
    "teak": "transforms.vendors.teak",
}


def slugs() -> tuple[str, ...]:
    """The vendors' names as relay files write them."""
    return tuple(_MODULES)


@functools.cache
def get(slug: str) -> Vendor:
    """The vendor of that name; KeyError when there is none."""
    vendor: Vendor = importlib.import_module(_MODULES[slug]).VENDOR
    return vendor


def mapping_file(slug: str, options: Mapping[str, Any]) -> Path:
    """The vendor's shipped mapping (canonical event -> models) under these options; KeyError when there is no such vendor."""
    vendor = get(slug)
    module = importlib.import_module(_MODULES[slug])
    assert module.__file__ is not None
    here = Path(module.__file__)
    return here.with_name(vendor.mapping(options)) if vendor.mapping else here.with_suffix(".yaml")


def schemas_of(slug: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Model -> the schema of its payloads under these options; KeyError when there is no such vendor."""
    return {name: model.schema for name, model in get(slug).models_under(options).items()}
