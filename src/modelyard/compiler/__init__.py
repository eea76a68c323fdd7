"""From a catalogue and an inventory to deployments, routes and the gateway's document. Pure: no
files, no network.
"""
