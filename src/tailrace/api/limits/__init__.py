"""Limits for each user, over all API processes: runs a minute, unfinished runs, open streams."""

from tailrace.api.limits.limits import Limits

__all__ = ["Limits"]
