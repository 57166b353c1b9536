"""The API image's HEALTHCHECK: 0 when the API can serve requests, else 1 and what it says."""

import os
import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen(f"http://127.0.0.1:{os.environ['TAILRACE_PORT']}/readyz", timeout=4)
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(str(error))
