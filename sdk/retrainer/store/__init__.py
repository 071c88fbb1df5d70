"""What lies in a folder on disk or in S3: runs, and the cache of bottlenecks."""
