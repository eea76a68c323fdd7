"""The core of Modelyard, without any Ansible import.

A catalogue (`catalogue`) becomes deployments, routes and the gateway's document (`compiler`,
`engines`, `gpu`) and one plan per host (`plan`). What playbooks decide from plans is in
`operations`, text in `output`. All of it is pure; what reaches files or the network is in
`controller`.
"""
