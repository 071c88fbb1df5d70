"""What the operator learns of the cluster: watches, full lists, and the trainers' reports."""
