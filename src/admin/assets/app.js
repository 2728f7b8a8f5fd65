// The dashboard: shows what /api/v1 tells, as it changes, and asks for what an operator wants. Every text is put in as text,
// never as markup. Deliberately absent: anything from elsewhere, anything that the command line cannot do.
"use strict";

const $ = (id) => document.getElementById(id);
const COUNT = new Intl.NumberFormat("en");

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor((s % 86400) / 3600)}h`;
}

const since = (at, now) => (new Date(now) - new Date(at)) / 1000;
const ago = (at, now) => (at ? `${span(since(at, now))} ago` : "never");
const ahead = (at, now) => (!at ? "–" : since(at, now) >= 0 ? "now" : `in ${span(-since(at, now))}`);

function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
}

// The token stays in this tab, and goes nowhere but into the header.
const token = () => sessionStorage.getItem("token");

async function ask(path, body) {
  const headers = {};
  if (token()) headers.authorization = `Bearer ${token()}`;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { headers, method: body ? "POST" : "GET", body: body && JSON.stringify(body) });
  if (answer.status === 401) {
    sessionStorage.removeItem("token");
    throw new Error("that is not the token of admin.token");
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `the service answers HTTP ${answer.status}`);
  }
  return answer;
}

const json = async (path, body) => (await ask(path, body)).json();

const LOOKS = {
  idle: "good", flowing: "good", retrying: "warn", held: "warn", paused: "warn", detached: "warn", down: "bad", stopped: "bad",
};
const WORDS = {
  idle: "✓ idle", flowing: "✓ flowing", retrying: "! retrying", held: "! held", paused: "‖ paused", detached: "! detached",
  down: "✗ DOWN", stopped: "✗ stopped",
};

function facts(pairs) {
  return el("dl", {}, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function card(look, title, state, ...rest) {
  return el("div", { class: `card ${look}` }, el("h3", {}, el("span", {}, title), el("span", { class: "state" }, state)), ...rest);
}

function pipeline(stats) {
  const now = stats.at;
  const polling = stats.polling || {};
  const trouble = polling.problem;
  const vk = card(
    trouble ? "bad" : "good", "VK", trouble ? "✗ in trouble" : "✓ polled",
    el("p", {}, trouble ? `for ${span(since(polling.since, now))}: ${trouble}; next try ${ahead(polling.next_try, now)}` : `heard ${ago(polling.heard, now)}`),
    stats.gaps ? el("p", {}, `${COUNT.format(stats.gaps)} gap(s)`) : null,
  );
  const full = stats.full;
  const outbox = card(
    full ? "bad" : "good", "Outbox", full ? "✗ FULL" : "✓ takes",
    full ? el("p", {}, full.why) : null,
    facts([
      ["in the log", COUNT.format(stats.log_next - stats.log_from)],
      ["disk", `${bytes(stats.used_bytes)} of ${bytes(stats.max_bytes || 0)}`],
      ["room", bytes(stats.room_bytes)],
      ["quarantine", COUNT.format(stats.quarantined)],
    ]),
  );
  const stuck = stats.destinations.filter((one) => LOOKS[one.state] !== "good");
  const pending = stats.destinations.reduce((sum, one) => sum + one.pending, 0);
  const look = stuck.some((one) => LOOKS[one.state] === "bad") ? "bad" : stuck.length ? "warn" : "good";
  const handlers = card(
    look, "Destinations", stuck.length ? `! ${stuck.length} of ${stats.destinations.length} need a look` : "✓ all well",
    facts([["pending", COUNT.format(pending)], ["dead", COUNT.format(stats.destinations.reduce((sum, one) => sum + one.dead, 0))]]),
  );
  $("pipeline").replaceChildren(...[vk, outbox, handlers].map((one) => el("li", {}, one)));
  const headline = trouble ? `VK: ${trouble}` : full ? `Outbox full: ${full.why}` : stuck.length
    ? stuck.map((one) => `${one.name}: ${one.why}`).join(" · ") : "All is well: VK is polled, everything is delivered as it comes.";
  $("headline").textContent = headline;
  // Said aloud only when a state has changed, not with every second that passes.
  const states = [trouble ? "VK: in trouble" : "", full ? "Outbox: full" : "", ...stuck.map((one) => `${one.name}: ${one.state}`)];
  const aloud = states.filter(Boolean).join(", ") || "All is well";
  if ($("aloud").textContent !== aloud) $("aloud").textContent = aloud;
  document.body.classList.remove("stale");
  document.title = `${trouble || full || look === "bad" ? "✗" : stuck.length ? "!" : "✓"} event-router`;
}

const plots = {};

function destinations(stats) {
  const now = stats.at;
  $("destinations").replaceChildren(...stats.destinations.map((one) => card(
    LOOKS[one.state] || "warn", one.name, WORDS[one.state] || one.state,
    el("p", {}, one.why),
    facts([
      ["pending", COUNT.format(one.pending)], ["in flight", COUNT.format(one.in_flight)],
      ["oldest", one.oldest ? span(since(one.oldest, now)) : "–"], ["next try", ahead(one.next_try, now)],
      ["delivered", COUNT.format(one.delivered)], ["last answer", ago(one.last_ok, now)],
      ["dead", COUNT.format(one.dead)], ["expired", COUNT.format(one.expired)],
    ]),
    plots[one.name] || null,
  )));
}

function table(head, rows, nothing) {
  if (!rows.length) return el("p", { class: "dim" }, nothing);
  return el("table", {},
    el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell) =>
      typeof cell === "number" ? el("td", { class: "n" }, COUNT.format(cell)) : el("td", {}, cell))))));
}

async function change(what, path, selector) {
  try {
    const asked = { id: null, selector, dry_run: true, reason: "from the dashboard" };
    const would = await json(path, asked);
    const rows = Array.isArray(would) ? would.reduce((sum, one) => sum + one.matched, 0) : would.matched;
    if (!confirm(`${what} ${COUNT.format(rows)} row(s)?`)) return;
    // No more than was said: what has died since is not meant.
    const seen = Array.isArray(would) ? {} : { up_to: would.up_to, died_by_ms: would.died_by_ms };
    const told = await json(path, { ...asked, ...seen, dry_run: false });
    $("said").textContent = Array.isArray(told)
      ? told.map((one) => `${COUNT.format(one.matched)} of ${one.destination} are being replayed (replay ${one.number})`).join("; ") || "nothing matches"
      : `${COUNT.format(told.matched)} row(s) are discarded`;
  } catch (error) {
    $("said").textContent = error.message;
  }
  await slowly();
}

function groups(found, now) {
  return table(
    ["Count", "Destination", "Cause", "Newest", "Example", "Its answer", ""],
    found.map((one) => {
      const selector = { destination: one.destination, state: one.state, cause: one.cause };
      const label = `${one.cause} of ${one.destination || "quarantine"}`;
      const example = one.state === "quarantined" ? `q${one.example}` : `${one.example}`;
      const acts = one.cause === null ? "" : el("span", {},
        el("button", { type: "button", "aria-label": `Replay ${label}`, onclick: () => change("Replay", "/api/v1/replays", selector) }, "Replay"), " ",
        el("button", { type: "button", "aria-label": `Discard ${label}`, onclick: () => change("Discard for good", "/api/v1/discards", selector) }, "Discard"));
      return [
        one.count, one.destination || "quarantine", one.cause || "(other causes)", ago(one.newest, now),
        el("a", { href: `#event-${example}`, onclick: () => show(example) }, example), one.excerpt || "–", acts,
      ];
    }),
    "None: nothing was refused, nothing was given up.",
  );
}

