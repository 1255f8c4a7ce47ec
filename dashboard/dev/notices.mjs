// The licences of what is inside the built page, beside it, as they ask.
import { readFileSync, writeFileSync } from "node:fs";

const parts = ["preact", "uplot", "@fontsource-variable/inter"];
const notices = parts.map((name) => {
  const folder = new URL(`../node_modules/${name}/`, import.meta.url);
  const { version } = JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));
  return `${name} ${version}\n\n${readFileSync(new URL("LICENSE", folder), "utf8").trim()}\n`;
});
const out = new URL("../../src/viewmeter/web/static/assets/THIRD_PARTY.txt", import.meta.url);
writeFileSync(out, notices.join(`\n${"-".repeat(72)}\n\n`));
