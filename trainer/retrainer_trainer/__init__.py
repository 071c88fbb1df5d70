"""The trainer: what runs in a pod, or on this machine, for one RetrainJob."""
