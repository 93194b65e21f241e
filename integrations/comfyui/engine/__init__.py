"""What the nodes do, in terms of the library; nothing here imports ComfyUI."""
