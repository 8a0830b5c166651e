// Conversations: trees of messages, kept in this browser alone. A message's `active` is the child that is shown.
const kKey = "plumb.conversations", kSettings = "plumb.settings";
const newId = () => crypto.getRandomValues(new Uint32Array(2)).join("-");

export const kDefaults = {temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1, seed: -1, max_tokens: 1024, stop: "", system: ""};

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

const isConversation = (c) => c && typeof c.title === "string" && c.nodes && typeof c.nodes === "object" && c.nodes.root &&
  Object.values(c.nodes).every((n) => n && typeof n.content === "string" && Array.isArray(n.children) && n.children.every((k) => k in c.nodes));

export class Store {
  constructor() {
    this.all = read(kKey, []).filter(isConversation);
    this.settings = {...kDefaults, ...read(kSettings, {})};
  }

  // False where the browser's space is used up: nothing that was kept is lost by it.
  save() {
    try {
      localStorage.setItem(kKey, JSON.stringify(this.all));
      localStorage.setItem(kSettings, JSON.stringify(this.settings));
      return true;
    } catch {
      return false;
    }
  }

  create() {
    const c = {id: newId(), title: "New conversation", created: Date.now(), nodes: {root: {role: "root", content: "", parent: null, children: [], active: -1}}};
    this.all.unshift(c);
    return c;
  }

  remove(c) {
    this.all = this.all.filter((other) => other !== c);
  }

  add(c, parent, role, content) {
    const id = newId();
    c.nodes[id] = {role, content, parent, children: [], active: -1};
    c.nodes[parent].active = c.nodes[parent].children.push(id) - 1;
    return id;
  }

  // The ids of the messages that are shown, in order.
  path(c) {
    const ids = [];
    for (let at = c.nodes.root; at.active >= 0;) {
      const id = at.children[at.active];
      ids.push(id);
      at = c.nodes[id];
    }
    return ids;
  }

  matching(words) {
    const wanted = words.toLowerCase();
    return this.all.filter((c) => c.title.toLowerCase().includes(wanted) ||
      Object.values(c.nodes).some((n) => n.content.toLowerCase().includes(wanted)));
  }

  exported() {
    return JSON.stringify({format: "plumb-web", version: 1, conversations: this.all}, null, 1);
  }

  // How many were taken.
  imported(text) {
    const data = JSON.parse(text);
    const found = (data?.conversations ?? []).filter(isConversation).map((c) => ({...c, id: newId()}));
    this.all.unshift(...found);
    return found.length;
  }
}
