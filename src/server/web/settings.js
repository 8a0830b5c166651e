// The form of sampling, system prompt and key; and the colours.
import {byId, el} from "./dom.js";
import {kDefaults} from "./store.js";

const kNumbers = [["temperature", "Temperature", 0, 5, 0.05], ["top_k", "Top k (0: all)", 0, 1000, 1], ["top_p", "Top p", 0, 1, 0.01],
  ["min_p", "Min p", 0, 1, 0.01], ["repeat_penalty", "Repeat penalty", 0.1, 5, 0.05], ["seed", "Seed (-1: any)", -1, 2 ** 31, 1],
  ["max_tokens", "Most tokens", 1, 100000, 1]];

export function buildSettings(store) {
  const form = byId("settings");
  const keep = (name, value) => {
    store.settings[name] = value;
    store.save();
  };
  const number = ([name, label, min, max, step]) => el("label", {}, label, el("input", {type: "number", min, max, step, name, value: store.settings[name],
    onchange: (e) => keep(name, e.target.validity.valid && e.target.value !== "" ? Number(e.target.value) : kDefaults[name])}));
  const area = (name, label) => el("label", {className: "wide"}, label, el("textarea", {rows: 2, name, value: store.settings[name],
    onchange: (e) => keep(name, e.target.value)}));
  const key = el("label", {className: "wide"}, "API key (kept until this tab is closed)", el("input", {type: "password", autocomplete: "off",
    id: "key", value: sessionStorage.getItem("plumb.key") ?? "", onchange: (e) => sessionStorage.setItem("plumb.key", e.target.value)}));
  const reset = el("button", {type: "button", onclick: () => {
    Object.assign(store.settings, kDefaults);
    store.save();
    buildSettings(store);
  }}, "Defaults");
  form.replaceChildren(...kNumbers.map(number), area("system", "System prompt"), area("stop", "Stop strings, one a line"), key, reset);
  form.onsubmit = (e) => e.preventDefault();
}

export function buildTheme() {
  const themes = ["system", "light", "dark"], button = byId("theme");
  const show = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = {system: "Auto", light: "Light", dark: "Dark"}[name];
  };
  let now = themes.includes(localStorage.getItem("plumb.theme")) ? localStorage.getItem("plumb.theme") : "system";
  show(now);
  button.onclick = () => {
    now = themes[(themes.indexOf(now) + 1) % themes.length];
    localStorage.setItem("plumb.theme", now);
    show(now);
  };
}
