// The same call in other languages, to be pasted as it is. Whatever a value holds, it stays within its quotes.

const FORM = "application/x-www-form-urlencoded";
const JSON_TYPE = "application/json";

const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const inPhp = (text) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
// What JSON escapes, Python reads alike.
const inPython = (text) => JSON.stringify(text);

/** The call that `sign` told of, by language. */
export function snippets(call) {
  return { curl: curl(call), PHP: php(call), Python: python(call) };
}

function bare(call) {
  return call.encoding === "query" ? call.url.split("?", 1)[0] : call.url;
}

function curl(call) {
  const lines = [`curl ${call.encoding === "query" ? "--get " : ""}${inShell(bare(call))}`];
  if (call.encoding === "json") {
    lines.push(`--header ${inShell(`Content-Type: ${JSON_TYPE}`)}`, `--data-raw ${inShell(JSON.stringify(call.values))}`);
  } else {
    const option = call.encoding === "multipart" ? "--form-string" : "--data-urlencode";
    for (const [name, value] of Object.entries(call.values)) lines.push(`${option} ${inShell(`${name}=${value}`)}`);
  }
  return lines.join(" \\\n  ");
}

function php(call) {
  const json = call.encoding === "json";
  const pairs = Object.entries(call.values).map(([name, value]) => `    ${inPhp(name)} => ${inPhp(String(value))},\n`);
  const lines = ["<?php"];
  lines.push(json ? `$body = ${inPhp(JSON.stringify(call.values))};` : `$body = http_build_query([\n${pairs.join("")}]);`);
  if (call.encoding === "query") {
    lines.push(`echo file_get_contents(${inPhp(`${bare(call)}?`)} . $body);`);
  } else {
    lines.push(
      "$context = stream_context_create(['http' => [",
      "    'method' => 'POST',",
      `    'header' => 'Content-Type: ${json ? JSON_TYPE : FORM}',`,
      "    'content' => $body,",
      "    'ignore_errors' => true,",
      "]]);",
      `echo file_get_contents(${inPhp(call.url)}, false, $context);`,
    );
  }
  return lines.join("\n");
}

function python(call) {
  const json = call.encoding === "json";
  const pairs = Object.entries(call.values).map(([name, value]) => `    ${inPython(name)}: ${inPython(String(value))},\n`);
  const lines = [...(json ? [] : ["from urllib.parse import urlencode"]), "from urllib.request import Request, urlopen", ""];
  lines.push(json ? `body = ${inPython(JSON.stringify(call.values))}` : `body = urlencode({\n${pairs.join("")}})`);
  if (call.encoding === "query") {
    lines.push(`request = Request(${inPython(`${bare(call)}?`)} + body)`);
  } else {
    lines.push(`request = Request(${inPython(call.url)}, body.encode(), {"Content-Type": "${json ? JSON_TYPE : FORM}"})`);
  }
  lines.push("print(urlopen(request).read().decode())");
  return lines.join("\n");
}
