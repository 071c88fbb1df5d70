"""One pass over a job: observed, planned, applied; and the queue that orders the passes."""
