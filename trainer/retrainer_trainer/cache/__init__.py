"""Bottlenecks in content-addressed segments, found by the image's identity."""
