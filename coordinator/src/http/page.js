// The page: reads the API every other second and shows it. It changes nothing on the cluster.
//
// Invariants: text from the cluster (ids, labels, commands, output) reaches the document only as
// text nodes; a list is rebuilt only when what it shows has changed, so that a selection and an
// opened row stay; output kept in the window is bounded.
"use strict";

const POLL_MS = 2000;
const OUTPUT_POLL_MS = 1000;
const OUTPUT_CHUNK = 65536;
const OUTPUT_KEPT_CHARS = 400000;
const ROWS_MAX = 500;
const DOING = {
  StartApplication: "starting", ScaleApplication: "scaling",
  RestartApplication: "replacing instances", StopApplication: "stopping",
};

const byId = (id) => document.getElementById(id);
const opened = new Set();
const shown = new Map();

/** Makes an element; strings among the children become text nodes. */
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replaces the children of a place when `data` differs from what it was made of. */
function show(id, data, make) {
  const key = JSON.stringify(data);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  byId(id).replaceChildren(...[make()].flat());
}

async function getJson(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* An agent's own errors are plain text. */ }
  if (response.ok && body !== null) return body;
  throw new Error((body && body.message) || text.slice(0, 200) || `${path}: ${response.status}`);
}

const round = (value) => String(Math.round(value * 100) / 100);
const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

function size(mib) {
  if (mib >= 1024 * 1024) return `${round(mib / 1024 / 1024)} TiB`;
  if (mib >= 1024) return `${round(mib / 1024)} GiB`;
  return `${round(mib)} MiB`;
}

function since(when, now) {
  const seconds = Math.max(0, Math.round((now - Date.parse(when)) / 1000));
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return "moments";
  if (seconds < 3600) return plural(Math.floor(seconds / 60), "minute");
  if (seconds < 172800) return plural(Math.floor(seconds / 3600), "hour");
  return plural(Math.floor(seconds / 86400), "day");
}

function meter(used, total) {
  const bar = el("i");
  bar.style.width = `${total > 0 ? Math.min(100, (used / total) * 100) : 0}%`;
  return el("div", { class: "meter" }, bar);
}

const state = (kind, word) => el("span", { class: `state ${kind}` }, word);

function table(heads, rows) {
  const head = heads.map(([name, kind]) => el("th", { class: kind, scope: "col" }, name));
  return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
}

/** What nodes refused an entry of the queue for, at the last attempt. */
function declined(entry) {
  const summary = entry.processedOffersSummary || {};
  return (summary.rejectSummaryLastOffers || []).filter((reason) => reason.declined > 0);
}

/** What a service is doing, in a word. */
function appState(app, queue) {
  const waiting = queue.get(app.id);
  if (waiting && waiting.delay && waiting.delay.timeLeftSeconds > 0 && app.tasksRunning < app.instances) {
    return ["bad", "Backing off"];
  }
  if (waiting && app.tasksRunning < app.instances && declined(waiting).length > 0) return ["busy", "Waiting"];
  if (app.instances === 0 && app.tasksRunning + app.tasksStaged === 0) return ["", "Suspended"];
  if (app.deployments.length > 0) return ["busy", "Deploying"];
  if (app.tasksRunning >= app.instances) return ["good", "Running"];
  if (waiting) return ["busy", "Waiting"];
  return ["busy", "Starting"];
}

function taskState(name) {
  const word = name.replace(/^TASK_/, "").toLowerCase().replace(/_/g, " ");
  const text = word.charAt(0).toUpperCase() + word.slice(1);
  if (name === "TASK_RUNNING") return state("good", text);
  if (/FINISHED|KILLED$/.test(name)) return state("", text);
  return state(/STAGING|STARTING|KILLING/.test(name) ? "busy" : "bad", text);
}

