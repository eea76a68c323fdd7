"""The core of Modelyard, without any Ansible import.

A catalogue (`catalogue`) becomes deployments, routes and the gateway's document (`compiler`,
`engines`, `gpu`) and one plan per host (`plan`). What playbooks decide from plans is in
`operations`, text in `output`. All of it is pure; what reaches files or the network is in
`controller`.
"""

WITH_DOCSTRINGS = True
"""Whether the models' fields have their docstrings, which documents are generated from.

pydantic reads and parses the source of every class for them: 0.15 s of processor time per process
(89 classes). Who needs none, as a run of Ansible does, says so before it imports the models.
"""
