"""gunicorn's configuration in a container: `gunicorn --config python:govor.gunicorn`.

Serves the service that `GOVOR_SERVICE` names, in `WEB_CONCURRENCY` processes: 1 unless told
otherwise, because a model service batches what one process takes, and more load takes more
containers.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings

from pydantic import ValidationError

from govor import logs
from govor.config import ConfigurationError, Settings
from govor.refusals import refusal

try:
    _settings = Settings()
except (ValidationError, ConfigurationError) as error:
    sys.exit(refusal(error))
logs.configure(_settings)

wsgi_app = f"services.{os.environ['GOVOR_SERVICE']}.main:create_app()"
bind = f"{_settings.host}:{_settings.port}"
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
worker_class = "govor.workers.Worker"
logger_class = "govor.workers.Log"
# A listener for each worker, which opens it when its models are loaded.
reuse_port = True
# Seconds: of a worker that hangs (or loads), of what is in flight at the end (the server's own
# 10 and the parts'), of an idle connection (more than the proxy's).
timeout, graceful_timeout, keepalive = 120, 15, 75
control_socket_disable = True

if workers > 1:
    # Before prometheus_client is imported: it looks once.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="govor-metrics-")
    # Gauges stay in their process (`govor.workers.Summed`), where removal works.
    warnings.filterwarnings("ignore", "Removal of labels")
