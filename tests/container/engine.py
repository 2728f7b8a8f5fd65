"""What tests/container/run does with a Docker engine: containers, networks and volumes under names of its own, all of them removed at
the end, however it comes; what an earlier run left that was killed is removed first. Deliberately absent: what is proven.
"""
import itertools, json, os, shlex, subprocess, time

PATIENCE_SECONDS = 90
LABEL = "event-router-test"


def until(what, fact, seconds=PATIENCE_SECONDS, every=0.1):
    """Waits for a fact, with a deadline; answers what it found."""
    end = time.monotonic() + seconds
    while True:
        found = fact()
        if found:
            return found
        if time.monotonic() > end:
            raise SystemExit(f"waited {seconds}s in vain: {what}")
        time.sleep(every)


def alive(pid):
    return pid.isdigit() and os.path.exists(f"/proc/{pid}")


class Engine:
    def __init__(self):
        self.prefix = f"ertest{os.getpid()}"
        self.label = f"{LABEL}={os.getpid()}"
        self.numbers = itertools.count(1)
        for kind in ("container", "network", "volume"):
            owners = '{{.Label "%s"}}' % LABEL
            for one in self.ask(*self.listing(kind, LABEL), "--format", f"{'{{.Name}}' if kind == 'volume' else '{{.ID}}'} {owners}").splitlines():
                name, owner = (one + " ").split(" ")[:2]
                if not alive(owner):
                    self.remove(kind, name)

    @staticmethod
    def listing(kind, label):
        return [kind, "ls", *(["-a"] if kind == "container" else []), "--filter", f"label={label}"]

    def remove(self, kind, name):
        self.run(kind, "rm", *(["-f", "-v"] if kind == "container" else []), name, check=False)

    def run(self, *words, check=True, input=None):
        text = input is None or isinstance(input, str)
        try:
            done = subprocess.run(["docker", *words], capture_output=True, text=text, input=input, timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"docker {shlex.join(words)}: no end after {PATIENCE_SECONDS}s")
        if check and done.returncode != 0:
            raise SystemExit(f"docker {shlex.join(words)}: exit code {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def ask(self, *words):
        return self.run(*words).stdout.strip()

    def name(self, what):
        return f"{self.prefix}-{what}"

    def network(self, subnet, gateway):
        name = self.name("net")
        made = self.run("network", "create", "--label", self.label, "--subnet", subnet, "--gateway", gateway, name, check=False)
        if made.returncode != 0:
            raise SystemExit(
                f"the network {subnet} cannot be made: {made.stderr.strip()}; it is the range of the deployment: remove the network that has it for the time of this test (docker network ls)"
            )
        return name

    def volume(self, what, *options):
        return self.ask("volume", "create", "--label", self.label, *options, self.name(what))

    def start(self, what, image, *command, options=()):
        """Starts a container in the background."""
        name = self.name(what)
        self.run("run", "-d", "--name", name, "--label", self.label, *options, image, *command)
        return name

    def once(self, image, *command, options=(), input=None):
        """Runs a container to its end; `clean_up` ends one that has none."""
        name = self.name(f"once{next(self.numbers)}")
        done = self.run("run", "-i", "--name", name, "--label", self.label, *options, image, *command, check=False, input=input)
        self.remove("container", name)
        return done

    def inspect(self, name, path):
        return json.loads(self.ask("inspect", "--format", "{{json %s}}" % path, name))

    def state(self, name):
        return self.inspect(name, ".State")

    def logs(self, name):
        done = self.run("logs", "--timestamps", name, check=False)
        return done.stdout + done.stderr

    def address(self, name, network):
        return self.inspect(name, f'(index .NetworkSettings.Networks "{network}").IPAddress')

    def clean_up(self):
        for kind in ("container", "network", "volume"):
            for name in self.ask(*self.listing(kind, self.label), "-q").split():
                self.remove(kind, name)
