"""What importing costs: the public names bring torch and nothing slower, and no library speaks."""

import subprocess
import sys

SLOW = {"diffusers", "transformers", "accelerate", "torchao", "peft", "scipy", "matplotlib", "ray", "gradio"}
SLOW |= {"torch._dynamo", "gguf", "skimage"}
PUBLIC = """import stableflow
for name in stableflow.__all__:
    if name != "StableFlowPipeline":  # is one of diffusers' classes
        getattr(stableflow, name)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_package_alone_brings_nothing():
    loaded = run("import sys, stableflow; print(*sys.modules)").stdout.split()
    assert {"torch", "numpy", "PIL", *SLOW}.isdisjoint(loaded)


def test_public_names_bring_nothing_slower_than_torch_and_say_nothing():
    done = run(f"import sys\n{PUBLIC}\nprint(*sys.modules)")
    assert SLOW.isdisjoint(done.stdout.split())
    assert done.stderr == ""


def test_making_a_model_is_quiet():
    """torchao tells of every accelerator that it finds no code for, transformers of processors nobody asked for."""
    code = (
        "import os; os.environ['TRANSFORMERS_VERBOSITY'] = 'error'\n"
        "import stableflow, transformers, diffusers\n"
        "transformers.utils.logging.disable_progress_bar(); diffusers.utils.logging.disable_progress_bar()\n"
        "stableflow.load('tiny')"
    )
    assert run(code).stderr == ""