function outputButtons(taskId) {
  const button = (file) =>
    el("button", { type: "button", "data-output": `${taskId}/${file}`, onclick: () => output.open(taskId, file) }, file);
  return el("span", { class: "pair" }, button("stdout"), button("stderr"));
}

/** Where a task listens: its host ports, and its own address if it has one. */
function where(task) {
  const ports = (task.ports || []).map((port) => `${task.host}:${port}`);
  const own = (task.ipAddresses || []).map((ip) => ip.ipAddress).filter((ip) => ip && ip !== task.host);
  return [...(ports.length ? ports : [task.host]), ...own].filter(Boolean).join(", ");
}

function appDetail(app, now) {
  const rows = (app.tasks || []).slice(0, ROWS_MAX).map((task) =>
    el("tr", {},
      el("td", {}, taskState(task.state)),
      el("td", { class: "mono" }, task.id),
      el("td", { class: "mono" }, where(task)),
      el("td", { class: "wide" }, task.startedAt ? since(task.startedAt, now) : ""),
      el("td", {}, outputButtons(task.id))));
  const parts = [];
  if (rows.length > 0) {
    parts.push(table([["State"], ["Task"], ["Address"], ["Up for", "wide"], ["Output"]], rows));
  } else {
    parts.push(el("p", { class: "quiet" }, "No tasks at the moment."));
  }
  const failure = app.lastTaskFailure;
  if (failure) {
    parts.push(el("p", { class: "failure" },
      `Last failure, ${since(failure.timestamp, now)} ago: ${failure.message || failure.state} `,
      failure.taskId ? outputButtons(failure.taskId) : null));
  }
  return el("tr", { class: "detail" }, el("td", { colspan: "6" }, parts));
}

function appRows(app, queue, now) {
  const open = opened.has(app.id);
  const fold = el("button", {
    type: "button", class: "fold", "aria-expanded": String(open), "data-app": app.id,
    onclick: () => {
      if (!opened.delete(app.id)) opened.add(app.id);
      shown.delete("apps");
      render().then(() => {
        const same = [...document.querySelectorAll("[data-app]")].find((b) => b.dataset.app === app.id);
        if (same) same.focus();
      });
    },
  }, app.id);
  const image = app.container && app.container.docker ? app.container.docker.image : null;
  const runs = [image, app.cmd || (app.args || []).join(" ")].filter(Boolean).join("  ");
  const row = el("tr", { class: "app" },
    el("td", {}, fold),
    el("td", {}, state(...appState(app, queue))),
    el("td", { class: "number" }, `${app.tasksRunning} of ${app.instances}`),
    el("td", { class: "number wide" }, round(app.cpus)),
    el("td", { class: "number wide" }, size(app.mem)),
    el("td", { class: "wide" }, el("span", { class: "mono clip", title: runs }, runs)));
  return open ? [row, appDetail(app, now)] : [row];
}

function showApps(apps, queue, now) {
  const minute = Math.floor(now / 60000);
  show("apps", [apps, [...queue], minute, [...opened]], () => {
    if (apps.length === 0) {
      const example = `curl -X POST ${location.origin}/v2/apps -H 'Content-Type: application/json' -d ` +
        `'{"id":"/hello","cmd":"while :; do date; sleep 1; done","cpus":0.1,"mem":32}'`;
      return el("div", { class: "panel" },
        el("p", { class: "empty" }, "No services yet. Start one:", el("code", {}, example)));
    }
    const rows = apps.slice(0, ROWS_MAX).flatMap((app) => appRows(app, queue, now));
    const heads = [["Service"], ["State"], ["Running", "number"], ["CPUs", "number wide"],
      ["Memory", "number wide"], ["Runs", "wide"]];
    const more = apps.length > ROWS_MAX ? [el("p", { class: "empty" }, `and ${apps.length - ROWS_MAX} more`)] : [];
    return el("div", { class: "panel" }, table(heads, rows), more);
  });
}

