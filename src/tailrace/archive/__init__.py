"""The archive: events of finished sessions in object storage, and the log that reads them from there."""

from tailrace.archive.archived_log import ArchivedLog
from tailrace.archive.store import ObjectStore

__all__ = ["ArchivedLog", "ObjectStore"]
