"""`report.html`: what it shows, its charts, and how it is written."""
