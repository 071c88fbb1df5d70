"""What to do about a job, decided without input or output."""
