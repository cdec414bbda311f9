"""SLURM's programs for tests: sbatch runs an array on this machine, in processes as srun starts them."""

import os
import stat
import sys
from pathlib import Path

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
here = pathlib.Path({folder!r})
batch = pathlib.Path(sys.argv[1]).read_text()
(here / "batch.sh").write_text(batch)
array = re.search(r"--array=0-(\\d+)%", batch)
last = int(array[1]) if array else 0
print("Submitted batch job 77", flush=True)
if os.fork():
    sys.exit()
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(null, descriptor)
started = []
for task in range(last + 1):
    env = os.environ | {{"SLURM_JOB_ID": str(77 + task), "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                        "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "3"}}
    if array:
        env |= {{"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(task)}}
    started.append(subprocess.Popen(["bash", here / "batch.sh"], env=env))
for task, process in enumerate(started):
    (here / f"state-{{task}}").write_text("FAILED" if process.wait() else "COMPLETED")
"""
SRUN = """#!{python}
import os, sys
rest = sys.argv[1:]
ids = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
files = {{}}
while rest[0].startswith("--"):
    option = rest.pop(0)
    if option in ("--output", "--error"):
        path = rest.pop(0).replace("%A", ids[0]).replace("%a", ids[1]).replace("%t", "0")
        files[option] = path.replace("%j", os.environ["SLURM_JOB_ID"])
for option, descriptor in (("--output", 1), ("--error", 2)):
    os.makedirs(os.path.dirname(files[option]), exist_ok=True)
    os.dup2(os.open(files[option], os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
os.execvp(rest[0], rest)
"""
SACCT = """#!{python}
import pathlib
print("JobID|State|NodeList")
for path in sorted(pathlib.Path({folder!r}).glob("state-*")):
    print(f"77_{{path.name[6:]}}|{{path.read_text()}}|here")
"""


def install(folder: Path) -> None:
    """Write the programs into a folder that is on the PATH."""
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        path = folder / name
        path.write_text(text.format(python=sys.executable, folder=os.fspath(folder)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
