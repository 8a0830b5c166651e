// The page of `plumb serve`: conversations as trees, answers as they come, and each token's certainty on request.
import {answer, chatRequest, messagesOf, statsText} from "./answer.js";
import {call} from "./api.js";
import {byId, el} from "./dom.js";
import {Flow, blocks} from "./markdown.js";
import {buildSettings, buildTheme} from "./settings.js";
import {Store} from "./store.js";
import {close, promptView, tokenView} from "./tokens.js";

const store = new Store();
let here = store.all[0] ?? store.create(), running = null, n_ctx = 0;
const talk = byId("talk"), text = byId("text"), send = byId("send");

function notice(message) {
  byId("notice").hidden = !message;
  byId("notice").textContent = message ?? "";
}

function save() {
  if (!store.save()) notice("The browser's space for this page is full: export and delete conversations; this one is not kept.");
}

function tool(label, act, more = {}) {
  return el("button", {type: "button", onclick: act, disabled: running !== null, ...more}, label);
}

function switcher(node) {
  const parent = here.nodes[node.parent];
  if (parent.children.length < 2) return null;
  const go = (by) => () => {
    parent.active = (parent.active + by + parent.children.length) % parent.children.length;
    save();
    show();
  };
  return el("span", {}, tool("\u2039", go(-1), {"aria-label": "Earlier version"}), ` ${parent.active + 1}/${parent.children.length} `,
    tool("\u203a", go(1), {"aria-label": "Later version"}));
}

function edit(id, article) {
  const node = here.nodes[id];
  const area = el("textarea", {rows: 4, value: node.content, "aria-label": "Edit message"});
  const done = () => {
    if (area.value.trim() === "") return;
    store.add(here, node.parent, "user", area.value);
    reply();
  };
  article.replaceChildren(area, el("div", {className: "tools"}, tool("Send", done), tool("Cancel", show)));
  area.focus();
}

function before(id) {
  const path = store.path(here);
  return path.slice(0, path.indexOf(id)).map((i) => here.nodes[i]);
}

// Another answer that begins with the tokens before `index` and goes on with `piece`.
function branch(id, index, piece) {
  if (running) return;
  const node = here.nodes[id];
  const tokens = node.tokens.slice(0, index);
  const content = tokens.map((t) => t.text).join("") + piece;
  const other = store.add(here, node.parent, "assistant", content);
  here.nodes[other].tokens = tokens.concat(node.tokens[index].top.filter(([t]) => t === piece)
    .map(([t, logprob]) => ({text: t, logprob, top: node.tokens[index].top})));
  close();
  generate(other);
}

async function showPrompt(id) {
  try {
    const messages = messagesOf(before(id), store.settings.system);
    const {prompt} = await call("/apply-template", {messages});
    promptView(prompt, (await call("/tokenize", {content: prompt, with_pieces: true})).tokens, chatRequest(messages, store.settings));
  } catch (e) {
    notice(e.message);
  }
}

function userArticle(id, node) {
  const article = el("article", {className: "user"}, el("div", {className: "body"}, node.content));
  article.append(el("div", {className: "tools"}, tool("Edit", () => edit(id, article)), switcher(node)));
  return article;
}

function answerTools(id, node, body) {
  let tokens = false;
  const sureness = () => {
    tokens = !tokens;
    body.replaceChildren(...(tokens ? [tokenView(node.tokens, (index, piece) => branch(id, index, piece))] : blocks(node.content)));
    if (!tokens) close();
  };
  const again = () => {
    store.add(here, node.parent, "assistant", "");
    generate(here.nodes[node.parent].children.at(-1));
  };
  const proceed = node.stats?.reason === "stop" || !node.content ? null : tool("Continue", () => generate(id));
  return el("div", {className: "tools"}, tool("Regenerate", again), proceed,
    node.tokens?.length ? tool("Certainty", sureness) : null, tool("Prompt", () => showPrompt(id)),
    tool("Copy", () => navigator.clipboard?.writeText(node.content)), switcher(node), el("span", {}, statsText(node.stats)));
}

function thought(node) {
  return node.thought ? el("details", {className: "thought"}, el("summary", {}, "Reasoning"), ...blocks(node.thought)) : null;
}

function answerArticle(id, node) {
  const body = el("div", {className: "body"}, ...blocks(node.content));
  const article = el("article", {className: "assistant"}, thought(node), body);
  article.append(answerTools(id, node, body));
  return article;
}

function show() {
  close();
  const nodes = store.path(here).map((id) => [id, here.nodes[id]]);
  talk.replaceChildren(...nodes.map(([id, n]) => n.role === "user" ? userArticle(id, n) : answerArticle(id, n)));
  if (nodes.length === 0) talk.append(el("p", {className: "empty"}, "Nothing said yet."));
  const usage = nodes.map(([, n]) => n.stats?.usage?.total_tokens).filter((n) => n).at(-1);
  byId("gauge").textContent = usage && n_ctx ? `${usage} of ${n_ctx}` : "";
  showList();
  talk.scrollTop = talk.scrollHeight;
}

