// Shows /openapi.json and sends requests to try. All text goes in by textContent: nothing the document says is markup.
"use strict";

const METHODS = ["get", "post", "put", "delete"];
const LONGEST_SHOWN = 20000;

// what the person typed, for as long as the page is open, and nowhere else
let credential = "";

function authorized(headers = {}) {
  return credential ? { ...headers, Authorization: `Bearer ${credential}` } : headers;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function resolved(schema, root) {
  if (!schema || !schema.$ref) return schema;
  return schema.$ref.slice(2).split("/").reduce((part, key) => part[key], root);
}

function table(heads, rows) {
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  return element("table", {}, line("th", heads), ...rows.map((cells) => line("td", cells)));
}

function signature(title, tensors) {
  const rows = tensors.map((tensor) => [
    element("code", { textContent: tensor.name }),
    tensor.datatype,
    `[${tensor.shape.join(", ")}]${tensor.optional ? " optional" : ""}`,
  ]);
  return [element("h3", { textContent: title }), table(["name", "datatype", "shape"], rows)];
}

function schemaText(media, root) {
  const schema = resolved(media.schema, root);
  return schema ? JSON.stringify(schema, null, 2) : "";
}

function folded(title, text) {
  return element("details", {},
    element("summary", { textContent: title }), element("div", {}, element("pre", { textContent: text })));
}

function exampleText(media) {
  if (!media) return "";
  return media.example === undefined ? "{}" : JSON.stringify(media.example);
}

// ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function target(path, fields) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(fields.get(`path ${name}`).value.trim()));
  const headers = {};
  for (const [key, field] of fields) {
    const [where, name] = key.split(" ");
    if (where === "header" && field.value.trim()) headers[name] = field.value.trim();
  }
  return { path: filled, headers };
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(method, path, headers, body) {
  const parts = ["curl", "-X", method.toUpperCase(), quoted(location.origin + path)];
  for (const [name, value] of Object.entries(headers)) parts.push("-H", quoted(`${name}: ${value}`));
  if (credential) parts.push("-H", '"Authorization: Bearer $PENSTOCK_API_KEY"');
  if (body) parts.push("-d", quoted(body));
  return parts.join(" ");
}

function readable(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // not JSON: as it is
  }
  return shown.length > LONGEST_SHOWN ? `${shown.slice(0, LONGEST_SHOWN)}\n… ${text.length} characters in all` : shown;
}

async function send(method, path, fields, bodyField, out) {
  const to = target(path, fields);
  const body = bodyField ? bodyField.value.trim() : "";
  const headers = body ? { ...to.headers, "Content-Type": "application/json" } : to.headers;
  const command = curl(method, to.path, headers, body);
  const sent = authorized(headers);
  const began = performance.now();
  let status, text;
  try {
    const response = await fetch(to.path, { method: method.toUpperCase(), headers: sent, body: body || undefined });
    const bytes = await response.text();
    const milliseconds = (performance.now() - began).toFixed(1);
    status = element("p", {
      className: response.ok ? "good" : "bad",
      textContent: `${response.status} ${response.statusText} in ${milliseconds} ms`,
    });
    text = readable(bytes);
  } catch (error) {
    status = element("p", { className: "bad", textContent: `no answer: ${error.message}` });
    text = "";
  }
  out.replaceChildren(status, ...(text ? [element("pre", { textContent: text })] : []),
    element("h3", { textContent: "The same with curl" }), element("pre", { textContent: command }));
}

