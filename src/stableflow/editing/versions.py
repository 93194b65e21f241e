"""The versions that a result depends on."""

import importlib.metadata


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that decide its numbers."""
    packages = ("stableflow", "torch", "diffusers", "transformers")
    return {package: importlib.metadata.version(package) for package in packages}
