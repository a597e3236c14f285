// The routes of /openapi.json as a readable page.

const make = (tag, text, ...children) => {
  const made = document.createElement(tag);
  made.textContent = text || "";
  made.append(...children);
  return made;
};

// `words` in backticks are code.
const prose = (tag, text) =>
  make(tag, "", ...(text || "").split(/`([^`]*)`/).map((part, index) => (index % 2 ? make("code", part) : part)));

// The values that a field takes: its type, or its words, with the range and the default.
function valuesOf(held) {
  const kinds = held.anyOf || held.oneOf || [held];
  const said = kinds.filter((kind) => kind.type !== "null").map(kindOf).join(" or ");
  return held.default == null ? said : `${said}; default: ${held.default}`;
}

function kindOf({ $ref, enum: words, type, items, format, minimum, maximum, maxLength }) {
  if ($ref) return objectOf($ref);
  if (words) return words.join(", ");
  if (type === "array") return `list of ${kindOf(items)}`;
  const name = format === "binary" ? "file" : type || "";
  if (minimum != null && maximum != null) return `${name} from ${minimum} to ${maximum}`;
  return maxLength ? `${name} of at most ${maxLength} characters` : name;
}

const objectOf = (ref) => ref.split("/").at(-1);

function tableOf(columns, rows) {
  const names = columns.map((name) => Object.assign(make("th", name), { scope: "col" }));
  return make("table", "", make("thead", "", make("tr", "", ...names)), make("tbody", "", ...rows));
}

// "Status codes: 200, 404", each with a link to the object of its JSON.
function statusOf(responses) {
  const parts = Object.entries(responses).flatMap(([code, { content = {} }]) => {
    const ref = Object.values(content)[0]?.schema.$ref;
    if (!ref) return [", ", code];
    return [", ", `${code} (`, Object.assign(make("a", objectOf(ref)), { href: `#${objectOf(ref)}` }), ")"];
  });
  return make("p", "Status codes: ", ...parts.slice(1));
}

document.getElementById("origin").textContent = location.origin;
const schema = await (await fetch("/openapi.json")).json();
const routes = document.getElementById("routes");

for (const [path, methods] of Object.entries(schema.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const verb = make("span", method.toUpperCase());
    verb.className = "method";
    const section = make("section", "", make("h2", "", verb, make("code", path)), make("p", route.summary));
    for (const part of (route.description || "").split("\n\n")) if (part) section.append(prose("p", part));
    const form = route.requestBody?.content["multipart/form-data"]?.schema;
    const rows = (route.parameters || []).map((item) => [item.name, item.in, item.schema, item.description, item.required]);
    for (const [name, held] of Object.entries(form?.properties || {}))
      rows.push([name, "form", held, held.description, form.required.includes(name)]);
    if (rows.length) {
      section.append(tableOf(["Name", "Where", "Values", "Meaning"], rows.map(([name, where, held, what, required]) =>
        make("tr", "", make("td", "", make("code", name)), make("td", required ? `${where}, required` : where), make("td", valuesOf(held)), prose("td", what)))));
    }
    section.append(statusOf(route.responses));
    routes.append(section);
  }
}

for (const [name, { description, properties, required }] of Object.entries(schema.components.schemas)) {
  const rows = Object.entries(properties).map(([field, held]) => {
    const nullable = (held.anyOf || []).some(({ type }) => type === "null");
    const values = valuesOf(held) + (nullable ? " or null" : "") + (required.includes(field) ? "" : "; not always there");
    return make("tr", "", make("td", "", make("code", field)), make("td", values));
  });
  const section = make("section", "", make("h2", "", make("code", name)), prose("p", description), tableOf(["Field", "Values"], rows));
  section.id = name;
  document.getElementById("objects").append(section);
}

for (const [, code, what] of schema.info.description.matchAll(/`([a-z-]+)` (\d[^;]*)/g)) {
  const row = make("tr", "", make("td", "", make("code", code)), make("td", what));
  row.id = code;
  document.getElementById("codes").append(row);
}
