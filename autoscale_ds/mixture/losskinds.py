"""What a loss column may hold besides nats per token, and how it becomes something to minimise."""

from __future__ import annotations

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.mixture.arrays import Array

# Unit that a kind is converted to.
KINDS = {
    "nats": "nats per token",
    "perplexity": "nats per token",
    "bits-per-byte": "nats per byte",
    "accuracy": "error rate",
}
# Kinds whose best value is converted to 0; a loss in nats is above it.
ZERO_IS_POSSIBLE = ("accuracy",)
# No tokenizer has the e^20 = 485 million tokens at which guessing would cost more.
LARGEST = 20.0


def converted(losses: Array, kind: str) -> Array:
    """Return losses (n, k) of a kind as nats per token, nats per byte or error rates; NaN and infinity stay.

    Raises
    ------
    MixtureError
        For an unknown kind, or values it cannot have.
    """
    if kind not in KINDS:
        raise MixtureError(f"loss kind {kind!r} is unknown; choose one of: {', '.join(KINDS)}")
    known = losses[np.isfinite(losses)]
    if kind == "perplexity":
        if (known < 1).any():
            raise MixtureError(f"a perplexity is {known.min():g}, expected at least 1; is it a loss? --loss-kind nats")
        return np.log(losses)
    if kind == "bits-per-byte":
        return losses * np.log(2)
    if kind == "accuracy":
        if (known < 0).any() or (known > 100).any():
            wrong = known[(known < 0) | (known > 100)][0]
            raise MixtureError(f"an accuracy is {wrong:g}, expected 0 to 1, or 0 to 100 per cent")
        return 1 - losses / (100 if known.size and known.max() > 1 else 1)
    return losses


def suspicion(losses: Array) -> str | None:
    """Return what losses (n, k) look like that are no nats per token, and what to do, or None."""
    known = losses[np.isfinite(losses)]
    if not known.size:
        return None
    if (known < 0).mean() > 0.5:
        return f"most losses are negative ({np.median(known):.3g}): log likelihoods? turn their sign"
    if (known > LARGEST).mean() > 0.5:
        return f"losses of about {np.median(known):.3g} are no nats per token; if perplexities, --loss-kind perplexity"
    if known.max() <= 1:
        return (
            f"all losses lie between {known.min():.3g} and {known.max():.3g}; if accuracies, --loss-kind accuracy, if "
            "bits per byte, --loss-kind bits-per-byte, else --loss-kind nats"
        )
    return None
