// DEVELOPMENT ONLY, never shipped: the API's shapes with plausible moving numbers, to look at the page without
// an engine. `npm run mock`, then `npm run dev` — or build and open the mock's own address.
//   PORT=8099  MOCK=empty (no events yet) | signedout | broken (queries answer 500) | normal
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { dimensions, metrics } from "./mock-catalogue.mjs";
import { query, realtime, retention } from "./mock-numbers.mjs";

const port = Number(process.env.PORT ?? 8099);
const mode = process.env.MOCK ?? "normal";
const root = fileURLToPath(new URL("../../src/viewmeter/web/static", import.meta.url));
const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
  ".txt": "text/plain",
};
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
let signedIn = mode !== "signedout";

function send(response, status, body, type = "application/json") {
  response.writeHead(status, { "Content-Type": type });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

function problem(response, status, code, title, detail) {
  send(
    response,
    status,
    { type: `/docs/problems/${code}`, status, code, title, detail },
    "application/problem+json",
  );
}

async function bodyOf(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : {};
}

function stream(request, response, scope) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write("retry: 1000\n\n");
  const say = () =>
    response.write(
      `id: ${Date.now()}\nevent: metrics\ndata: ${JSON.stringify(realtime(Date.now(), scope, mode))}\n\n`,
    );
  say();
  const timer = setInterval(say, 1000);
  request.on("close", () => clearInterval(timer));
}

function file(response, path) {
  const wanted = normalize(path === "/" ? "/index.html" : path);
  const full = join(root, wanted);
  if (!full.startsWith(root) || !existsSync(full) || !statSync(full).isFile())
    return problem(response, 404, "not_found", "Nothing is here", path);
  response.writeHead(200, {
    "Content-Type": types[extname(full)] ?? "application/octet-stream",
    "Content-Security-Policy": policy,
  });
  createReadStream(full).pipe(response);
}

async function session(request, response) {
  if (request.method === "POST") {
    const { secret_key: key } = await bodyOf(request);
    signedIn = typeof key === "string" && key.startsWith("sk_");
    if (!signedIn)
      return problem(
        response,
        401,
        "bad_key",
        "This key is not known",
        "Secret keys begin with sk_ and are shown once.",
      );
    return send(response, 204);
  }
  if (request.method === "DELETE") {
    signedIn = false;
    return send(response, 204);
  }
  return send(response, 200, { tenant: "demo", scopes: ["read", "rules", "admin"], channels: null });
}

async function route(request, response) {
  const url = new URL(request.url ?? "/", "http://mock");
  const path = url.pathname;
  if (path === "/version") return send(response, 200, { version: "0.1.0" });
  if (!path.startsWith("/api/")) return file(response, path);
  if (!signedIn && !(path === "/api/v1/session" && request.method !== "GET"))
    return problem(response, 401, "unauthenticated", "Not signed in", "Send a secret key or sign in.");
  if (path === "/api/v1/session") return session(request, response);
  if (path === "/api/v1/analytics/metrics") return send(response, 200, { metrics });
  if (path === "/api/v1/analytics/dimensions") return send(response, 200, { dimensions });
  if (path === "/api/v1/live")
    return stream(request, response, { video_id: url.searchParams.get("video_id"), channel_id: null });
  if (mode === "broken")
    return problem(
      response,
      500,
      "store_unavailable",
      "The store cannot be read",
      "The rollup file is locked.",
    );
  if (path === "/api/v1/analytics/query") {
    const answer = query(await bodyOf(request), Date.now(), mode);
    return "refused" in answer
      ? problem(response, 422, "not_covered", "No rollup covers this", answer.refused)
      : send(response, 200, answer);
  }
  if (path.startsWith("/api/v1/analytics/retention/")) return send(response, 200, retention(mode));
  return problem(response, 404, "not_found", "Nothing is here", path);
}

createServer((request, response) => {
  route(request, response).catch((error) => problem(response, 500, "mock", "The mock broke", String(error)));
}).listen(port, "127.0.0.1", () => console.log(`mock API (${mode}) on http://127.0.0.1:${port}`));
