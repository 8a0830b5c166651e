// The panel that shows how sure the model was: every token of an answer tinted by its doubt, what it might have said instead, and
// the margin against the numeric noise of the engine.
import {byId, el} from "./dom.js";

// Logits of one engine in other arithmetics lie about this far apart (rms; docs/web.md): below it a choice is a tie.
const kNoise = 0.06;

const percent = (logprob) => Math.exp(logprob);
const shown = (text) => text === "" ? "(no visible text)" : text.replace(/\n/g, "\u23ce\n");

// From both shapes of the API: {text, logprob, margin, top: [[text, logprob]]}.
export function fromChat(content) {
  return content.map((t) => ({text: t.token, logprob: t.logprob, margin: t.margin, top: (t.top_logprobs ?? []).map((o) => [o.token, o.logprob])}));
}

export function fromText(logprobs) {
  return logprobs.tokens.map((text, i) => ({text, logprob: logprobs.token_logprobs[i], margin: logprobs.margin?.[i],
    top: Object.entries(logprobs.top_logprobs?.[i] ?? {}).sort((a, b) => b[1] - a[1])}));
}

function weigh(token) {
  if (token.margin === undefined || token.margin === null) return "";
  const size = token.margin.toFixed(3);
  return token.margin < kNoise ? `margin ${size}: a tie within the numeric noise; another engine may choose otherwise`
                               : `margin ${size} to the runner-up, ${Math.round(token.margin / kNoise)} times the numeric noise`;
}

function rank(token) {
  const at = token.top.findIndex(([text]) => text === token.text);
  return at < 0 ? `not among the ${token.top.length} likeliest` : at === 0 ? "the likeliest" : `number ${at + 1} in likelihood`;
}

function choices(token, index, branch) {
  const rows = token.top.map(([text, logprob]) => {
    const take = text === token.text ? el("span", {}, "taken") : el("button", {type: "button", onclick: () => branch(index, text)}, "Branch here");
    return el("tr", {}, el("td", {}, el("code", {}, shown(text))), el("td", {}, el("meter", {value: percent(logprob), min: 0, max: 1})),
      el("td", {}, (100 * percent(logprob)).toFixed(1) + " %"), el("td", {}, take));
  });
  return el("table", {}, ...rows);
}

export function close() {
  byId("inspect").hidden = true;
  byId("inspect").replaceChildren();
}

function inspect(token, index, branch) {
  const panel = byId("inspect");
  panel.hidden = false;
  panel.replaceChildren(
    el("div", {className: "bar"}, el("h2", {className: "grow"}, "Token " + (index + 1)), el("button", {type: "button", onclick: close}, "Close")),
    el("pre", {}, shown(token.text)),
    el("p", {}, `${(100 * percent(token.logprob)).toFixed(2)} % (log ${token.logprob.toFixed(4)}), ${rank(token)}`),
    el("p", {}, weigh(token)), choices(token, index, branch));
}

// `branch(index, text)` continues from the tokens before `index` with another one.
export function tokenView(tokens, branch) {
  const view = el("div", {className: "tokens"});
  tokens.forEach((token, index) => {
    const button = el("button", {type: "button", title: (100 * percent(token.logprob)).toFixed(1) + " %", onclick: () => {
      for (const other of view.children) other.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      inspect(token, index, branch);
      button.scrollIntoView({block: "nearest"});
    }}, shown(token.text));
    button.style.setProperty("--doubt", String(0.5 * (1 - percent(token.logprob))));
    view.append(button);
  });
  return view;
}

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

const curl = (body) => `curl ${quoted(location.origin + "/v1/chat/completions")} -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body, null, 1))}`;

// What the model was given: the text behind the template, its tokens, and the request that asks for the same.
export function promptView(text, pieces, request) {
  const panel = byId("inspect");
  panel.hidden = false;
  const list = el("div", {className: "tokens"}, ...pieces.map((p) => el("span", {title: "id " + p.id},
    (typeof p.piece === "string" ? shown(p.piece) : "\ufffd") + "\u00b7")));
  panel.replaceChildren(el("div", {className: "bar"}, el("h2", {className: "grow"}, `Prompt, ${pieces.length} tokens`),
    el("button", {type: "button", onclick: close}, "Close")), el("pre", {}, text), el("h2", {}, "Tokens"), list,
    el("h2", {}, "The same without this page"), el("pre", {}, curl(request)));
}
