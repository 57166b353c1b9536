/** The page: puts the parts together. What is where: conversation.js the state, view.js what is seen of it. */

import { Access } from "./access.js";
import { reduce } from "./conversation.js";
import { Outbox } from "./outbox.js";
import { ReadingSession } from "./session.js";
import { Sidebar } from "./sidebar.js";
import { Tailrace, TailraceError, randomId } from "./tailrace.js";
import { Traces } from "./traces.js";
import { ConversationView } from "./view.js";

const ANSWER_MS = 15_000; // for a prompt to be taken, which takes milliseconds: then its connection is dead

const at = (id) => document.getElementById(id);
const base = new URL(".", document.baseURI).href;
const access = new Access({ base, ask: askForToken });
const tailrace = new Tailrace({ base, token: access.token });
const traces = new Traces({ get: (path) => authorized(() => tailrace.get(path)), onKnown: draw });
const outbox = new Outbox({ post, onChange: draw });
const sidebar = new Sidebar({ list: at("sessions"), empty: at("no-sessions") });
const view = new ConversationView({
  list: at("conversation"),
  scroller: at("scroller"),
  latest: at("latest"),
  working: at("working"),
});

let apps = [];
let session = null; // the ReadingSession that is shown
let stopping = null; // the id of the run that was told to stop
let drawing = 0;
let announced = 0; // up to which seq answers were read out

// --- what is shown ------------------------------------------------------------------------------------------

function open(id) {
  session?.close();
  view.clear();
  outbox.leave();
  announced = 0;
  showProblem(null);
  if (!at("prompt").value) giveBack(outbox.unsent(id));
  session = new ReadingSession({ id, tailrace, reduce, onChange: draw, onRefused, onEvent });
  session.follow();
  sidebar.mark(id);
  showDrawer(false);
  draw();
}

/** Draws once in the next frame, however much changes before it. */
function draw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    if (!session.settled) return; // history comes in one piece, not word by word
    const { state } = session;
    outbox.settle(session);
    const { pending } = outbox;
    const items = pending ? [...state.items, pending.item] : state.items;
    const working = state.activeRun !== null || (pending !== null && !pending.away);
    view.show(items, working);
    view.link((runId) => traces.url(session.id, runId, state.runs[runId]?.trace));
    at("welcome").hidden = items.length > 0;
    at("send").disabled = working || pending !== null;
    at("send").hidden = state.activeRun !== null;
    at("stop").hidden = state.activeRun === null;
    at("stop").disabled = stopping !== null && stopping === state.activeRun;
    showTrying(pending?.away);
    showStatus(working);
    showTitle();
    announce(state);
  });
}

function showStatus(working) {
  const connection = outbox.pending?.away ? "offline" : session.connection;
  const state = connection === "live" && !working ? "idle" : connection;
  const node = at("status");
  const text = STATUS[state] ?? "";
  node.dataset.state = state;
  node.dataset.working = working;
  const ended = Object.keys(session.state.runs).length > 0;
  const words = state === "idle" ? (ended ? "Finished" : "Ready") : text;
  if (node.textContent !== words) node.textContent = words;
}

const STATUS = { new: "Ready", connecting: "Connecting …", live: "Live", offline: "Offline, trying again" };

function showTitle() {
  const app = apps.find(({ session_id }) => session_id === session.id);
  const first = session.state.items.find((item) => item.role === "user");
  const title = app?.title || first?.text || "New conversation";
  if (at("title").textContent === title) return;
  at("title").textContent = title;
  document.title = title === "New conversation" ? "Tailrace" : `${title.slice(0, 60)} · Tailrace`;
}

/** Reads out answers as they are complete: word by word a screen reader would only stutter. */
function announce(state) {
  const done = state.items.filter(
    (item) => item.role === "assistant" && item.status === "complete" && item.text && item.seq > announced,
  );
  if (announced > 0 && done.length > 0) at("announcer").textContent = done.map((item) => item.text).join("\n");
  announced = Math.max(announced, 1, ...done.map((item) => item.seq));
}

function showProblem(text, level = "failed") {
  const node = at("problem");
  node.dataset.level = level;
  node.hidden = !text;
  if (node.textContent !== (text ?? "")) node.textContent = text ?? ""; // each change is read out
}

/** Says why the pending prompt cannot be sent, as long as that is so. */
function showTrying(why) {
  if (why) showProblem(`${why} Trying again …`, "trying");
  else if (at("problem").dataset.level === "trying") showProblem(null);
}

// --- what happens -------------------------------------------------------------------------------------------