function replays(found, now) {
  return table(
    ["Number", "Destination", "Asked for", "Rows", "Done", "Failed", "State"],
    found.slice(-10).reverse().map((one) => [
      one.number, one.destination, ago(one.at, now), one.matched, one.succeeded, one.failed,
      one.ended ? `${one.cancelled ? "cancelled" : "done"} ${ago(one.ended, now)}` : one.waits || "under way",
    ]),
    "None.",
  );
}

function gaps(found, now) {
  return table(
    ["When", "From ts", "To ts", "Away for", "Cause", "Fetched back"],
    found.slice(-20).reverse().map((one) => [
      ago(one.at, now), one.from_ts, one.to_ts, one.away_seconds === null ? "–" : span(one.away_seconds), one.cause,
      one.backfill ? `${COUNT.format(one.backfill.recovered)} message(s)` : "off",
    ]),
    "None: VK has lost nothing that we know of.",
  );
}

async function show(id) {
  const place = $("event");
  $("id").value = id;
  try {
    const told = await json(`/api/v1/events/${encodeURIComponent(id)}`);
    const now = new Date().toISOString();
    const rows = told.deliveries.flatMap((one) => [
      [one.destination, one.state, one.reason || one.why || "–", ahead(one.next_try, now)],
      ...(one.history || []).map((try_) => ["", `tried ${ago(try_.at, now)}`, `${try_.answer} after ${try_.latency_ms} ms ${try_.excerpt}`, ""]),
    ]);
    place.replaceChildren(
      el("p", {}, `${told.event_type || "quarantined"} ${told.event_id}, received ${ago(told.received, now)}${told.reason ? `: ${told.reason}` : ""}`),
      table(["Destination", "State", "Why", "Next try"], rows, "Nobody takes it."),
      told.body ? el("pre", {}, JSON.stringify(told.body, null, 2)) : told.raw ? el("pre", {}, told.raw)
        : el("p", { class: "dim" }, "Bodies are shown only with admin.token."),
    );
  } catch (error) {
    place.replaceChildren(el("p", {}, error.message));
  }
  place.focus();
}

