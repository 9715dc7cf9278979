// Start Swagger UI, sign MOR calls on their way out, and show what was signed beside what came back.

import { sign } from "./signing.js";
import { snippets } from "./snippets.js";

const username = document.getElementById("username");
const key = document.getElementById("key");
const showKey = document.getElementById("show-key");
const state = document.getElementById("signing-state");

/** What was sent last by each MOR call, by method and path. */
const sent = new Map();

function tellState() {
  const account = username.value.trim();
  if (!key.value) state.textContent = "No API key: MOR calls are sent as typed below.";
  else state.textContent = `MOR calls are signed${account ? ` as ${account}` : " with the username typed below"}.`;
}

function toggleKey() {
  const isShown = key.type === "password";
  key.type = isShown ? "text" : "password";
  showKey.setAttribute("aria-pressed", String(isShown));
}

const callName = (method, url) => `${method.toUpperCase()} ${new URL(url, location.href).pathname}`;

function signatureRule(method, url) {
  const { pathname } = new URL(url, location.href);
  const { paths = {} } = ui.specSelectors.specJson().toJS();
  const path = Object.keys(paths).find((known) => pathname.endsWith(known));
  return paths[path]?.[method.toLowerCase()]?.["x-signature"];
}

function beforeSending(request) {
  const rule = request.loadSpec ? undefined : signatureRule(request.method, request.url);
  if (rule) {
    const told = sign(request, rule, { username: username.value.trim(), key: key.value });
    sent.set(callName(request.method, request.url), told);
  }
  return request;
}

/** The text of MOR's error, empty where the answer is none. */
function errorIn(text) {
  return new DOMParser().parseFromString(text, "application/xml").querySelector("error")?.textContent ?? "";
}

function likelyReason(status, error, call) {
  if (status === 429) return "Too many wrong requests for this account came from here. Wait until the time in Retry-After is over.";
  switch (error) {
    case "Incorrect hash":
      if (!call.hash) return "The call was sent as typed. Enter the username and its API key at the top to have it signed.";
      if (call.hasBlankAtEdge) return "The API key at the top begins or ends with a blank, which counts. Was it pasted with it?";
      return `The API key at the top is most likely not the one of “${call.account}”.`;
    case "Bad login":
    case "User was not found":
      return `There is no account “${call.account}”, or it is blocked, or “p” is missing or wrong.`;
    case "Device was not found":
      return `There is no such device, or it is not one of “${call.account}”.`;
    case "GET Requests are disabled":
      return "The service takes these calls by POST alone, unless CALLFLOW_ALLOW_GET is on.";
    case "API Requests are disabled":
      return "MOR calls are switched off: for the service by CALLFLOW_API_ENABLED, or for this account.";
    default:
      return "";
  }
}

/** A plugin for Swagger UI: shows a MOR call's signed string, answer and snippets above its own details, and XML examples. */
function showSigned({ React }) {
  const h = React.createElement;

  function Copyable({ label, text }) {
    const [isCopied, setCopied] = React.useState(false);
    const shown = React.useRef(null);
    React.useEffect(() => setCopied(false), [text]);
    const copy = () => {
      // Without a secure context there is no navigator.clipboard.
      getSelection().selectAllChildren(shown.current);
      setCopied(document.execCommand("copy"));
      getSelection().removeAllRanges();
    };
    return h("div", { className: "copyable" },
      h("pre", { ref: shown, tabIndex: 0, "aria-label": label }, text),
      h("button", { type: "button", onClick: copy, "aria-label": `Copy: ${label}` }, isCopied ? "Copied" : "Copy"));
  }

  function Snippets({ call }) {
    const all = snippets(call);
    const [language, choose] = React.useState("curl");
    const choices = Object.keys(all).map((name) =>
      h("button", { key: name, type: "button", "aria-pressed": name === language, onClick: () => choose(name) }, name));
    return h(React.Fragment, null,
      h("div", { className: "languages", role: "group", "aria-label": "Language" }, choices),
      h(Copyable, { label: `The same call in ${language}`, text: all[language] }));
  }

  function Signed({ call, response }) {
    const text = response.get("text") ?? "";
    const error = errorIn(text);
    const reason = likelyReason(response.get("status"), error, call);
    const signed = call.hash && [
      h("dt", { key: 1 }, "Signed string"),
      h("dd", { key: 2 }, h("code", null, call.signedString || "(empty)"), h("small", null,
        `${call.signedNames.join(", ") || "No parameter"}; then the API key, which is not shown`)),
      h("dt", { key: 3 }, "Hash"),
      h("dd", { key: 4 }, h("code", null, call.hash)),
    ];
    return h("section", { className: "signed", "aria-label": "The call" },
      error && h("p", { className: "refused", role: "alert" }, h("strong", null, error), reason && `: ${reason}`),
      signed && h("dl", null, signed),
      h("h4", null, "Answer"),
      h("pre", { className: "answer", tabIndex: 0, "aria-label": "Answer" }, text),
      h("h4", null, "The same call"),
      h(Snippets, { call }));
  }

  const liveResponse = (Original) => (props) => {
    const { method, response } = props;
    const call = response.get("url") && sent.get(callName(method, response.get("url")));
    if (!call) return h(Original, props);
    return h(React.Fragment, null,
      h(Signed, { call, response }),
      h("details", { className: "details" }, h("summary", null, "Status, headers and request as Swagger UI shows them"), h(Original, props)));
  };
  // Swagger UI would make an XML example of its own, and cannot show one that is given.
  const getXmlSampleSchema = (_schema, _config, example) => example ?? null;
  return { wrapComponents: { liveResponse }, fn: { jsonSchema202012: { getXmlSampleSchema } } };
}

function followColours(dark) {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

const dark = matchMedia("(prefers-color-scheme: dark)");
followColours(dark);
dark.addEventListener("change", followColours);
username.addEventListener("input", tellState);
key.addEventListener("input", tellState);
showKey.addEventListener("click", toggleKey);
tellState();

const ui = SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("swagger-ui"),
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [showSigned],
  requestInterceptor: beforeSending,
});
