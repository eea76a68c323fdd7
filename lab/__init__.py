"""Throw-away systemd hosts on this machine; knows nothing of roles, and roles know nothing of
it.
"""
