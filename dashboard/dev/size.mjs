// Prints what a browser downloads, gzipped, and fails the build when the JavaScript outgrows its limit.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_KB = 60;
const folder = new URL("../../src/viewmeter/web/static/assets/", import.meta.url);
const kinds = { js: 0, css: 0, woff2: 0 };
for (const name of readdirSync(folder)) {
  const kind = name.split(".").at(-1) ?? "";
  const bytes = readFileSync(new URL(name, folder));
  if (kind in kinds) kinds[kind] += kind === "woff2" ? bytes.length : gzipSync(bytes, { level: 9 }).length;
}
for (const [kind, bytes] of Object.entries(kinds))
  console.log(`${kind.padEnd(6)} ${(bytes / 1024).toFixed(1)} KB gzipped`);
if (kinds.js > LIMIT_KB * 1024) {
  console.error(`The JavaScript is over its limit of ${LIMIT_KB} KB gzipped.`);
  process.exit(1);
}
