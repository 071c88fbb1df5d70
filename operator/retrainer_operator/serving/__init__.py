"""What the operator serves: its metrics and its probes."""
