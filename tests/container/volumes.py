"""What can be the matter with a volume, for tests/container/run: not writable, of another owner, full, without locks, in use, of an
older format, of a newer one; for each the exit code and the words. Deliberately absent: traffic through a healthy one.
"""
import json, os, zlib

import books
from engine import until

OUTBOX = "/data"
USER = "65532"
# flock answers EOPNOTSUPP, as some network file systems do.
NO_LOCKS = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["flock"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
NEWER = 99


class Volumes:
    def __init__(self, stage):
        self.stage, self.engine, self.image = stage, stage.engine, stage.image

    def prepare(self, volume, script, input=None):
        """Does something to a volume as root."""
        done = self.engine.once(self.stage.python, "sh", "-c", script, options=["-v", f"{volume}:{OUTBOX}"], input=input)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tmpfs(self, what, size):
        """A small volume in memory; it is there as long as somebody has it."""
        options = ["--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o=size={size},uid={USER},gid={USER},mode=700"]
        volume = self.engine.volume(what, *options)
        self.engine.start(f"{what}-holder", self.stage.python, "sleep", "3600", options=["-v", f"{volume}:{OUTBOX}"])
        return volume

    def refused(self, what, code, words, volume, *command, mode="", options=()):
        """The service, or a command, does not begin: with this exit code and these words."""
        options = [*self.stage.safe, *self.stage.identity, "-v", f"{volume}:{OUTBOX}{mode}", *options]
        done = self.engine.once(self.image, *command, options=options)
        said = done.stderr.strip().splitlines()
        assert done.returncode == code, f"{what}: exit code {done.returncode}, expected {code}: {done.stderr}"
        assert said and all(word in said[-1] for word in words), f"{what}: {said}"
        print(f"  {what}: exit code {code}\n    {said[-1]}", flush=True)

    def troubles(self):
        mine = self.engine.volume("read-only")
        self.refused("mounted read-only", 1, ["mounted read-only"], mine, mode=":ro")
        other = self.engine.volume("other-owner")
        # To an empty volume the engine gives the owner that the image has.
        self.prepare(other, f"touch {OUTBOX}/something && chown -R 0:0 {OUTBOX} && chmod 755 {OUTBOX}")
        self.refused("of another owner", 1, ["belongs to user 0 (mode 755)", f"user {USER}", "chown -R"], other)
        self.prepare(other, f"chmod 700 {OUTBOX}")
        self.refused("of another owner, asked by `debug stats`", 1, ["belongs to user 0 (mode 700)"], other, "debug", "stats")
        part = self.engine.volume("part-owner")
        self.prepare(part, f"chown {USER}:{USER} {OUTBOX} && mkdir {OUTBOX}/generation-000001 && touch {OUTBOX}/lock")
        self.refused("with a file of another owner in it", 1, ["something in it belongs to another", "chown -R"], part)
        full = self.tmpfs("full-at-start", "1m")
        self.prepare(full, f"dd if=/dev/zero of={OUTBOX}/somebody-else bs=64k 2>/dev/null; true")
        self.refused("full at the start", 75, ["the volume is full"], full)
        profile = os.path.join(self.stage.folder, "no-locks.json")
        with open(profile, "w") as file:
            json.dump(NO_LOCKS, file)
        self.refused("without flock", 1, ["cannot lock a file"], self.engine.volume("no-locks"), options=["--security-opt", f"seccomp={profile}"])

    def older(self):
        """The outbox that format 1 left is there whole, and the service goes on with it."""
        golden = os.path.join(self.stage.root, "tests/fixtures/golden")
        count = 0
        for archive in sorted(name for name in os.listdir(golden) if name.endswith(".tar.gz")):
            version = archive.removesuffix(".tar.gz")
            with open(os.path.join(golden, archive), "rb") as packed, open(os.path.join(golden, f"{version}.json")) as seen:
                volume, packed, seen = self.engine.volume(f"golden-{version}"), packed.read(), json.load(seen)
            self.prepare(volume, f"tar -C {OUTBOX} --strip-components=1 -xzf - && chown -R {USER}:{USER} {OUTBOX}", input=packed)
            self.look(volume, seen)
            pending = sum(one["pending"] for one in seen["stats"]["destinations"])
            self.go_on(version, volume, seen, pending)
            print(f"  as version {version} left it: {len(seen['all'])} events, {len(seen['dead'])} dead letters, all there; {pending} that waited are delivered")
            self.newer(volume)
            count += 1
        assert count, "there is no golden store"

    def debug(self, volume, *words):
        done = self.engine.once(self.image, "debug", *words, "--json", options=[*self.stage.safe, "-v", f"{volume}:{OUTBOX}"])
        assert done.returncode == 0, f"debug {words}: {done.stderr}"
        return json.loads(done.stdout)

    def look(self, volume, seen):
        stats = self.debug(volume, "stats")
        names = ("name", "routed", "pending", "delivered", "dead", "expired", "discarded")
        counts = lambda stats: sorted([one[name] for name in names] for one in stats["destinations"])
        assert counts(stats) == counts(seen["stats"]) and stats["gaps"] == seen["stats"]["gaps"], stats
        ids = lambda rows: [row["event_id"] for row in rows]
        assert ids(self.debug(volume, "list", "--limit", "1000")) == [one[0] for one in seen["all"]]
        assert ids(self.debug(volume, "list", "--state", "dead", "--limit", "1000")) == [one[0] for one in seen["dead"]]
        assert len(self.debug(volume, "list", "--state", "quarantined")) == seen["stats"]["quarantined"]
        assert self.debug(volume, "gaps") and self.debug(volume, "audit") and self.debug(volume, "verify")

    def go_on(self, version, volume, seen, pending):
        """With a VK that nobody can reach: delivery does not wait for it, and the container is healthy."""
        stage = self.stage
        book = stage.handler(f"golden-{version}", 11, "all")
        urls = [word for name in books.NAMES for word in ("-e", f"EVENT_ROUTER__DESTINATIONS__{name.upper()}__URL=http://{stage.address(11)}:7560/")]
        options = [*stage.safe, *stage.identity, "-e", f"GROUPID={seen['stats']['checkpoints'][0]['group_id']}", *urls]
        options += ["-e", f"EVENT_ROUTER__VK__API_URL=http://{stage.address(99)}:1", "--network", stage.network, "-v", f"{volume}:{OUTBOX}"]
        router = self.engine.start(f"router-{version}", self.image, options=[*options, "--health-interval", "1s", "--health-start-period", "0s"])
        ids = lambda: {one["id"] for one in books.taken(book, "all")}
        until("what waited in the older outbox is delivered", lambda: len(ids()) >= pending)
        until("the container is healthy without VK", lambda: self.engine.state(router)["Health"]["Status"] == "healthy")
        ready = self.engine.run("exec", router, "event-router", "health", "--ready", check=False)
        assert ready.returncode == 1 and "VK" in ready.stdout, (ready.stdout, ready.stderr)
        self.engine.remove("container", router)

    def newer(self, volume):
        told = f"format {NEWER}\ngeneration 1\n"
        told += f"sum {zlib.crc32(told.encode())}\n"
        self.prepare(volume, f"cat > {OUTBOX}/CURRENT", input=told)
        # The lock says who came last; it is no part of what is kept.
        files = f"cd {OUTBOX} && find . -type f ! -name lock | sort | xargs sha256sum"
        before = self.prepare(volume, files)
        self.refused("of a newer format", 1, [f"format {NEWER}", "run the version that wrote it"], volume)
        assert self.prepare(volume, files) == before, "it was touched"

    def runs_full(self):
        """A volume that a neighbour fills in the middle of traffic: the service ends with 75, and comes back when there is room."""
        stage, count = self.stage, 3000
        told, due = books.updates(count, first=1_000_000, only="messages")
        stage.vk("vk-full", 21, told, "--pace", "150")
        volume = self.tmpfs("small", "64m")
        holder = self.engine.name("small-holder")
        book = stage.handler("spare", 12, "messages")
        environment = ["-e", "EVENT_ROUTER__OUTBOX__MIN_FREE_BYTES=8MiB", "-e", f"EVENT_ROUTER__DESTINATIONS__MESSAGES__URL=http://{stage.address(12)}:7560/"]
        environment += ["-e", f"EVENT_ROUTER__VK__API_URL=http://{stage.address(21)}:8080"]
        options = [*stage.safe, *stage.identity, *environment, "--network", stage.network, "-v", f"{volume}:{OUTBOX}"]
        router = self.engine.start("router-full", self.image, options=options)
        until("deliveries", lambda: books.count(book, "messages") > 300)
        self.engine.run("exec", holder, "sh", "-c", f"dd if=/dev/zero of={OUTBOX}/neighbour bs=64k 2>/dev/null; true")
        until("the volume is full", lambda: not self.engine.state(router)["Running"])
        code, said = self.engine.state(router)["ExitCode"], self.engine.logs(router).strip().splitlines()[-1]
        assert code == 75 and "No space left on device (os error 28); " in said and "the volume is full" in said, (code, said)
        print(f"  filled by a neighbour in the middle of traffic, after {books.count(book, 'messages')} deliveries: exit code 75\n    {said.split(' ', 1)[1]}", flush=True)
        self.engine.run("update", "--restart", "on-failure", router)
        self.engine.run("start", router)
        stats = lambda: self.engine.run("exec", router, "event-router", "debug", "stats", "--json", check=False)
        waits = lambda: (done := stats()).returncode == 0 and json.loads(done.stdout).get("full")
        # On its reserve it drains, and polls no more; or it is started again until there is room.
        found = until("polling waits for room, or it ended again", lambda: waits() or self.engine.inspect(router, ".RestartCount") > 0)
        self.engine.run("exec", holder, "rm", f"{OUTBOX}/neighbour")
        have = lambda: len({one["id"] for one in books.taken(book, "messages")}) >= count
        until(f"{count} events after there is room again", have, every=1)
        wrong, due, repeats, _ = books.balance(book, due, ["messages"])
        starts = self.engine.inspect(router, ".RestartCount") + 2
        self.engine.remove("container", router)
        assert not wrong, wrong[:10]
        told = "polling waited (FULL) on the reserve" if isinstance(found, dict) else "it ended again"
        print(f"  started again on the full volume {told}; with room it went on: {due} events, {repeats} repeats, {starts} starts; the books balance", flush=True)
