"""The pages of runs and agents: load, permit, form, verb, render."""
