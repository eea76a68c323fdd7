"""What touches the controller's files or the network: the only package of the core that may."""
