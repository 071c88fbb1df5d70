"""What a run left: its files, curves, comparisons, plots and notebook tables."""
