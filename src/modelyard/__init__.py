"""The pure core of Modelyard: catalogue, resolving, routing and emitting, without any Ansible import."""
