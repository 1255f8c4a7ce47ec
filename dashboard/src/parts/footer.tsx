import { api } from "../lib/api";
import { useLoaded } from "../lib/data";

export function Footer() {
  const version = useLoaded("version", api.version, 3_600_000).data;
  return (
    <footer>
      <span>Viewmeter {version}</span>
      <span>IP country data: NRO / iptocc</span>
      <a href="/docs">API</a>
      <a href="/assets/THIRD_PARTY.txt">Licences</a>
    </footer>
  );
}
