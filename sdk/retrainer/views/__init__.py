"""Widgets for a terminal, a notebook or a page that know neither jobs nor runs."""
