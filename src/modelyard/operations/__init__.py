"""What the playbooks beside `site.yml` decide, from plans and from what hosts say. Pure: no files,
no network.
"""
