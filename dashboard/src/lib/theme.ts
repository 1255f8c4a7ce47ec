// Light and dark: the system's choice, until somebody presses the button. `assets/theme.js` applies it at start.

export function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggleTheme(): void {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("viewmeter.theme", theme);
  } catch {
    // Blocked storage: the choice lasts as long as the page.
  }
  dispatchEvent(new Event("viewmeter:theme"));
}

/** Canvas cannot use CSS variables: charts read them here and redraw when this calls back. */
export function onThemeChange(callback: () => void): () => void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  addEventListener("viewmeter:theme", callback);
  system.addEventListener("change", callback);
  return () => {
    removeEventListener("viewmeter:theme", callback);
    system.removeEventListener("change", callback);
  };
}

export function cssColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