/** Why an entry of the queue does not start, as a sentence. */
function reasons(entry) {
  const left = entry.delay ? entry.delay.timeLeftSeconds : 0;
  if (left > 0) return `Restarts in ${plural(left, "second")}, after its last failure`;
  const refused = declined(entry);
  if (refused.length === 0) return "About to start";
  const words = (name) => name.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  return refused.map((r) => `${words(r.reason)} on ${plural(r.declined, "node")}`).join("; ");
}

function showWaiting(entries) {
  byId("waiting-section").hidden = entries.length === 0;
  show("waiting", entries, () => {
    const rows = entries.slice(0, ROWS_MAX).map((entry) =>
      el("tr", {},
        el("td", {}, (entry.app || {}).id || ""),
        el("td", { class: "number" }, String(entry.count)),
        el("td", {}, reasons(entry))));
    return el("div", { class: "panel" }, table([["Service"], ["Missing", "number"], ["Why"]], rows));
  });
}

function showDeployments(deployments) {
  byId("deployments-section").hidden = deployments.length === 0;
  show("deployments", deployments, () => {
    const rows = deployments.slice(0, ROWS_MAX).map((deployment) =>
      el("tr", {},
        el("td", {}, (deployment.affectedApps || []).join(", ")),
        el("td", {}, (deployment.currentActions || [])
          .map((action) => DOING[action.action] || action.action).join(", ")),
        el("td", { class: "number" }, `step ${deployment.currentStep} of ${deployment.totalSteps}`),
        el("td", { class: "mono wide" }, deployment.id)));
    return el("div", { class: "panel" },
      table([["Services"], ["Doing"], ["Progress", "number"], ["Id", "wide"]], rows));
  });
}

function nodeCard(node) {
  const used = node.used_resources || {};
  const all = node.resources || {};
  const line = (name, text, u, t) => [el("span", { class: "quiet" }, name), meter(u, t), el("span", {}, text)];
  return el("article", { class: "card" },
    el("h3", {}, node.hostname, node.active ? state("good", "Connected") : state("bad", "Not connected")),
    el("div", { class: "mono" }, node.id),
    el("div", { class: "usage" },
      line("CPUs", `${round(used.cpus || 0)} of ${round(all.cpus || 0)}`, used.cpus, all.cpus),
      line("Memory", `${size(used.mem || 0)} of ${size(all.mem || 0)}`, used.mem, all.mem),
      line("Disk", `${size(used.disk || 0)} of ${size(all.disk || 0)}`, used.disk, all.disk)),
    (node.lacks || []).map((lack) => el("p", { class: "lack" }, lack)));
}

function showNodes(nodes) {
  show("nodes", nodes, () => nodes.length > 0
    ? nodes.slice(0, ROWS_MAX).map(nodeCard)
    : el("div", { class: "panel" }, el("p", { class: "empty" }, "No node has registered yet.")));
}

function showTotals(nodes, apps) {
  const sum = (of, name) => nodes.filter((n) => n.active).reduce((s, n) => s + ((n[of] || {})[name] || 0), 0);
  const running = apps.reduce((s, app) => s + app.tasksRunning, 0);
  const data = [nodes.filter((n) => n.active).length, apps.length, running,
    sum("used_resources", "cpus"), sum("resources", "cpus"), sum("used_resources", "mem"), sum("resources", "mem")];
  show("totals", data, () => {
    const [active, services, tasks, cpus, allCpus, mem, allMem] = data;
    const total = (value, words, ...more) => el("div", { class: "total" }, el("b", {}, value), el("span", {}, words), more);
    return [
      total(String(services), services === 1 ? "service" : "services"),
      total(String(tasks), tasks === 1 ? "running task" : "running tasks"),
      total(round(cpus), `of ${plural(Number(round(allCpus)), "CPU")} given out`, meter(cpus, allCpus)),
      total(size(mem), `of ${size(allMem)} given out`, meter(mem, allMem)),
      total(String(active), active === 1 ? "node connected" : "nodes connected"),
    ];
  });
}