function rename(c, item) {
  const input = el("input", {value: c.title, "aria-label": "Title", maxLength: 200});
  input.onkeydown = (e) => {
    if (e.key === "Enter") input.blur();
  };
  input.onblur = () => {
    c.title = input.value.trim() || c.title;
    save();
    showList();
  };
  item.replaceChildren(input);
  input.focus();
}

function open(c) {
  if (running) return;
  here = c;
  byId("side").classList.remove("shown");
  show();
}

function showList() {
  byId("list").replaceChildren(...store.matching(byId("search").value).map((c) => {
    const item = el("li", {className: c === here ? "here" : ""});
    item.append(el("button", {className: "open", onclick: () => open(c), title: c.title}, c.title),
      el("button", {className: "small", onclick: () => rename(c, item), "aria-label": "Rename " + c.title}, "\u270e"),
      el("button", {className: "small", "aria-label": "Delete " + c.title, onclick: () => {
        if (running || !confirm(`Delete "${c.title}"?`)) return;
        store.remove(c);
        if (c === here) here = store.all[0] ?? store.create();
        save();
        show();
      }}, "\u00d7"));
    return item;
  }));
}

function explain(e) {
  if (e.name === "AbortError") return null;
  if (e.status === 401) {
    byId("settings").hidden = false;
    byId("key").focus();
    return "The server asks for a key: " + e.message;
  }
  if (e.status === 429) return `The server is busy; try again in ${e.retry || "a few"} seconds.`;
  if (e instanceof TypeError) return "The server cannot be reached. What came is kept; Continue goes on from it.";
  return e.message;
}

async function generate(id) {
  notice(null);
  running = new AbortController();
  send.textContent = "Stop";
  const node = here.nodes[id], history = before(id);
  show();
  const article = talk.lastChild, body = article.querySelector(".body"), flow = new Flow(body);
  body.replaceChildren();
  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const low = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
      if (running) flow.show(node.content);
      if (low) talk.scrollTop = talk.scrollHeight;
    });
  };
  try {
    await answer(node, messagesOf(history, store.settings.system), store.settings, running.signal, draw);
  } catch (e) {
    notice(explain(e));
  }
  running = null;
  send.textContent = "Send";
  save();
  show();
  text.focus();
}

function reply() {
  const leaf = store.path(here).at(-1);
  generate(store.add(here, leaf, "assistant", ""));
}

function ask() {
  if (running) return running.abort();
  const content = text.value;
  if (content.trim() === "") return undefined;
  const path = store.path(here);
  if (path.length === 0) here.title = content.trim().slice(0, 60);
  store.add(here, path.at(-1) ?? "root", "user", content);
  text.value = "";
  grow();
  return reply();
}

function grow() {
  text.style.height = "auto";
  text.style.height = text.scrollHeight + 2 + "px";
}

function wire() {
  byId("ask").onsubmit = (e) => {
    e.preventDefault();
    ask();
  };
  text.oninput = grow;
  text.onkeydown = (e) => {
    if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
    e.preventDefault();
    if (!running) ask();
  };
  document.onkeydown = (e) => {
    if (e.key === "Escape") running ? running.abort() : close();
    if (e.altKey && e.key.toLowerCase() === "n") byId("new").click();
  };
  byId("new").onclick = () => {
    if (running) return;
    open(store.all.find((c) => c.nodes.root.children.length === 0) ?? store.create());
    text.focus();
  };
  byId("search").oninput = showList;
  byId("menu").onclick = () => byId("menu").setAttribute("aria-expanded", byId("side").classList.toggle("shown"));
  talk.onclick = () => byId("side").classList.remove("shown");
  byId("tune").onclick = () => {
    close();
    byId("settings").hidden = !byId("settings").hidden;
    byId("tune").setAttribute("aria-expanded", !byId("settings").hidden);
  };
  byId("export").onclick = () => {
    const url = URL.createObjectURL(new Blob([store.exported()], {type: "application/json"}));
    el("a", {href: url, download: "plumb-conversations.json"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  byId("import").onclick = () => byId("file").click();
  byId("file").onchange = async (e) => {
    try {
      notice(`${store.imported(await e.target.files[0].text())} conversations imported.`);
      save();
      showList();
    } catch {
      notice("This file holds no conversations of this page.");
    }
    e.target.value = "";
  };
}

async function greet() {
  try {
    const props = await call("/props");
    n_ctx = props.default_generation_settings?.n_ctx ?? 0;
    byId("model").textContent = props.model_alias ?? "";
    show();
  } catch (e) {
    notice(explain(e));
  }
}

buildTheme();
buildSettings(store);
wire();
show();
greet();
text.focus();
