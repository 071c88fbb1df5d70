"""The tables and TensorBoard summaries of a run's folder."""
