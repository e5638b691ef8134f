"""Recipes: a whole pipeline in one YAML file, whose keys are the options of the commands."""
