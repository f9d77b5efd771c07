"""Choose and follow the data mixture of a language model's pretraining.

Importing this package has no effect and pulls in no torch; import the room you need (``autoscale_ds.stream``, ...).
"""

__version__ = "0.1.0"
