"""What bottlenecks tell of the photos: wrong labels, copies, leaks, strangers, how many more help."""
