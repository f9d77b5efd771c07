"""How fast a metric is learned: time to a threshold with censoring, its spread over seeds, its order between sizes."""
