"""What a run needs before it is started: memory by part, communication and time of every layout of ranks."""
