// The page: sends a turn, shows its events as they come.
import { WORDS } from "./words.js";
import { Recording, Speech } from "./sound.js";

const STAGES = ["stt", "nlu", "policy", "generate", "tts"];
const $ = (id) => document.getElementById(id);

const page = { language: "en", domain: null, domains: [], conversation: null, recording: null };
const words = () => WORDS[page.language];

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function notice(text = "") { $("notice").textContent = text; }

// ---- talking to the server

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    const given = prompt(words().key);
    if (given) {
      sessionStorage.setItem("key", given);
      return ask(path, options);
    }
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `HTTP ${answer.status}`);
  }
  return answer;
}

/** Events of a server-sent stream, as [name, data]. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (waiting + value).split("\n\n");
    waiting = blocks.pop();
    for (const block of blocks) {
      const name = block.match(/^event: (.*)$/m)?.[1];
      const data = block.match(/^data: (.*)$/m)?.[1];
      if (name && data) yield [name, JSON.parse(data)];
    }
  }
}

function request(utterance, aloud) {
  const fields = { domain: page.domain, reply: aloud ? ["text", "audio"] : ["text"], format: "pcm" };
  if (page.conversation) fields.conversation_id = page.conversation;
  const headers = { Accept: "text/event-stream" };
  if (utterance instanceof Blob) {
    const body = new FormData();
    for (const [name, value] of Object.entries({ ...fields, language: page.language })) {
      for (const one of [value].flat()) body.append(name, one);
    }
    body.append("audio", utterance, "utterance");
    return { method: "POST", headers, body };
  }
  // Typed text tells its own language; the greeting has no text to tell it by.
  if (utterance === null) fields.language = page.language;
  headers["Content-Type"] = "application/json";
  return { method: "POST", headers, body: JSON.stringify({ ...fields, text: utterance }) };
}

// ---- one turn

/** `utterance` is text, a recorded Blob, or null: the bot speaks first. */
async function take(utterance, shown = utterance) {
  const aloud = utterance !== null && $("voice").getAttribute("aria-pressed") === "true";
  const view = show(typeof shown === "string" ? shown : null);
  const turn = { view, speech: aloud ? new Speech() : null, greeting: utterance === null };
  notice();
  try {
    const answer = await ask("v1/converse", request(utterance, aloud));
    for await (const [name, data] of events(answer)) SHOW[name]?.(turn, data);
    if (!turn.done) throw new Error(words().lost);
  } catch (error) {
    view.classList.add("failed");
    view.querySelector(".words").textContent = error instanceof TypeError ? words().lost : error.message;
  }
  view.classList.remove("waiting");
}

const SHOW = {
  "transcript.final"(turn, { text }) {
    said(turn.view, text || words().unheard, !text);
  },
  understanding(turn, { intent, entities }) {
    const chips = turn.view.querySelector(".chips");
    const sure = intent.name ? ` ${Math.round(intent.confidence * 100)} %` : "";
    // The bare answer to a question ("Leo") has no intent, and needs none.
    if (intent.name || !entities.length) {
      chips.append(element("span", "chip", element("b", "", intent.name ?? words().unknown), sure));
    }
    for (const { entity, value } of entities) {
      const plain = typeof value === "object" ? Object.values(value ?? {}).filter(Boolean).join(" ") : value;
      chips.append(element("span", "chip", `${entity} `, element("b", "", String(plain))));
    }
    turn.view.querySelector("footer").hidden = false;
  },
  "reply.delta"(turn, { text }) {
    turn.view.querySelector(".words").append(text);
    follow();
  },
  "audio.delta"(turn, { audio, sample_rate: rate }) {
    turn.speech?.add(audio, rate);
  },
  error(turn, { error }) {
    throw new Error(error.message);
  },
  done(turn, done) {
    turn.done = true;
    page.conversation = done.conversation_id;
    turn.view.querySelector(".words").textContent = done.reply.text;
    turn.view.querySelector(".words").lang = done.language;
    buttons(turn.view, done.reply.buttons);
    for (const part of done.degraded) {
      turn.view.querySelector(".chips").append(element("span", "chip degraded", `${words().degraded} ${part}`));
    }
    if (!turn.greeting) {
      timings(turn.view, done.timings);
      tools(turn, done);
      turn.view.querySelector("footer").hidden = false;
    }
    follow();
  },
};

function show(text) {
  const view = $("turn").content.cloneNode(true).querySelector(".turn");
  label(view);
  if (text) said(view, text);
  view.classList.add("waiting");
  $("turns").append(view);
  follow();
  return view;
}

function said(view, text, unheard = false) {
  const line = view.querySelector(".said");
  line.textContent = text;
  line.hidden = false;
  line.classList.toggle("unheard", unheard);
}

