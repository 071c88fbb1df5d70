"""The trainer's reads and writes, in a local folder or in S3."""
