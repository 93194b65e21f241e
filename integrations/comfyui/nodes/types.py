"""What goes along the pack's own wires."""

from comfy_api.latest import io

CATEGORY = "Stable Flow"
SourceType = io.Custom("STABLEFLOW_SOURCE")
HoldType = io.Custom("STABLEFLOW_HOLD")
