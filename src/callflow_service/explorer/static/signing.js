// Sign a MOR call just before Swagger UI sends it.

import { sha1 } from "./sha1.js";

/**
 * Put `u` and `hash` into a request, and tell what was done.
 *
 * Without a key the request stays as it was typed.
 *
 * @param request Swagger UI's request; its url or its body is replaced.
 * @param rule The document's `x-signature`: the names that are signed, in their order, and the aliases of some.
 * @param login The username and the key.
 * @returns What can be shown of the call; it does not hold the key. Null where the body cannot be read.
 */
export function sign(request, rule, { username, key }) {
  const call = read(request);
  if (!call) return null;
  const told = { method: request.method, encoding: call.encoding, account: username || call.values.u };
  if (key) {
    if (username) call.values.u = username;
    const signed = signedValues(call.values, rule);
    told.signedString = signed.map(([, value]) => value).join("");
    told.signedNames = signed.map(([name]) => name);
    told.hasBlankAtEdge = key !== key.trim();
    told.hash = call.values.hash = sha1(told.signedString + key);
    write(request, call);
  }
  return { ...told, url: new URL(request.url, location.href).href, values: legible(call.values, rule) };
}

/** The values in the document's order, without the empty ones, which are as good as none. */
function legible({ hash, ...values }, { order }) {
  const places = ["u", "p", ...order];
  const place = ([name]) => (places.includes(name) ? places.indexOf(name) : places.length);
  const sorted = Object.entries(values).sort((one, other) => place(one) - place(other));
  return Object.fromEntries([...sorted, ["hash", hash]].filter(([, value]) => value !== "" && value !== undefined));
}

/** The names and values that are signed: those that were sent and are not empty. */
function signedValues(values, { order, aliases }) {
  const sent = (name) => {
    const value = values[name];
    return value === null || typeof value === "object" ? "" : String(value ?? "");
  };
  return order
    .map((name) => [name, ...Object.keys(aliases).filter((alias) => aliases[alias] === name)].find(sent))
    .filter(Boolean)
    .map((name) => [name, sent(name)]);
}

function read(request) {
  const { body, method, url } = request;
  if (method.toUpperCase() === "GET") {
    return { encoding: "query", values: Object.fromEntries(new URL(url, location.href).searchParams) };
  }
  if (body instanceof FormData) return { encoding: "multipart", values: Object.fromEntries(body) };
  if (/json/i.test(header(request, "content-type"))) return readJson(body);
  return { encoding: "form", values: Object.fromEntries(new URLSearchParams(body ?? "")) };
}

function readJson(body) {
  try {
    const values = JSON.parse(body);
    const isObject = values !== null && typeof values === "object" && !Array.isArray(values);
    return isObject ? { encoding: "json", values } : null;
  } catch {
    return null;
  }
}

function write(request, { encoding, values }) {
  if (encoding === "query") {
    const url = new URL(request.url, location.href);
    url.search = new URLSearchParams(values);
    request.url = url.href;
  } else if (encoding === "multipart") {
    for (const name of ["u", "hash"]) request.body.set(name, values[name]);
  } else {
    request.body = encoding === "json" ? JSON.stringify(values) : new URLSearchParams(values).toString();
  }
}

function header(request, wanted) {
  const found = Object.entries(request.headers ?? {}).find(([name]) => name.toLowerCase() === wanted);
  return found ? found[1] : "";
}
