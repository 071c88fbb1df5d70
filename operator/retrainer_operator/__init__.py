"""The operator: watches RetrainJobs and launches trainer pods for them."""
