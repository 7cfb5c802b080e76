"""maven as a user installs it: a wheel in a fresh venv, and `make` with every Python that is here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.full


def _pythons() -> list[str]:
    """The interpreters from 3.11 to 3.13 that really run; a version manager's shim may exist and fail."""
    places = [f"python3.{minor}" for minor in (11, 12, 13)]
    places += [
        str(path) for path in sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[123].*/bin/python"))
    ]
    places += ["/usr/bin/python3"]
    found: dict[str, str] = {}
    for place in places:
        check = "import sys, venv, ensurepip; print('%d.%d.%d' % sys.version_info[:3])"
        try:
            done = subprocess.run([place, "-c", check], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        version = done.stdout.strip()
        if (3, 11) <= tuple(map(int, version.split("."))) < (3, 14):
            found.setdefault(version, place)
    return list(found.values())


@pytest.fixture
def home() -> Iterator[Path]:
    """A short home for the embedded default, which must be gone (with its servers) at the end."""
    path = Path(tempfile.mkdtemp(prefix="maven-e2e-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _environment(home: Path) -> dict[str, str]:
    dropped = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("MAVEN_")
    }
    return {**kept, "MAVEN_HOME": str(home / "h"), "MAVEN_EMBEDDED_LINGER": "0"}


def _works(maven: Path, home: Path) -> None:
    """The main job, on the embedded default, from that very installation."""
    environment = _environment(home)
    done = subprocess.run(
        [maven, "demo", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "success"
    for command in (["db", "check"], ["down", "--force"]):
        done = subprocess.run([maven, *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _checkout(target: Path) -> Path:
    """The files that a clone would have, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.mark.timeout(600)
@pytest.mark.parametrize("python", _pythons())
def test_make_install_and_the_demo_with_every_python(python: str, tmp_path: Path, home: Path) -> None:
    checkout = _checkout(tmp_path / "a checkout")
    done = subprocess.run(
        ["make", f"PYTHON={python}", "install"],
        cwd=checkout,
        env=_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _works(checkout / ".venv" / "bin" / "maven", home)


@pytest.mark.timeout(600)
def test_a_wheel_works_like_a_checkout(tmp_path: Path, home: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]
    subprocess.run(
        [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(_checkout(tmp_path / "src")),
        ],
        check=True,
    )
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "v")], check=True)
    install = [
        str(tmp_path / "v" / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-qq",
        "install",
    ]
    subprocess.run([*install, "--require-hashes", "-r", str(ROOT / "requirements.lock")], check=True)
    subprocess.run([*install, "--no-deps", *map(str, tmp_path.glob("maven_cli-*.whl"))], check=True)
    _works(tmp_path / "v" / "bin" / "maven", home)
