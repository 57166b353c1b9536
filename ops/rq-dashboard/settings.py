"""What rq-dashboard reads by RQ_DASHBOARD_SETTINGS: as an option, the URL would show its password in `ps`."""

import os
from pathlib import Path

RQ_DASHBOARD_REDIS_URL = [Path(os.environ["REDIS_URL_FILE"]).read_text(encoding="utf-8").strip()]
