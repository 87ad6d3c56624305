"""The agents that come in the box, one file each."""
