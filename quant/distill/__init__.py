"""Distillation beyond the outputs: what a student also learns, and students made of the teacher."""
