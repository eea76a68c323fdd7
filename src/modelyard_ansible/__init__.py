"""What the action plugins share. The only package that imports both Ansible and modelyard.

Ansible loads a plugin by its path, so plugins cannot import one another; and the core imports no
Ansible.
"""
