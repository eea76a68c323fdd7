"""Grafana's dashboards, written in Python and generated as JSON (`make docs`); read by no plugin and no role.

The files are in roles/grafana/files/dashboards. This package needs `grafana-foundation-sdk`, except for `queries`.
"""
