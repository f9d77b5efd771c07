"""Figures and one self-contained HTML page about runs and sweeps. Needs the extra ``plots``."""
