"""Base images for tests/container/run: the public ones where they can be pulled, else one made of Debian's packages, this machine's
Rust and its crates, so that a build inside needs no network. Kept under a tag, so that a second run is quick.

Deliberately absent: any change to the Dockerfile, which sees only another BUILD_IMAGE.
"""
import hashlib, os, shutil, subprocess, tempfile

PUBLIC_BUILD = "rust:1.95-slim-bookworm"
PUBLIC_PYTHON = "python:3.11-slim-bookworm"
NAME = "event-router-test-base"
PACKAGES = "gcc,libc6-dev,ca-certificates,python3"
# What `make` makes changes with this number.
RECIPE = 1
PULL_SECONDS = 180


def ask(*words, **how):
    """What a command says; its end is an error unless it is 0."""
    done = subprocess.run(words, capture_output=True, text=True, **how)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words[:3])} …: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout.strip()


def pulled(image):
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0:
        return True
    try:
        return subprocess.run(["docker", "pull", "--quiet", image], capture_output=True, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def suite():
    """Where this machine has Debian from, and which."""
    fields = dict(line.split("=", 1) for line in open("/etc/os-release").read().splitlines() if "=" in line)
    codename = fields.get("VERSION_CODENAME", "").strip('"')
    for line in ask("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages").splitlines():
        site, release, component = line.split()
        if release == codename and component == "main":
            return site, codename
    raise SystemExit("no base image can be pulled, and this machine is no Debian with its sources: docker pull " + PUBLIC_BUILD)


def images(root):
    """The image to build in, and one with Python 3."""
    if pulled(PUBLIC_BUILD) and pulled(PUBLIC_PYTHON):
        return PUBLIC_BUILD, PUBLIC_PYTHON
    with open(os.path.join(root, "Cargo.lock"), "rb") as lock:
        state = lock.read() + f"{RECIPE} {PACKAGES}".encode() + ask("rustc", "-vV", cwd=root).encode()
    tag = f"{NAME}:{hashlib.sha256(state).hexdigest()[:16]}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode != 0:
        print(f"no public image can be pulled: {tag} is made of Debian's packages and this machine's Rust", flush=True)
        make(root, tag)
        # Those of other lock files and toolchains are no use any more.
        for old in ask("docker", "image", "ls", NAME, "--format", "{{.Repository}}:{{.Tag}}").splitlines():
            if old != tag:
                subprocess.run(["docker", "image", "rm", old], capture_output=True)
    return tag, tag


def make(root, tag):
    if not shutil.which("debootstrap"):
        raise SystemExit("no base image can be pulled, and there is no debootstrap to make one: apt-get install debootstrap")
    ask("cargo", "fetch", "--locked", cwd=root)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    site, codename = suite()
    with tempfile.TemporaryDirectory(prefix="event-router-base-") as work:
        base = os.path.join(work, "base")
        try:
            ask("debootstrap", "--variant=minbase", f"--include={PACKAGES}", codename, base, site)
        finally:
            # It mounts these and leaves them when it is ended: nobody may clean up behind such a door.
            for mounted in ("proc", "sys"):
                subprocess.run(["umount", "--lazy", os.path.join(base, mounted)], capture_output=True)
        shutil.rmtree(os.path.join(base, "var/cache/apt"))
        shutil.rmtree(os.path.join(base, "var/lib/apt"))
        rust, cargo = os.path.join(base, "usr/local/rust"), os.path.join(base, "usr/local/cargo")
        sysroot = ask("rustc", "--print", "sysroot", cwd=root)
        left_out = shutil.ignore_patterns("doc", "rustlib/src", "clippy-driver", "cargo-clippy", "rust-analyzer*", "miri", "cargo-miri")
        shutil.copytree(sysroot, rust, symlinks=True, ignore=left_out)
        for part in ("cache", "index"):
            shutil.copytree(os.path.join(home, "registry", part), os.path.join(cargo, "registry", part), symlinks=True)
        tar = subprocess.Popen(["tar", "--numeric-owner", "--one-file-system", "-C", base, "-c", "."], stdout=subprocess.PIPE)
        path = "ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        words = ["-c", path, "-c", "ENV CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true"]
        ask("docker", "import", *words, "-", tag, stdin=tar.stdout)
        if tar.wait() != 0:
            raise SystemExit(f"{tag}: tar failed")


if __name__ == "__main__":
    print(*images(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")))
