"""Stable Flow for ComfyUI: edit pictures by holding keys and values of chosen layers. Apache-2.0."""


async def comfy_entrypoint():
    """Return the extension that ComfyUI asks for."""
    from .extension import StableFlowExtension

    return StableFlowExtension()
