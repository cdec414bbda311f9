// Runs the script of a compare.html on a stand-in for the browser's document, uses its controls, and prints counts.
const fs = require("fs");
const html = fs.readFileSync(process.argv[2], "utf8");
const json = html.match(/<script type="application\/json" id="data">([\s\S]*?)<\/script>/)[1];
const script = html.match(/<script>\n([\s\S]*?)<\/script>/)[1];
class Node {
  constructor(name) { this.name = name; this.children = []; this.attributes = {}; this.dataset = {}; this.style = {}; this.listeners = {};
    const classes = new Set(); this.classes = classes;
    this.classList = { toggle: (c, on) => { if (on === undefined ? !classes.has(c) : on) classes.add(c); else classes.delete(c); }, remove: (c) => classes.delete(c) }; }
  setAttribute(key, value) { if (String(value).includes("NaN") || String(value).includes("undefined")) throw new Error(`${this.name} ${key}=${value}`); this.attributes[key] = String(value); }
  appendChild(child) { this.children = this.children.filter((c) => c !== child); this.children.push(child); child.parentNode = this; }
  append(...children) { children.forEach((c) => typeof c === "string" ? (this.text = (this.text||"") + c) : this.appendChild(c)); }
  replaceChildren() { this.children = []; this.textContent = ""; }
  addEventListener(type, f) { (this.listeners[type] ||= []).push(f); }
  fire(type, event) { (this.listeners[type] || []).forEach((f) => f(event || {})); }
  querySelector(s) { return (this.parts ||= {})[s] ||= new Node(s); }
  getBoundingClientRect() { return { top: 0, height: 350 }; }
  setPointerCapture() {}
  all() { return [this, ...this.children.flatMap((c) => c.all())]; }
}
const named = {};
const curveButtons = ["val", "train"].map((n) => { const b = new Node("button"); b.dataset.curve = n; return b; });
const allButtons = ["on", "off", "five"].map((n) => { const b = new Node("button"); b.dataset.all = n; return b; });
global.Option = class extends Node { constructor(t, v) { super("option"); this.textContent = t; this.value = v; } };
global.document = {
  getElementById: (id) => id === "data" ? { textContent: json } : (named[id] ||= new Node(id)),
  createElementNS: (_, name) => new Node(name), createElement: (name) => new Node(name),
  querySelector: (s) => named[s] ||= new Node(s),
  querySelectorAll: (s) => s === "[data-curve]" ? curveButtons : s === "[data-all]" ? allButtons : s === ".legend button" ? (named["#curves .legend"].children) : [],
};
eval(script.replace('"use strict";', ""));
const count = (where, name) => document.querySelector(where).all().filter((n) => n.name === name).length;
const faded = () => document.querySelector("#curves .plot").all().filter((n) => n.classes.has("faded")).length;
const out = { curves: count("#curves .plot", "polyline"), parallel: count("#parallel .plot", "polyline"), dots: count("#slices .plot", "circle"), bars: count("#importance .plot", "rect"), method: document.querySelector("#importance .method").textContent, legend: named["#curves .legend"].children.length };
const catchers = document.querySelector("#parallel .plot").all().filter((n) => n.attributes.class === "catch");
out["faded before"] = faded();
if (catchers.length) { const last = catchers[catchers.length - 1]; last.fire("pointerdown", { clientY: 329, pointerId: 1 }); last.fire("pointermove", { clientY: 345 }); last.fire("pointerup"); out.faded = faded(); last.fire("pointerdown", { clientY: 10, pointerId: 1 }); last.fire("pointerup"); out["faded after"] = faded(); }
const hidden = () => document.querySelector("#curves .plot").all().filter((n) => n.classes.has("hidden")).length;
named["#curves .legend"].children[0].fire("click"); out["one setting hidden"] = hidden(); allButtons[1].fire("click"); out["all hidden"] = hidden(); allButtons[0].fire("click"); out["none hidden"] = hidden();
curveButtons[1].fire("click"); out["training curves"] = count("#curves .plot", "polyline");
console.log(JSON.stringify(out, null, 1));
