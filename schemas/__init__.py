"""The shape of every record, event and payload: Avro schemas with rules, and what is compiled from them.

    schemas/telemetry/   the canonical event, and one schema for the records of each preset
    schemas/<vendor>/    one schema a model, as the vendor takes it

Extra attributes of a field are its rules (see `Rules`); each names its source, a vendor document and heading.
"""

from schemas.loader import load, load_file, names, parse
from schemas.model import Field, Presence, Rules, Schema, SchemaError, Type
from schemas.resolve import as_read, differences, resolve
from schemas.typed import attribute_names, fits, struct_type

__all__ = [
    "Field",
    "Presence",
    "Rules",
    "Schema",
    "SchemaError",
    "Type",
    "as_read",
    "attribute_names",
    "differences",
    "fits",
    "load",
    "load_file",
    "names",
    "parse",
    "resolve",
    "struct_type",
]
