"""The laws by name, and what papers call them otherwise."""

from autoscale_ds.errors import MixtureError
from autoscale_ds.laws.base import Law
from autoscale_ds.laws.exposure import Exposure, ExposureBudget
from autoscale_ds.laws.own_domain import DCPT, BiMix, Chinchilla
from autoscale_ds.laws.repetition import RepeatedAdditive, RepeatedExposure, RepeatedExposureBudget
from autoscale_ds.laws.separable import Additive, DataMixingLaw, Linear, LogLinear
from autoscale_ds.laws.trees import Trees

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Exposure(),
        ExposureBudget(),
        Additive(),
        DataMixingLaw(),
        Linear(),
        LogLinear(),
        Chinchilla(),
        BiMix(),
        DCPT(),
        Trees(),
        RepeatedExposure(),
        RepeatedExposureBudget(),
        RepeatedAdditive(),
    )
}
NAMES = tuple(LAWS)
# What papers and users call them otherwise.
ALIASES = {
    "effective-exposure": "exposure",
    "exposure-shared": "exposure",  # the names of earlier versions
    "exposure-scale": "exposure",
    "autoscale": "additive",
    "data-mixing-laws": "data-mixing",
    "dml": "data-mixing",
    "loglinear": "log-linear",
    "dcpt": "d-cpt",
    "lightgbm": "regmix",
}


def check_name(name: str) -> str:
    """Return the name of a known law, aliases resolved; raises MixtureError otherwise."""
    name = ALIASES.get(name.lower().replace("_", "-"), name.lower().replace("_", "-"))
    if name not in NAMES:
        raise MixtureError(f"law {name!r} is unknown; choose auto or one of: {', '.join(NAMES)}")
    return name
