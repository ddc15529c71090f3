"""Packaging of playrelay."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent

setup(
    name="playrelay",
    version="0.1.0",
    description="Relays raw game telemetry to 12traits, Traitly, Parcelvoy, Swrve and Teak, on Apache Beam",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[
        "pipelines",
        "sandbox",
        "sandbox.vendors",
        "schemas",
        "transforms",
        "transforms.deliver",
        "transforms.mapping",
        "transforms.presets",
        "transforms.sources",
        "transforms.vendors",
    ],
    package_data={
        "pipelines": ["*.json", "py.typed"],
        "sandbox": ["py.typed"],
        "schemas": ["*/*.avsc", "py.typed"],
        "transforms": ["py.typed"],
        "transforms.presets": ["*.yaml"],
        "transforms.vendors": ["*.yaml"],
    },
    entry_points={"console_scripts": ["playrelay = pipelines.cli:main"]},
    install_requires=[
        "apache-beam[gcp]>=2.77,<2.79",
        "certifi>=2024.7.4",
        "click>=8.1,<9",
        "fastavro>=1.9,<2",
        "google-cloud-pubsub>=2.18,<3",
        "google-cloud-secret-manager>=2.16,<3",
        "msgspec>=0.19,<0.23",
        "numpy>=1.26,<3",
        "prometheus-client>=0.21,<1",
        "pyarrow>=14.0.1",
        "pycurl>=7.45.7,<8",
        "PyYAML>=6,<7",
        "rich>=13.7,<16",
        "starlette>=0.40,<2",
        "uvicorn>=0.30,<1",
        "httptools>=0.6,<1",
        "zstandard>=0.22,<1",
    ],
    extras_require={
        "dev": [
            "build>=1.2,<2",
            "cryptography>=42",
            "hypothesis>=6.100,<7",
            "jsonschema>=4.20,<5",
            "mypy>=1.11,<3",
            "packaging>=23",
            "pip-audit>=2.7,<3",
            "pytest>=8,<10",
            "pytest-xdist>=3.5,<4",
            "ruff>=0.6,<1",
            "types-PyYAML",
            "types-jsonschema",
            "types-grpcio",
        ],
        "bench": ["aiohttp>=3.9,<4", "orjson>=3.9,<4"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
