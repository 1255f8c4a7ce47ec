// Built into the Python package; everything but index.html lies under /assets/.
import { defineConfig } from "vite";

const api = process.env.VIEWMETER_API ?? "http://127.0.0.1:8099";

export default defineConfig({
  build: {
    outDir: "../src/viewmeter/web/static",
    emptyOutDir: true,
    assetsInlineLimit: 0, // a data: URI would need a hole in the Content-Security-Policy
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: {
    proxy: Object.fromEntries(
      ["/api", "/version", "/signin"].map((path) => [path, { target: api, changeOrigin: false }]),
    ),
  },
});
