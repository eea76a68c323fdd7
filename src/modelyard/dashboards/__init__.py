"""Grafana's dashboards, written in Python and generated as JSON (`make docs`).

The files are in roles/grafana/files/dashboards. Plugins read `expressions` alone, which the report
has in common with the dashboards. All but `queries` and `expressions` needs
`grafana-foundation-sdk`.
"""
