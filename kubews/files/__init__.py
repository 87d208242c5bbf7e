"""Files of pods: copied both ways, whole or not at all, and opened as file objects."""
