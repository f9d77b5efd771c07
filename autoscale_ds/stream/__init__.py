"""Which sample comes at which step, and how the weights behind it are replaced while a run is going."""