function trial(method, path, operation) {
  const fields = new Map();
  const rows = (operation.parameters || []).map((parameter) => {
    const field = element("input", { type: "text", autocomplete: "off", spellcheck: false });
    field.setAttribute("aria-label", parameter.name);
    fields.set(`${parameter.in} ${parameter.name}`, field);
    return [element("code", { textContent: parameter.name }), parameter.in, field, parameter.description || ""];
  });
  const parts = rows.length ? [element("h3", { textContent: "Parameters" }), table(["name", "in", "value", ""], rows)] : [];
  const media = operation.requestBody && operation.requestBody.content["application/json"];
  let bodyField = null;
  if (media) {
    bodyField = element("textarea", { value: exampleText(media), spellcheck: false });
    bodyField.setAttribute("aria-label", "Body");
    parts.push(element("h3", { textContent: "Body" }), bodyField);
  }
  const out = element("div");
  out.setAttribute("aria-live", "polite");
  const button = element("button", { type: "button", textContent: "Send" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    await send(method, path, fields, bodyField, out);
    button.disabled = false;
  });
  return [...parts, button, out];
}

// ── the page ────────────────────────────────────────────────────────────────────────────────────────────────────────

function details(method, path, operation, root) {
  const inside = element("div");
  for (const [key, title] of [["x-inputs", "Inputs"], ["x-outputs", "Outputs"]]) {
    if (operation[key]) inside.append(...signature(title, operation[key]));
  }
  if (operation.servers) {
    const { url, variables } = operation.servers[0];
    const where = url.replace("{host}", variables.host.default);
    inside.append(element("p", { textContent: `On a port of its own: ${where}${path}` }));
  } else {
    inside.append(...trial(method, path, operation));
  }
  const request = operation.requestBody && operation.requestBody.content["application/json"];
  if (request) inside.append(folded("Schema of the body", schemaText(request, root)));
  for (const [status, response] of Object.entries(operation.responses)) {
    const media = response.content && Object.values(response.content)[0];
    if (status === "200" && media) inside.append(folded("Schema of the answer", schemaText(media, root)));
  }
  const errors = Object.keys(operation.responses).filter((status) => status !== "200");
  if (errors.length) inside.append(element("p", { className: "nothing", textContent: `Errors: ${errors.join(", ")}` }));
  return inside;
}

function shown(method, path, operation, root) {
  const summary = element("summary", {},
    element("b", { className: method, textContent: method.toUpperCase() }),
    element("span", { textContent: path }), element("em", { textContent: operation.summary }));
  const box = element("details", {}, summary);
  box.dataset.words = `${method} ${path} ${operation.summary}`.toLowerCase();
  // made when it is looked at: there may be thousands
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) box.append(details(method, path, operation, root));
  });
  return box;
}

function grouped(root) {
  const groups = new Map([["models", []]]);
  for (const [path, item] of Object.entries(root.paths)) {
    for (const method of METHODS.filter((each) => item[each])) {
      const tag = item[method].tags[0];
      groups.set(tag, [...(groups.get(tag) || []), shown(method, path, item[method], root)]);
    }
  }
  return [...groups].filter(([, boxes]) => boxes.length);
}

function filter(words) {
  for (const section of document.querySelectorAll("section")) {
    let any = false;
    for (const box of section.querySelectorAll(":scope > details")) {
      box.hidden = !words.every((word) => box.dataset.words.includes(word));
      any = any || !box.hidden;
    }
    section.hidden = !any;
  }
}

async function show() {
  const operations = document.getElementById("operations");
  const form = document.getElementById("credential");
  try {
    const response = await fetch("/openapi.json", { headers: authorized() });
    const root = await response.json();
    if (response.status === 401) form.hidden = false;
    if (!response.ok) throw new Error(root.error);
    document.getElementById("version").textContent = root.info.version;
    operations.replaceChildren(...grouped(root).map(([tag, boxes]) =>
      element("section", {}, element("h2", { textContent: tag }), ...boxes)));
  } catch (error) {
    operations.replaceChildren(element("p", { className: "bad", textContent: `/openapi.json can't be shown: ${error.message}` }));
  }
}

function main() {
  const form = document.getElementById("credential");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    credential = form.querySelector("input").value.trim();
    show();
  });
  show();
  const search = document.getElementById("search");
  search.addEventListener("input", () => filter(search.value.toLowerCase().split(/\s+/)));
}

main();
