"""Build the wheel, install it where nothing else is, and edit a picture with it.

python .ci/wheel.py               dependencies come from the package index, as a stranger gets them
python .ci/wheel.py --borrow      dependencies are this environment's; the package itself is the wheel's
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 60_000_000  # bytes
NEEDED = ("bundled/tiny/transformer/", "bundled/tiny/model_index.json", "vital/presets/", "bundled/MODEL_CARD.md")
SMOKE = """
import json, resource, sys
import stableflow as sf
names = [name for name in sf.__all__ if name != "StableFlowPipeline"]
[getattr(sf, name) for name in names]
cpu = resource.getrusage(resource.RUSAGE_SELF)
editor = sf.StableFlow(sf.load("tiny"))
source = editor.generate("a red dog standing on the grass at noon", seed=1, num_steps=4)
result = editor.edit(source, "a red dog standing in the snow at noon")
result.save("out")
print(json.dumps({"from": sf.__file__, "import_cpu_seconds": round(cpu.ru_utime + cpu.ru_stime, 2),
                  "size": list(result.images.shape)}))
"""


def main() -> None:
    """Build, install, run; print what was found as JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--borrow", action="store_true", help="use this environment's dependencies")
    borrow = options.parse_args().borrow
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wheel = build(place / "dist")
        found = {"wheel": wheel.name, "bytes": wheel.stat().st_size} | checked(wheel)
        found |= smoke(installed(place / "venv", wheel, borrow=borrow), place)
    print(json.dumps(found, indent=2))


def build(folder: Path) -> Path:
    """Return the wheel of this checkout."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


def checked(wheel: Path) -> dict[str, int]:
    """Hold the wheel to its size and content."""
    names = zipfile.ZipFile(wheel).namelist()
    missing = [part for part in NEEDED if not any(name.startswith(f"stableflow/{part}") for name in names)]
    if wheel.stat().st_size > LARGEST or missing:
        sys.exit(f"{wheel.name}: {wheel.stat().st_size} bytes of at most {LARGEST}; missing: {missing or 'nothing'}")
    return {"files": len(names)}


def installed(folder: Path, wheel: Path, *, borrow: bool) -> Path:
    """Return the bin folder of a new environment that holds the wheel."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if borrow:
        here = sysconfig.get_paths()["purelib"]
        site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
        Path(site, "borrowed.pth").write_text(here + "\n")
        run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", str(wheel))
    else:
        run(str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel))
    return python.parent


def smoke(programs: Path, place: Path) -> dict[str, object]:
    """Edit a picture in Python and by the command, from a folder that knows nothing of the checkout."""
    environment = {"PATH": str(programs), "HOME": str(place), "HF_HUB_OFFLINE": "1"}
    found = json.loads(run(str(programs / "python"), "-c", SMOKE, cwd=place, env=environment).splitlines()[-1])
    if not Path(found.pop("from")).is_relative_to(programs.parent) or not (place / "out" / "edit_1.png").is_file():
        sys.exit("The package that ran is not the wheel's, or it wrote no picture.")
    version = run(str(programs / "stableflow"), "doctor", "--format", "json", cwd=place, env=environment)
    return found | {"doctor": bool(json.loads(version))}


def run(*command: str, **settings: object) -> str:
    """Run a command; where it fails, show what it said and leave."""
    done = subprocess.run(command, capture_output=True, text=True, **settings)  # pyright: ignore
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ... failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
