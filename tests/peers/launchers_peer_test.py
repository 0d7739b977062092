"""Training as several processes under the real launchers: `torchrun` (of the Python that runs this), `mpirun` of Open MPI and `srun`.

Each trains the same student as one process and must write its bytes; a teacher that is not there must end the job with one line that says so.
Launchers that are not on this machine are skipped; `srun` needs a cluster that answers (`sinfo`).
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SLMC = pathlib.Path(os.environ.get("SLMC_BUILD", "build")).resolve() / "slmc"
SHARED = pathlib.Path(os.environ.get("SLMC_SOURCE_DIR", ".")).resolve().parent / "shared"
MODEL, TEXT = SHARED / "models/medqa-8m", SHARED / "corpora/medquad/test.txt"


def launchers():
    torchrun = pathlib.Path(sys.executable).with_name("torchrun")
    yield "torchrun", [torchrun, "--no-python", "--nproc-per-node", "2"] if torchrun.exists() else None
    mpirun = shutil.which("mpirun")
    yield "mpirun", [mpirun, "--oversubscribe", *(["--allow-run-as-root"] if os.geteuid() == 0 else []), "-n", "2"] if mpirun else None
    cluster = shutil.which("srun") and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    yield "srun", ["srun", "-n", "2"] if cluster else None


def train(launcher, teacher, output):
    command = [*launcher, SLMC, "distill", "--teacher", teacher, "--student", "layers:2", "--data", TEXT, "-o", output, "--tokens", "4096", "--batch", "4",
               "--context", "128", "--lanes", "4"]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=300)


def main():
    if not MODEL.exists():
        print(f"skipped: no {MODEL}")
        return 77
    good, tried = True, 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        alone = train([], MODEL, folder / "alone")
        assert alone.returncode == 0, alone.stderr
        expected = (folder / "alone/model.safetensors").read_bytes()
        for launcher, command in launchers():
            if command is None:
                print(f"{launcher}: skipped, it is not on this machine")
                continue
            tried += 1
            run = train(command, MODEL, folder / launcher)
            output = folder / launcher / "model.safetensors"
            same = run.returncode == 0 and output.read_bytes() == expected and "2 ranks" in run.stdout + run.stderr
            missing = train(command, folder / "nowhere", folder / "never")
            told = missing.returncode != 0 and f"{folder / 'nowhere'}: cannot open: No such file" in missing.stdout + missing.stderr
            good = good and same and told
            print(f"{launcher}: two processes write the bytes of one: {'ok' if same else 'FAILED: ' + run.stderr[-500:]}; "
                  f"a missing teacher ends them: {'ok' if told else 'FAILED: ' + missing.stderr[-500:]}")
    return 77 if tried == 0 else 0 if good else 1


sys.exit(main())
