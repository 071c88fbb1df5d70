"""The command line `retrainer`, one module for each group of commands."""
