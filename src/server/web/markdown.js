// Markdown as DOM nodes: paragraphs, headings, lists, tables, quotes, rules, fenced code; bold, italic, code, safe links.
import {el} from "./dom.js";

const kInline = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([^*\n]+(?:\*[^*\n]+)*)\*\*|(?<![\w*])[*_]([^*_\s][^*_\n]*?)[*_](?![\w*])|\[([^\]\n]+)\]\(([^)\s]+)\)|(https?:\/\/[^\s<>"')\]]+)/g;
const kDeepest = 6;

function link(text, target, depth) {
  let url = null;
  try {
    url = new URL(target);
  } catch {
    return [text];
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return [text];
  return [el("a", {href: url.href, rel: "noopener noreferrer", target: "_blank"}, ...inline(text, depth + 1, false))];
}

export function inline(text, depth = 0, links = true) {
  if (depth > kDeepest) return [text];
  const out = [];
  let at = 0;
  for (const m of text.matchAll(kInline)) {
    out.push(text.slice(at, m.index));
    if (m[2] !== undefined) out.push(el("code", {}, m[2]));
    else if (m[3] !== undefined) out.push(el("strong", {}, ...inline(m[3], depth + 1, links)));
    else if (m[4] !== undefined) out.push(el("em", {}, ...inline(m[4], depth + 1, links)));
    else if (m[5] !== undefined) out.push(...(links ? link(m[5], m[6], depth) : [m[5]]));
    else out.push(...(links ? link(m[7], m[7], kDeepest) : [m[7]]));
    at = m.index + m[0].length;
  }
  out.push(text.slice(at));
  return out.filter((part) => part !== "");
}

function codeBlock(text) {
  const copy = el("button", {type: "button", onclick: () => navigator.clipboard?.writeText(text)}, "Copy");
  return el("pre", {}, copy, el("code", {}, text));
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((c) => c.trim());

function table(lines) {
  const row = (tag) => (line) => el("tr", {}, ...cells(line).map((c) => el(tag, {}, ...inline(c))));
  return el("table", {}, el("thead", {}, row("th")(lines[0])), el("tbody", {}, ...lines.slice(2).map(row("td"))));
}

const kItem = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

function list(lines, depth) {
  const [, indent, mark] = lines[0].match(kItem);
  const ordered = /\d/.test(mark);
  const items = [];
  for (const line of lines) {
    const m = line.match(kItem);
    if (m && m[1].length <= indent.length) items.push([m[3]]);
    else items[items.length - 1].push(line.slice(Math.min(indent.length + 2, line.search(/\S|$/))));
  }
  const nodes = items.map((item) => {
    const nested = item.slice(1).join("\n");
    return el("li", {}, ...inline(item[0]), ...(nested.trim() && depth < kDeepest ? blocks(nested, depth + 1) : []));
  });
  return el(ordered ? "ol" : "ul", ordered ? {start: Math.min(parseInt(mark, 10), 1e6)} : {}, ...nodes);
}

// The end of the lines from `at` on for which `holds`.
function run(lines, at, holds) {
  let end = at + 1;
  while (end < lines.length && holds(lines[end])) ++end;
  return end;
}

function block(lines, at, depth) {
  const line = lines[at];
  const fence = line.match(/^\s*(```+|~~~+)/);
  if (fence) {
    const end = run(lines, at, (l) => !l.trim().startsWith(fence[1]));
    return [codeBlock(lines.slice(at + 1, end).join("\n")), end + 1];
  }
  const heading = line.match(/^(#{1,6})\s+(.*)$/);
  if (heading) return [el("h" + Math.min(3, heading[1].length), {}, ...inline(heading[2])), at + 1];
  if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) return [el("hr"), at + 1];
  if (line.startsWith(">")) {
    const end = run(lines, at, (l) => l.startsWith(">"));
    const inner = lines.slice(at, end).map((l) => l.replace(/^>\s?/, "")).join("\n");
    return [el("blockquote", {}, ...(depth < kDeepest ? blocks(inner, depth + 1) : [inner])), end];
  }
  if (line.includes("|") && /^[\s|:-]+$/.test(lines[at + 1] ?? "") && (lines[at + 1] ?? "").includes("-")) {
    const end = run(lines, at + 1, (l) => l.includes("|"));
    return [table(lines.slice(at, end)), end];
  }
  if (kItem.test(line)) {
    const end = run(lines, at, (l) => kItem.test(l) || /^\s{2,}\S/.test(l));
    return [list(lines.slice(at, end), depth), end];
  }
  const end = run(lines, at, (l) => l.trim() !== "" && !/^(#{1,6}\s|>|\s*```|\s*~~~)/.test(l) && !kItem.test(l));
  const parts = lines.slice(at, end).flatMap((l, i) => (i > 0 ? [el("br")] : []).concat(inline(l)));
  return [el("p", {}, ...parts), end];
}

export function blocks(text, depth = 0) {
  const lines = text.split("\n");
  const out = [];
  for (let at = 0; at < lines.length;) {
    if (lines[at].trim() === "") {
      ++at;
      continue;
    }
    const [node, next] = block(lines, at, depth);
    out.push(node);
    at = next;
  }
  return out;
}

// Streams: what stands before the last blank line outside of a fence is final and stays in the page.
export class Flow {
  constructor(node) {
    this.node = node;
    this.done = 0;
    this.kept = 0;
  }

  show(text) {
    const rest = text.slice(this.done);
    const cut = this.lastBreak(rest);
    while (this.node.childNodes.length > this.kept) this.node.lastChild.remove();
    if (cut > 0) {
      this.node.append(...blocks(rest.slice(0, cut)));
      this.kept = this.node.childNodes.length;
      this.done += cut;
    }
    this.node.append(...blocks(rest.slice(cut)));
  }

  lastBreak(text) {
    let fenced = false, at = 0, cut = 0;
    const lines = text.split("\n");
    for (let i = 0; i + 1 < lines.length; ++i) {
      if (/^\s*(```|~~~)/.test(lines[i])) fenced = !fenced;
      at += lines[i].length + 1;
      if (!fenced && lines[i].trim() === "" && /^\S/.test(lines[i + 1]) && !/^([-*+]|\d+[.)])\s/.test(lines[i + 1])) cut = at;
    }
    return cut;
  }
}
