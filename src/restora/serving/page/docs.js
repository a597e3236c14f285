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

function kindOf({ enum: words, type, format, minimum, maximum, maxLength }) {
  if (words) return words.join(", ");
  const name = format === "binary" ? "file" : type || "";
  if (minimum != null && maximum != null) return `${name} from ${minimum} to ${maximum}`;
  return maxLength ? `${name} of at most ${maxLength} characters` : name;
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
      const body = make("tbody");
      for (const [name, where, held, what, required] of rows) {
        body.append(make("tr", "", make("td", "", make("code", name)), make("td", required ? `${where}, required` : where), make("td", valuesOf(held)), prose("td", what)));
      }
      const names = ["Name", "Where", "Values", "Meaning"].map((name) => Object.assign(make("th", name), { scope: "col" }));
      section.append(make("table", "", make("thead", "", make("tr", "", ...names)), body));
    }
    section.append(make("p", `Status codes: ${Object.keys(route.responses).join(", ")}`));
    routes.append(section);
  }
}

for (const [, code, what] of schema.info.description.matchAll(/`([a-z-]+)` (\d[^;]*)/g)) {
  const row = make("tr", "", make("td", "", make("code", code)), make("td", what));
  row.id = code;
  document.getElementById("codes").append(row);
}
