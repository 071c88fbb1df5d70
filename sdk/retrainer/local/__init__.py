"""A run on this machine: the trainer as a process, and how it is shown in a terminal."""
