"""The doctor: looks at a deployment from inside and outside, and says what to do about what it finds."""

from tailrace.doctor.examination import examine
from tailrace.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
