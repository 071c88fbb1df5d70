"""Requests to the API server: the client, the Lease, Events and selectors."""
