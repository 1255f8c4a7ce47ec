// Values of a dimension by share: a name, a bar, a figure.
import { share, text } from "../lib/format";
import { Empty } from "./card";

export interface BarItem {
  key: string;
  name: string;
  value: number;
}

/** Shares are of `items` together, so give it all of them; only the first `most` are drawn. */
export function BarList({ items, unit, most = 8 }: { items: BarItem[]; unit: string; most?: number }) {
  const total = items.reduce((sum, item) => sum + item.value, 0);
  const sorted = items.filter((item) => item.value > 0).sort((a, b) => b.value - a.value);
  const high = sorted[0]?.value ?? 0;
  if (high === 0) return <Empty>Nothing in this range.</Empty>;
  const shown = sorted.slice(0, most);
  const rest = sorted.slice(most);
  return (
    <ul class="bars">
      {shown.map((item) => (
        <li key={item.key}>
          <span class="name" title={item.name}>
            {item.name}
          </span>
          <span class="value">
            {text(item.value, unit)}
            <span class="share">{share(item.value / total)}</span>
          </span>
          <span class="track" aria-hidden="true">
            <span style={{ width: `${(100 * item.value) / high}%` }} />
          </span>
        </li>
      ))}
      {rest.length > 0 && <li class="rest">and {rest.length} more</li>}
    </ul>
  );
}
