"""Recipes: what is trained on what. `[recipe] name` of a configuration names one."""
