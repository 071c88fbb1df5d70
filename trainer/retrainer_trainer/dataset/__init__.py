"""The labelled images of a job: what was listed, which set each is in, and how they are read."""
