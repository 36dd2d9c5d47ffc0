"""`python -m govor.health [URL]`: exit status 0 when the URL answers 200, for a health check.

Asks `/readyz` of this container's service unless told otherwise. Standard library only, because it
runs every few seconds.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/readyz"
# An engine may be set up to give every container a proxy.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with direct.open(url, timeout=4) as answer:
        sys.exit(answer.status != 200)
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read(1000).decode(errors='replace')}")
except OSError as error:
    sys.exit(str(error))
