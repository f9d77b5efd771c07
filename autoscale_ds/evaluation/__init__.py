"""How good a model is: per-domain loss, perplexity and bits per byte."""