let latest = null;

async function load() {
  const [summary, apps, queue, deployments, info] = await Promise.all([
    getJson("/state-summary"),
    getJson("/v2/apps?embed=apps.tasks&embed=apps.lastTaskFailure"),
    getJson("/v2/queue"),
    getJson("/v2/deployments"),
    getJson("/v2/info"),
  ]);
  latest = { cluster: summary.cluster, nodes: summary.slaves, apps: apps.apps, queue: queue.queue, deployments, info };
}

async function render() {
  if (latest === null) return;
  const { cluster, nodes, apps, queue, deployments, info } = latest;
  const now = Date.now();
  const byApp = new Map(queue.filter((entry) => entry.app).map((entry) => [entry.app.id, entry]));
  byId("cluster").textContent = [cluster, (info.buildref || "").replace(/^gantry-/, "")].filter(Boolean).join(" · ");
  showTotals(nodes, apps);
  showApps([...apps].sort((a, b) => (a.id < b.id ? -1 : 1)), byApp, now);
  showWaiting(queue);
  showDeployments(deployments);
  showNodes(nodes);
}

async function poll() {
  const link = byId("link");
  try {
    if (!document.hidden) {
      await load();
      await render();
      link.textContent = "Live";
      link.classList.remove("lost");
    }
  } catch (error) {
    link.textContent = `No answer, trying again: ${error.message}`;
    link.classList.add("lost");
  }
  setTimeout(poll, POLL_MS);
}

/** The drawer that follows one file of one task. */
const output = {
  path: null, offset: 0, timer: null,

  async open(taskId, file) {
    clearTimeout(this.timer);
    this.path = `/frameworks/${latest.info.frameworkId}/executors/${taskId}/runs/latest/${file}`;
    byId("output-title").textContent = `${file} of ${taskId}`;
    byId("output-note").textContent = "";
    byId("output-text").textContent = "";
    byId("output").hidden = false;
    byId("output-close").focus();
    this.offset = null;
    await this.follow(this.path);
  },

  close() {
    clearTimeout(this.timer);
    this.path = null;
    byId("output").hidden = true;
  },

  read(offset, length) {
    const query = new URLSearchParams({ path: this.path, offset, length });
    return getJson(`/files/read?${query}`);
  },

  /** Reads what is new; goes on until the drawer shows another file. */
  async follow(path) {
    let more = false;
    try {
      if (this.offset === null) {
        const end = (await this.read(-1, 0)).offset;
        if (this.path !== path) return;
        this.offset = Math.max(0, end - OUTPUT_CHUNK);
      }
      const answer = await this.read(this.offset, OUTPUT_CHUNK);
      if (this.path !== path) return;
      // The file is shorter than what was read of it when it has been rotated: begin again.
      if (answer.data === "" && (await this.read(-1, 0)).offset < this.offset) this.offset = 0;
      if (this.path !== path) return;
      const bytes = new TextEncoder().encode(answer.data).length;
      this.offset += bytes;
      more = bytes > 0;
      this.append(answer.data);
      byId("output-note").textContent = this.offset === 0 ? "Nothing written yet" : "";
    } catch (error) {
      if (this.path !== path) return;
      byId("output-note").textContent = error.message;
    }
    this.timer = setTimeout(() => this.follow(path), more ? 50 : OUTPUT_POLL_MS);
  },

  append(text) {
    if (text === "") return;
    const place = byId("output-text");
    const atEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 20;
    const all = place.textContent + text;
    place.textContent = all.length > OUTPUT_KEPT_CHARS ? all.slice(-OUTPUT_KEPT_CHARS) : all;
    if (atEnd) place.scrollTop = place.scrollHeight;
  },
};

byId("output-close").addEventListener("click", () => output.close());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") output.close(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) load().then(render).catch(() => {}); });
poll();
