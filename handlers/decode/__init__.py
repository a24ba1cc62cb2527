"""Decoding as a service: jobs in, views out, in processes or threads."""
