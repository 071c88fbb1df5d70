"""The trained network in every format, each run before it is copied to the run's folder."""