// Who works by keyboard stays where they are when a table is made anew.
function renew(id, made) {
  const place = $(id);
  const mark = (one) => one && (one.getAttribute("aria-label") || one.getAttribute("href"));
  const held = place.contains(document.activeElement) ? mark(document.activeElement) : null;
  place.replaceChildren(made);
  if (held) [...place.querySelectorAll("a, button")].find((one) => mark(one) === held)?.focus();
}

// What changes seldom, or takes a scan.
async function slowly() {
  const now = new Date().toISOString();
  const put = async (id, path, make) => renew(id, make(await json(path), now));
  await Promise.all([
    // One after the other: there are few places for those who may read everything.
    (async () => {
      const found = [];
      for (const state of ["", "&state=expired", "&state=quarantined"]) found.push(await json(`/api/v1/groups?limit=50${state}`));
      renew("groups", groups(found.flat(), now));
    })(),
    put("replays", "/api/v1/replays", replays),
    put("gaps", "/api/v1/gaps", gaps),
    json("/api/v1/plots").then((told) => {
      for (const [name, svg] of Object.entries(told)) {
        const drawn = new DOMParser().parseFromString(svg.svg, "image/svg+xml").documentElement;
        plots[name] = el("figure", {}, drawn, el("figcaption", {}, svg.caption));
      }
    }),
  ]);
}

// How long the service may say nothing: it speaks each second.
const SILENCE_MS = 10000;

// Server-sent events, read by hand: an EventSource cannot send a header.
async function live() {
  const reader = (await ask("/api/v1/live")).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error("the service says nothing")), SILENCE_MS));
    const { value, done } = await Promise.race([reader.read(), late]);
    if (done) throw new Error("the service has closed the stream");
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (!data) continue;
      const stats = JSON.parse(data);
      pipeline(stats);
      destinations(stats);
    }
  }
}

async function forever() {
  for (;;) {
    try {
      await live();
    } catch (error) {
      $("headline").textContent = `${error.message}; what is shown is of ${new Date().toLocaleTimeString()} at the latest`;
      document.title = "✗ event-router";
      document.body.classList.add("stale");
      if (!token()) await opened(error.message).catch(() => {});
    }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

async function often() {
  for (;;) {
    if ($("token-form").hidden && !document.hidden) await slowly().catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 5000));
  }
}

let unlock;

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!/^[\x21-\x7e]+$/.test($("token").value)) {
    $("headline").textContent = "a token has no letters but ASCII: is another keyboard layout on?";
    return;
  }
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  $("token-form").hidden = true;
  unlock();
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  show($("id").value.trim());
});

// Nothing is asked for that would be refused.
async function opened(why) {
  const door = await (await fetch("/assets/door.json")).json();
  if (door.locked && !token()) {
    $("token-form").hidden = false;
    $("headline").textContent = `${why ? `${why}; ` : ""}locked: it opens with the token of admin.token`;
    $("token").focus();
    await new Promise((resolve) => { unlock = resolve; });
  }
}

async function begin() {
  for (;;) {
    try {
      await opened();
      return Promise.all([forever(), often()]);
    } catch (error) {
      $("headline").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

begin();
