"""Models as velocity fields. Only `<family>.py` knows diffusers' class names."""
