"""Jobs on a cluster: the client, one job, its logs, events and progress."""
