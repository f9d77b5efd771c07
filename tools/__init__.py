"""Entry points; a package only so that fit_mixture.py finds its options, whatever else is installed as ``tools``."""