function onEvent({ data }) {
  if (session.settled && (data.event_type === "run_queued" || data.event_type === "finish")) refresh();
}

/** The server does not want to stream this session to us. */
async function onRefused(error) {
  if (error instanceof TailraceError && error.status === 401) {
    access.refuse();
    await new Promise((resolve) => setTimeout(resolve, 500)); // a server that refuses its own token has time
    return true;
  }
  showProblem(error instanceof TailraceError ? error.message : `A part of this is missing: ${error.message}.`);
  return false;
}

async function refresh() {
  try {
    ({ apps } = await authorized(() => tailrace.get("api/apps")));
    sidebar.show(apps, session.id);
    if (session.settled) showTitle();
  } catch {
    // The list comes again with the next run; the stream says whether the server is there.
  }
}

async function send(text) {
  const sentTo = session;
  showProblem(null);
  const sending = outbox.send(sentTo, text);
  draw();
  view.toBottom();
  try {
    await sending;
    if (sentTo.id === session.id) session.follow();
  } catch (error) {
    if (sentTo !== session) return;
    giveBack(text);
    showProblem(explained(error));
  }
  draw();
  refresh();
}

function post(id, text, idempotencyKey) {
  return authorized(async () => {
    await access.token(); // a person may be asked for it, and takes their time
    const signal = AbortSignal.timeout(ANSWER_MS);
    return tailrace.generate(id, { prompt: text }, { idempotencyKey, signal });
  });
}

async function stop() {
  const { id, state } = session;
  const asked = state.activeRun;
  stopping = asked;
  showProblem(null);
  at("prompt").focus(); // the button is about to go, and would take the focus with it
  draw();
  try {
    await authorized(() => tailrace.cancel(id));
  } catch (error) {
    if (stopping !== asked) return;
    stopping = null;
    showProblem(error instanceof TailraceError ? error.message : "The server cannot be reached. The answer goes on.");
    draw();
  }
}

/** Nothing typed is ever lost. */
function giveBack(text) {
  const typed = at("prompt").value;
  at("prompt").value = typed ? `${text}\n${typed}` : text;
  fit();
}

/** `work`, and once more with a new token when the old one is refused. */
async function authorized(work) {
  try {
    return await work();
  } catch (error) {
    if (error.status !== 401) throw error;
    access.refuse();
    return work();
  }
}

function explained(error) {
  if (error instanceof TailraceError) return error.message;
  return "The server could not be reached. Your prompt is in the box again: send it when the connection is back.";
}

function askForToken(why) {
  at("access-why").textContent = why || "This server wants a token.";
  at("access").hidden = false;
  at("composer").hidden = true;
  at("token").focus();
  return new Promise((resolve) => {
    at("access").onsubmit = (event) => {
      event.preventDefault();
      at("access").hidden = true;
      at("composer").hidden = false;
      at("prompt").focus();
      resolve(at("token").value);
      at("token").value = "";
    };
  });
}

// --- the controls -------------------------------------------------------------------------------------------

function fit() {
  const box = at("prompt");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 200)}px`;
}

function showDrawer(shown) {
  document.body.classList.toggle("drawer", shown);
  at("menu").setAttribute("aria-expanded", String(shown));
  at("shade").hidden = !shown;
}

function startNew() {
  location.hash = randomId();
  at("prompt").focus();
}

function fromHash() {
  const id = location.hash.slice(1);
  if (/^[A-Za-z0-9_-]{1,64}$/.test(id)) open(id);
  else location.replace(`#${randomId()}`);
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("prompt").value;
  if (!text.trim() || at("send").disabled) return;
  at("prompt").value = "";
  fit();
  send(text);
});
at("stop").addEventListener("click", stop);
at("prompt").addEventListener("input", fit);
at("prompt").addEventListener("keydown", (event) => {
  // An Enter that ends the composition of a Japanese or Chinese word sends nothing.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("composer").requestSubmit();
});
at("examples").addEventListener("click", ({ target }) => {
  if (target.tagName === "BUTTON" && !at("send").disabled) send(target.textContent);
});
at("new").addEventListener("click", startNew);
at("menu").addEventListener("click", () => showDrawer(!document.body.classList.contains("drawer")));
at("shade").addEventListener("click", () => showDrawer(false));
document.addEventListener("keydown", ({ key }) => key === "Escape" && showDrawer(false));
document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault(); // the hash belongs to the session
  at("prompt").focus();
});
addEventListener("hashchange", fromHash);

fromHash();
refresh();
