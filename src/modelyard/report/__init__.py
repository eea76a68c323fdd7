"""What Prometheus knows about a period as one page: what to ask (`queries`), what it means
(`figures`), HTML (`page`).

Pure: no clock, no network, no files.
"""
