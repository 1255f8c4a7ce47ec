import { api } from "../lib/api";
import { useLoaded } from "../lib/data";
import { type Go, PlaceLink } from "./nav";

export function Footer({ go }: { go: Go }) {
  const version = useLoaded("version", api.version, 3_600_000).data;
  return (
    <footer>
      <span>Viewmeter {version}</span>
      <span>IP country data: NRO / iptocc</span>
      <PlaceLink to={{ range: "live", view: "" }} go={go}>
        Look up a view
      </PlaceLink>
      <a href="/docs">API</a>
      <a href="/assets/THIRD_PARTY.txt">Licences</a>
    </footer>
  );
}
