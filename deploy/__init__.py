"""Serving for others: an image, a process that drains before it stops, a gateway, manifests, monitoring."""
