"""What watches Govor: rules and dashboards made from one file of objectives.

`python -m monitoring` writes what Prometheus and Grafana read; a test says when it is stale.
"""
