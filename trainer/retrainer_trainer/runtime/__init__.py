"""What surrounds a task: its report, how it is stopped, and the cores it may use."""