function follow() {
  scrollTo({ top: document.body.scrollHeight, behavior: "smooth" });
}

function buttons(view, rows) {
  for (const row of rows) {
    const line = element("div");
    for (const { title, text } of row) {
      const button = element("button", "", title);
      button.type = "button";
      button.onclick = () => take(text, title);
      line.append(button);
    }
    view.querySelector(".buttons").append(line);
  }
}

const milliseconds = (seconds) => `${seconds < 0.001 ? "< 1" : Math.round(seconds * 1000)} ${words().unit}`;

function timings(view, times) {
  for (const stage of STAGES.filter((name) => times[name])) {
    const part = element("i");
    part.style.flexGrow = 1 + times[stage] * 1e6;
    part.title = `${words()[stage]} ${milliseconds(times[stage])}`;
    const entry = element("span", "", `${words()[stage]} ${milliseconds(times[stage])}`);
    for (const one of [part, entry]) one.style.setProperty("--colour", `var(--${stage})`);
    view.querySelector(".track").append(part);
    view.querySelector(".legend").append(entry);
  }
  for (const [name, key] of [["first", "first_audio"], ["total", "total"]]) {
    if (times[key] === undefined) continue;
    const entry = element("span", "total", `${words()[name]} ${milliseconds(times[key])}`);
    view.querySelector(".legend").append(entry);
  }
}

function tools({ view, speech }, { turn_id: id }) {
  const again = view.querySelector(".again");
  again.hidden = !speech?.chunks.length;
  again.onclick = () => speech.again();
  const thumbs = [[view.querySelector(".good"), 1], [view.querySelector(".bad"), -1]];
  for (const [thumb, rating] of thumbs) {
    thumb.onclick = async () => {
      await ask("v1/feedback", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ turn_id: id, rating }),
      }).then(() => {
        for (const [one] of thumbs) one.setAttribute("aria-pressed", String(one === thumb));
        notice(words().thanks);
      }, (error) => notice(error.message));
    };
  }
}

// ---- the page itself

function label(root) {
  for (const one of root.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", words()[one.dataset.label]);
    if (one.tagName === "BUTTON") one.title = words()[one.dataset.label];
  }
  for (const one of root.querySelectorAll("[data-text]")) one.textContent = words()[one.dataset.text];
  for (const one of root.querySelectorAll("[data-placeholder]")) one.placeholder = words()[one.dataset.placeholder];
}

function choose(language) {
  page.language = language;
  document.documentElement.lang = language;
  for (const one of $("languages").children) one.setAttribute("aria-pressed", String(one.dataset.language === language));
  label(document);
}

function begin() {
  Speech.current?.stop();
  page.conversation = null;
  $("turns").replaceChildren();
  return take(null);
}

/** The languages of the pack that the page itself can speak too. */
function enter(name) {
  page.domain = name;
  const pack = page.domains.find((one) => one.name === name);
  const languages = pack.languages.filter((language) => language in WORDS);
  $("languages").replaceChildren(...languages.map((language) => {
    const button = element("button", "", language);
    button.type = "button";
    button.dataset.language = language;
    button.onclick = () => { choose(language); begin(); };
    return button;
  }));
  choose(languages.includes(page.language) ? page.language : languages[0]);
  return begin();
}

async function record() {
  const button = $("microphone");
  if (page.recording) {
    const recording = page.recording;
    page.recording = null;
    button.setAttribute("aria-pressed", "false");
    button.dataset.label = "speak";
    label(button.parentElement);
    return take(await recording.stop(), null);
  }
  try {
    Speech.current?.stop();
    page.recording = await Recording.start((level) => button.style.setProperty("--level", level));
  } catch {
    button.disabled = true;
    return notice(words().noMicrophone);
  }
  button.setAttribute("aria-pressed", "true");
  button.dataset.label = "stop";
  label(button.parentElement);
  notice(words().listening);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  take(text);
});
$("microphone").addEventListener("click", record);
$("voice").addEventListener("click", () => {
  const pressed = $("voice").getAttribute("aria-pressed") !== "true";
  $("voice").setAttribute("aria-pressed", String(pressed));
  if (!pressed) Speech.current?.stop();
});
$("domain").addEventListener("change", (event) => enter(event.target.value));

page.language = (navigator.language ?? "en").startsWith("ru") ? "ru" : "en";
choose(page.language);
if (!navigator.mediaDevices?.getUserMedia) {
  $("microphone").disabled = true;
  notice(words().noMicrophone);
}
try {
  const { domains, default: first } = await (await ask("v1/domains")).json();
  page.domains = domains;
  $("domain").replaceChildren(...domains.map(({ name }) => element("option", "", name)));
  $("domain").value = first;
  await enter(first);
} catch (error) {
  notice(error.message);
}
