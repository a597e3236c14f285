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
        const values = held.enum ? held.enum.join(", ") : held.format || held.type || held.anyOf?.[0].type || "";
        body.append(make("tr", "", make("td", "", make("code", name)), make("td", required ? `${where}, required` : where), make("td", values), prose("td", what)));
      }
      section.append(make("table", "", body));
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
